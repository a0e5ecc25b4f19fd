"""What a server must refuse: requests that are nearly right, and some that are not at all."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from matching_platform.delivery.acceptance.schema import some
from matching_platform.delivery.acceptance.server import asking, match, told
from matching_platform.delivery.probe import REQUEST, Proposals, differences, given
from matching_platform.learning.gate import Verdict
from matching_platform.ledger.schema import OPEN_INVOICES, TRANSFERS, Column, Kind, Table

# More than a server may take at once.
HUGE_BYTES: Final = 80 * 2**20

_CHUNK: Final = b" " * 2**20
_REFUSED: Final = frozenset({400})
_ROW: Final = 2

_ABSENT: Final = object()
_DEEP: Final = "[" * 100_000
_JSON: Final = {"content-type": "application/json"}

# Wrong in every column of the kind.
_WRONG: Final[dict[Kind, tuple[Any, ...]]] = {
    Kind.KEY: (5, [], "half a pair \ud800"),
    Kind.TEXT: (5, {"text": "FV"}, True),
    Kind.CHOICE: ("nonsense", 5),
    Kind.DATE: ("28.05.2024", "2024-02-31", 20240528),
    Kind.AMOUNT: (float("nan"), float("inf"), 1e300, 1.005, "1,50", True, []),
}
# Wrong where a value must be there; text that is null is empty.
_NEEDED: Final[dict[Kind, tuple[Any, ...]]] = {
    Kind.KEY: (None, "", _ABSENT),
    Kind.TEXT: (_ABSENT,),
    Kind.CHOICE: (None, "", _ABSENT),
    Kind.DATE: (None, _ABSENT),
    Kind.AMOUNT: (None, _ABSENT),
}
_NOT_POSITIVE: Final = (0, -1)


@dataclass(frozen=True)
class Bad:
    """A request, how it may be refused, and the place that the refusal has to name: table, row and column."""

    name: str
    content: bytes = b""
    method: str = "POST"
    path: str = "/match"
    headers: dict[str, str] = field(default_factory=lambda: dict(_JSON))
    statuses: frozenset[int] = _REFUSED
    place: dict[str, Any] | None = None
    huge: bool = False


MALFORMED: Final = (
    Bad("no body"),
    Bad("no JSON", b"{"),
    Bad("no object", b"[]"),
    Bad("null", b"null"),
    Bad("no UTF-8", b'{"transfers": [], "invoices": ["\xff\xfe"]}'),
    Bad("a list nested deeply", _DEEP.encode()),
    Bad("a value nested deeply", f'{{"transfers": [{{"title": {_DEEP}'.encode()),
    Bad("a number of 5,000 digits", b"1" * 5000),
    Bad("no transfers", b'{"invoices": []}'),
    Bad("no invoices", b'{"transfers": []}'),
    Bad("rows that are no list", b'{"transfers": {}, "invoices": []}'),
    Bad("a row that is no object", b'{"transfers": [1], "invoices": []}'),
    Bad("rows without their columns", json.dumps({"transfers": [{}] * 1000, "invoices": []}).encode()),
    Bad(
        "a form",
        b"transfers=1&invoices=2",
        headers={"content-type": "application/x-www-form-urlencoded"},
        statuses=frozenset({400, 415}),
    ),
    Bad(
        "a body that says it is compressed and is not",
        json.dumps(REQUEST).encode()[:-1],
        headers={**_JSON, "content-encoding": "gzip"},
        statuses=frozenset({400, 415}),
    ),
    Bad("80 MiB", statuses=frozenset({400, 413}), huge=True),
    Bad("GET", method="GET", statuses=frozenset({405})),
    Bad("PUT", json.dumps(REQUEST).encode(), method="PUT", statuses=frozenset({405})),
    Bad("another address", path="/nothing", statuses=frozenset({404})),
)


def wrong_values() -> Iterator[Bad]:
    """The packed request with one wrong value in its second row: each column of both tables, several for each kind."""
    for table, sent in ((TRANSFERS, "transfers"), (OPEN_INVOICES, "invoices")):
        for column in table.columns:
            for value in _wrong(table, column, sent):
                yield _with(sent, column.name, value)


def examine_malformed(url: str, expected: Proposals, seconds: float) -> Verdict:
    """The verdict on what must be refused, and on the answer to the packed request afterwards, which is `expected`."""
    bad = [*MALFORMED, *wrong_values()]
    with asking(url, seconds) as client:
        problems = [problem for one in bad if (problem := _accepted(client, one))]
        try:
            after = differences(expected, given(match(client, json.dumps(REQUEST).encode())))
        except ValueError as error:
            after = [str(error)]
    problems += [f"afterwards a good request is not answered well: {line}" for line in after[:1]]
    fine = (
        f"{len(bad)} malformed requests are refused, with table, row and column, and a good one is answered afterwards"
    )
    figures = {"malformed_requests": float(len(bad)), "not_refused": float(len(problems))}
    return Verdict("malformed", not problems, some(problems) or fine, figures)


def _wrong(table: Table, column: Column, sent: str) -> Iterable[Any]:
    yield from _WRONG[column.kind]
    if not column.nullable:
        yield from _NEEDED[column.kind]
    if column.positive:
        yield from _NOT_POSITIVE
    if column.name == table.key:
        yield REQUEST[sent][0][column.name]


def _with(sent: str, column: str, value: Any) -> Bad:
    rows = [dict(row) for row in REQUEST[sent]]
    if value is _ABSENT:
        del rows[_ROW - 1][column]
    else:
        rows[_ROW - 1][column] = value
    shown = "nothing" if value is _ABSENT else json.dumps(value)
    place = {"table": sent, "row": _ROW, "column": column}
    return Bad(f"{shown} as {column} of {sent}", json.dumps({**REQUEST, sent: rows}).encode(), place=place)


def _accepted(client: httpx.Client, bad: Bad) -> str | None:
    """What is wrong with the answer to a malformed request; None where it is refused as it should be."""
    content = (_CHUNK for _ in range(HUGE_BYTES // len(_CHUNK))) if bad.huge else bad.content
    answer = client.request(bad.method, bad.path, content=content, headers=bad.headers)
    if answer.status_code not in bad.statuses:
        wanted = " or ".join(str(status) for status in sorted(bad.statuses))
        return f"{bad.name} was answered with {answer.status_code}, not {wanted}"
    if bad.place is None:
        return None
    said = told(answer)
    if said is None or not said.get("error"):
        return f"{bad.name} was refused without an error that says why"
    wrong = {name: said.get(name) for name, value in bad.place.items() if said.get(name) != value}
    return f"{bad.name} was refused, but the refusal names {wrong}" if wrong else None
