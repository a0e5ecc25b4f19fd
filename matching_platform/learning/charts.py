"""Charts as data, drawn by templates as SVG: nothing to load, and no script."""

from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from matching_platform.ledger.money import MINOR_UNITS


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, with labels at `ticks` (value, label)."""

    label: str
    low: float
    high: float
    ticks: list[tuple[float, str]]


@dataclass(frozen=True)
class Line:
    """The line of a side, with or without dots; `points` are x, y and what is told when one points at it.

    `band` lies around it: x, low and high.
    """

    side: str
    points: list[tuple[float, float, str]]
    dots: bool = False
    band: list[tuple[float, float, float]] | None = None


@dataclass(frozen=True)
class Chart:
    """Lines over two axes, with rules to read them by: horizontal (y, label) and vertical (x, label).

    `strips` (from, to, what is told) cover the plot, so that one can point anywhere. What is said of a horizontal rule
    stands where the lines are far above it: on the left where they fall.
    """

    x: Axis
    y: Axis
    lines: list[Line]
    diagonal: bool = False
    across: tuple[tuple[float, str], ...] = ()
    down: tuple[tuple[float, str], ...] = ()
    strips: tuple[tuple[float, float, str], ...] = ()
    falls: bool = True
    width: int = 570
    height: int = 330


def percents(label: str, low: float, high: float, steps: int, places: int = 0) -> Axis:
    values = [low + (high - low) * step / steps for step in range(steps + 1)]
    return Axis(label, low, high, [(value, percent(value, places)) for value in values])


def percent(share: float | None, places: int = 1) -> str:
    return "–" if share is None else f"{share * 100:.{places}f} %"


def whole(number: float | None) -> str:
    return "–" if number is None else f"{number:,.0f}"


def points(share: float) -> str:
    return f"{share * 100:+.1f}"


def money(minor: int, currency: str) -> str:
    return f"{minor / MINOR_UNITS:,.2f}".replace(",", "\u202f") + f" {currency}"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("matching_platform.learning"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, whole=whole, points=points, money=money)
    return environment


def render(template: str, **values: object) -> str:
    """A template of this room, filled in."""
    return _environment().get_template(template).render(**values)
