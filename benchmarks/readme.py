"""The README's table and sentences of the benchmark, between two markers."""

from statistics import mean
from typing import Any, Final

BEGIN: Final = "<!-- benchmark -->"
END: Final = "<!-- /benchmark -->"

SIDES: Final = {"rules": "rules", "trees": "boosted trees", "model": "the model"}  # the least first
TOLERATED: Final = 0.02  # that a later month may fall below the level of the first year

_SHARE, _COUNT = "{:.3f}", "{:,.0f}"
_COLUMNS: Final = (
    ("exact", "exact", _SHARE),
    ("exact_paying", "exact, paying", _SHARE),
    ("f1", "pair F1", _SHARE),
    ("stp_995", "stp_995", _SHARE),
    ("stp_990", "stp_990", _SHARE),
    ("auto_precision", "auto precision", _SHARE),
    ("auto_share", "auto share", _SHARE),
    ("ece", "ECE", _SHARE),
    ("amount_exact", "amount exact", _SHARE),
    ("training_seconds", "training, s", _COUNT),
    ("transfers_per_second", "transfers/s", _COUNT),
)


def insert(text: str, figures: dict[str, Any]) -> str:
    """`text` with what stands between its markers replaced. ValueError where it has not just one pair of them."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"the text must hold {BEGIN} and {END} once each")
    before, rest = text.split(BEGIN)
    return "".join((before, BEGIN, "\n", section(figures), END, rest.split(END)[1]))


def section(figures: dict[str, Any]) -> str:
    """The table, and what else the figures say, as Markdown."""
    head = ["|".join(("", " ", *(f" {title} " for _, title, _ in _COLUMNS), "")), "|---" * (len(_COLUMNS) + 1) + "|"]
    body = [_row(exam, side) for exam in figures["exams"] for side in SIDES]
    seen = [f"- {sentence}" for sentence in (*map(_candidates, figures["exams"]), walked(figures["walk"]))]
    return "\n".join([*head, *body, "", *seen, ""])


def first_year(walk: list[dict[str, Any]], figure: str) -> float:
    """The mean of the model's `figure` over the months walked of the first year."""
    return mean(row["sides"]["model"][figure] for row in walk if row["first_year"])


def walked(walk: list[dict[str, Any]]) -> str:
    """How the months after the first year stand against it; the first month walked must be one of it."""
    level, later = first_year(walk, "exact_paying"), [row for row in walk if not row["first_year"]]
    span = f"Walk forward over {walk[0]['month']} to {walk[-1]['month']}, trained anew before each month"
    start = f"{span}: {level:.3f} of the paying transfers exactly right in the company's first year"
    if not later:
        return f"{start}."
    lowest = min(later, key=lambda row: row["sides"]["model"]["exact_paying"])
    reached = lowest["sides"]["model"]["exact_paying"]
    below = f"{100 * (reached - level):+.1f} points"
    return f"{start}, {reached:.3f} in the lowest month after it, {lowest['month']} ({below})."


def _row(exam: dict[str, Any], side: str) -> str:
    figures = exam["sides"][side]
    cells = [form.format(figures[name]) if name in figures else "–" for name, _, form in _COLUMNS]
    if not figures["auto_share"]:
        cells[[name for name, _, _ in _COLUMNS].index("auto_precision")] = "–"
    if side == "model":
        cells = [cell if cell == "–" else f"**{cell}**" for cell in cells]
    return f"| {exam['title']}: {SIDES[side]} | {' | '.join(cells)} |"


def _candidates(exam: dict[str, Any]) -> str:
    model = exam["sides"]["model"]
    found, considered = (f"{100 * model[name]:.2f} %" for name in ("true_pairs_found", "right_set_considered"))
    return (
        f"{exam['title']}: {model['transfers']:,.0f} transfers; {found} of the true pairs are among "
        f"{model['candidates_per_transfer']:.1f} candidates a transfer, the right set among those compared for "
        f"{considered} of the transfers."
    )
