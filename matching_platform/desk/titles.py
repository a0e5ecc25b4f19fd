"""A transfer's title, cut where its recognised parts begin and end."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from matching_platform.matching.marks import Mark


@dataclass(frozen=True)
class Piece:
    """A part of a title; `marks` says what was recognised there, nothing where it is empty."""

    text: str
    marks: tuple[Mark, ...]


def pieces(title: str, marks: Sequence[Mark]) -> list[Piece]:
    """`title` in pieces, each under the same marks; marks may overlap or reach past its end."""
    edges = {0, len(title)} | {min(edge, len(title)) for mark in marks for edge in (mark.start, mark.end)}
    cuts = sorted(edges)
    return [
        Piece(title[start:end], tuple(mark for mark in marks if mark.start <= start and end <= mark.end))
        for start, end in pairwise(cuts)
    ]
