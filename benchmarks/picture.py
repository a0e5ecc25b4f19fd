"""The benchmark as one picture: what each side reaches, and whether it holds month after month."""

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import PercentFormatter

from benchmarks.readme import SIDES, TOLERATED, first_year

_COLOURS: Final = {"rules": "#aab3bf", "trees": "#7c5cbf", "model": "#0f766e"}
_INK, _SOFT, _LINE = "#17202b", "#5d6978", "#e3e7ec"
_BARS: Final = {"exact_paying": "exactly right", "f1": "pair F1", "stp_995": "straight through"}
_WALKED: Final = {
    "exact_paying": "Month by month: exactly right",
    "stp_995": "Month by month: straight through",
}
_MEANING: Final = (
    "Exactly right: paying transfers whose whole set of invoices is right. Straight through: those that can be booked "
    "unattended, by descending confidence, while 99.5 % of the booked are right."
)
_STYLE: Final = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _SOFT,
    "xtick.color": _SOFT,
    "ytick.color": _INK,
    "svg.hashsalt": "matching_platform",  # equal figures give an equal file
}


def draw(figures: dict[str, Any], path: Path) -> None:
    """Writes the picture of `figures`, as `measure` gives them, in the format that the name of `path` asks for."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(12, 8), layout=ConstrainedLayoutEngine(w_pad=0.16, h_pad=0.13), facecolor="white")
        above, below = figure.subfigures(2, 1, height_ratios=[1, 0.86])
        exams, walk = figures["exams"], figures["walk"]
        panels = above.subplots(1, len(exams), sharex=True, sharey=True)
        for panel, exam in zip(panels, exams, strict=True):
            _bars(panel, exam)
        for panel, name in zip(below.subplots(1, len(_WALKED)), _WALKED, strict=True):
            _months(panel, walk, name)
        handles, labels = panels[0].get_legend_handles_labels()
        above.legend(handles, labels, loc="outside upper left", ncols=len(SIDES), frameon=False, fontsize=10.5)
        below.supxlabel(_MEANING, fontsize=8.5, color=_SOFT)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)


def _bars(panel: Axes, exam: dict[str, Any]) -> None:
    height = 0.26
    for place, (side, title) in enumerate(reversed(SIDES.items())):
        values = [exam["sides"][side][name] for name in _BARS]
        rows = [row + (place - 1) * height for row in range(len(_BARS))]
        panel.barh(rows, values, height * 0.86, color=_COLOURS[side], label=title)
        for row, value in zip(rows, values, strict=True):
            weight = "bold" if side == "model" else "normal"
            panel.text(value + 0.015, row, f"{100 * value:.1f} %", va="center", fontsize=8.5, color=_INK, weight=weight)
    panel.set_yticks(range(len(_BARS)), list(_BARS.values()))
    panel.invert_yaxis()
    panel.set_xlim(0, 1.14)
    panel.set_xticks([])
    panel.tick_params(length=0)
    panel.spines[["top", "right", "bottom"]].set_visible(False)
    _titled(panel, exam["title"], f"{exam['sides']['model']['transfers']:,.0f} transfers")


def _months(panel: Axes, walk: list[dict[str, Any]], name: str) -> None:
    months = [row["month"] for row in walk]
    for side in SIDES:
        values = [row["sides"][side][name] for row in walk]
        panel.plot(
            months, values, color=_COLOURS[side], linewidth=2.6 if side == "model" else 1.6, marker="o", markersize=3.5
        )
    level = first_year(walk, name)
    panel.axhspan(level - TOLERATED, level, color=_COLOURS["model"], alpha=0.14, linewidth=0)
    audited = next((row["month"] for row in walk if row["judged_by"] == "audit"), None)
    if audited:
        panel.axvline(audited, color=_SOFT, linewidth=0.8, linestyle=(0, (4, 4)))
        panel.annotate(
            "audited from here",
            (audited, 0),
            xycoords=("data", "axes fraction"),
            xytext=(4, 5),
            textcoords="offset points",
            fontsize=8,
            color=_SOFT,
        )
    low = panel.get_ylim()[0]
    panel.set_ylim(low - 0.1 * (1 - low), 1.005)
    panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    panel.set_xticks(months[::3])
    panel.tick_params(length=0)
    panel.grid(axis="y", color=_LINE, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "left"]].set_visible(False)
    _titled(panel, _WALKED[name], "trained anew before each month; shaded: the first year's level, and 2 points below")


def _titled(panel: Axes, title: str, told: str) -> None:
    panel.set_title(title, loc="left", fontsize=11.5, weight="bold", pad=21)
    panel.annotate(
        told, (0, 1), xycoords="axes fraction", xytext=(0, 8), textcoords="offset points", color=_SOFT, fontsize=8.5
    )
