"""Files in: looked at first, then taken, whole or not at all."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Annotated, Any, Final, cast

import polars as pl
from fastapi import APIRouter, Depends, Query
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from matching_platform.desk.dependencies import Booker, Intaking, Reader
from matching_platform.desk.held import Held, Look
from matching_platform.desk.i18n import mark
from matching_platform.desk.pages.common import Sent, closing, see, text_of
from matching_platform.desk.rendering import render
from matching_platform.desk.security import address_of, guard_of
from matching_platform.intake.audit import note_imported
from matching_platform.intake.incoming import IntakeError
from matching_platform.intake.mapping import ColumnMapping
from matching_platform.intake.synonyms import SIGNED, SYNONYMS
from matching_platform.intake.taking import LARGEST, Intake, Preview
from matching_platform.ledger.months import beyond
from matching_platform.ledger.schema import TABLES

# A file, and what a form says around it; several files share it.
_BODY_BYTES: Final = LARGEST + 2**20
_FILES: Final = 50
_ROWS: Final = 8
_PROBLEMS: Final = 50
_IMPORTS: Final = 100
_LONGEST: Final = 100
_EXAMPLE: Final = 40
_HEADERS: Final = TypeAdapter(tuple[str, ...])
# Columns that a person is shown of a table's rows.
_SHOWN: Final = {
    "transfers": ("booked_on", "counterparty_name", "title", "direction", "amount"),
    "invoices": ("issued_on", "number", "counterparty_name", "due_on", "direction", "amount"),
}
_WORDS: Final[dict[str, str]] = {
    "transfer_id": mark("transfer's id"),
    "booked_on": mark("booked on"),
    "amount": mark("amount"),
    "amount_in": mark("amount paid in"),
    "amount_out": mark("amount paid out"),
    "currency": mark("currency"),
    "direction": mark("direction"),
    "counterparty_name": mark("name"),
    "counterparty_account": mark("account"),
    "own_account": mark("our own account"),
    "counterparty_tax_id": mark("tax id"),
    "counterparty_id": mark("counterparty's id"),
    "title": mark("title"),
    "invoice_id": mark("invoice's id"),
    "number": mark("number"),
    "issued_on": mark("issued on"),
    "due_on": mark("due on"),
    "reference": mark("reference"),
    "kind": mark("kind of document"),
}
_TABLES: Final = {"transfers": mark("bank transfers"), "invoices": mark("invoices")}
# What can be said once for the whole file, where no column tells it.
_CHOICES: Final[dict[str, dict[str, dict[str, str]]]] = {
    "transfers": {
        "direction": {"in": mark("incoming"), "out": mark("outgoing"), SIGNED: mark("by the amount's sign")},
    },
    "invoices": {"direction": {"sale": mark("sales"), "purchase": mark("purchases")}},
}

router = APIRouter(max_body_size=_BODY_BYTES, dependencies=[Depends(closing)])


@dataclass(frozen=True)
class Target:
    """A column of the contract: what people call it, the headers taken for it now, or what was said for all rows."""

    name: str
    words: str
    headers: tuple[str, ...]
    constant: str
    choices: dict[str, str]
    missing: bool


@dataclass(frozen=True)
class Shown:
    """A file as the page shows it. `sums` are by currency, of the rows that are new; `beyond` are those of its months that
    no run will see."""

    look: Look
    sums: tuple[tuple[str, int], ...]
    rows: list[dict[str, Any]]
    columns: tuple[str, ...]
    targets: tuple[Target, ...]
    examples: dict[str, str]
    beyond: tuple[str, ...]

    @property
    def is_taken(self) -> bool:
        """Whether this very file was taken before."""
        return self.look.preview is not None and self.look.preview.taken is not None


def held(request: Request) -> Held:
    return cast(Held, request.app.state.held)


Holding = Annotated[Held, Depends(held)]


@router.get("/imports")
def imports(
    request: Request,
    user: Reader,
    intake: Intaking,
    held: Holding,
    taken: Annotated[list[int], Query(max_length=_FILES)] = [],  # noqa: B006
) -> HTMLResponse:
    """Where files are brought, those that wait to be taken, and all that were."""
    return _page(request, user.name, intake, held, just=frozenset(taken))


@router.post("/imports")
def look(request: Request, user: Booker, intake: Intaking, held: Holding, form: Sent) -> Response:
    """Looks at files; nothing is taken yet."""
    files = [one for one in form.getlist("file") if isinstance(one, UploadFile) and one.filename]
    if not files:
        return _page(request, user.name, intake, held, 422, problem=mark("Choose a file first."))
    for file in files[:_FILES]:
        held.put(user.name, _look(intake, file.filename or "", file.file.read()))
    return see("/imports#waiting")


@router.post("/imports/mapping")
def map_columns(user: Booker, intake: Intaking, held: Holding, form: Sent) -> Response:
    """Looks at a file again with columns as the person says."""
    found = _held(held, user.name, form).preview
    if found is None:
        raise HTTPException(409, "this file cannot be read; choose another")
    mapping = _mapping(found, form)
    held.put(user.name, _look(intake, found.name, found.content, mapping))
    return see("/imports#waiting")


@router.post("/imports/take")
def take(request: Request, user: Booker, intake: Intaking, held: Holding, form: Sent) -> Response:
    """Takes a file as it was shown."""
    found = _held(held, user.name, form)
    if found.preview is None:
        raise HTTPException(409, "this file cannot be read; choose another")
    unbalanced = text_of(form, "unbalanced") == "yes"
    if found.preview.contradictions and not unbalanced:
        told = mark("This statement does not add up. Tick that it is to be taken nevertheless, or export it again.")
        return _page(request, user.name, intake, held, 422, problem=told)
    try:
        taken = intake.take(found.preview, user.name, unbalanced=unbalanced)
    except IntakeError as error:
        held.put(user.name, Look(found.name, found.key, None, error))
        return _page(request, user.name, intake, held, 409)
    note_imported(guard_of(request).access, found.preview, taken, user.name, address_of(request))
    held.drop(user.name, found.key)
    return see(f"/imports?taken={taken.number}")


@router.post("/imports/drop")
def drop(user: Booker, held: Holding, form: Sent) -> Response:
    """Puts a file aside that was only looked at."""
    held.drop(user.name, text_of(form, "key"))
    return see("/imports")


def _look(intake: Intake, name: str, content: bytes, mapping: ColumnMapping | None = None) -> Look:
    key = hashlib.sha256(content).hexdigest()
    try:
        return Look(name, key, intake.look(name, content, mapping))
    except IntakeError as error:
        return Look(name, key, None, error)


def _held(held: Held, person: str, form: FormData) -> Look:
    found = held.get(person, text_of(form, "key"))
    if found is None:
        raise HTTPException(409, "this file is not kept any more; choose it again")
    return found


def _mapping(preview: Preview, form: FormData) -> ColumnMapping:
    """What the form says of each column: headers of the file, or one text for all rows; 400 where it is not ours."""
    table = text_of(form, "table") or preview.table
    if table not in TABLES:
        raise HTTPException(400, "the form names no table; open the page anew")
    names = SYNONYMS[table]
    columns = {name: _headers(text_of(form, f"column-{name}")) for name in names}
    constants = {name: text_of(form, f"constant-{name}").strip()[:_LONGEST] for name in names}
    try:
        return ColumnMapping(
            table=cast(Any, table),
            columns={name: headers for name, headers in columns.items() if headers},
            constants={name: text for name, text in constants.items() if text and not columns[name]},
            dates=cast(Any, text_of(form, "dates")),
            decimal=cast(Any, text_of(form, "decimal")),
        )
    except ValidationError as error:
        raise HTTPException(400, "the form is not one of the desk's; open the page anew") from error


def _headers(text: str) -> tuple[str, ...]:
    """What the select of a column says: a JSON list of headers, '' for none."""
    try:
        return _HEADERS.validate_json(text) if text else ()
    except ValidationError as error:
        raise HTTPException(400, "the form is not one of the desk's; open the page anew") from error


def _page(
    request: Request,
    person: str,
    intake: Intake,
    held: Held,
    status: int = 200,
    problem: str = "",
    just: frozenset[int] = frozenset(),
) -> HTMLResponse:
    history, unseen = intake.history(), partial(_beyond, request)
    return render(
        request,
        "imports.html",
        status,
        shown=[_shown(look, unseen) for look in held.of(person)],
        history=list(islice(reversed(history), _IMPORTS)),
        just=[(one, unseen(one.months)) for one in history if one.number in just],
        problem=problem,
        tables=_TABLES,
        words=_WORDS,
        most=_PROBLEMS,
        largest=LARGEST >> 20,
    )


def _beyond(request: Request, months: Iterable[str]) -> tuple[str, ...]:
    """The months that lie outside those of the assets."""
    settings = request.app.state.platform.settings
    return tuple(beyond(months, settings.first_month, settings.last_month))


def _shown(look: Look, unseen: Callable[[Iterable[str]], tuple[str, ...]]) -> Shown:
    preview = look.preview
    if preview is None:
        return Shown(look, (), [], (), (), {}, ())
    sums = preview.fresh.group_by("currency", maintain_order=True).agg(pl.col("amount").sum())
    examples = {name: _example(preview.first_rows[name]) for name in preview.headers}
    return Shown(
        look=look,
        sums=tuple(sums.sort("currency").iter_rows()),
        rows=preview.frame.head(_ROWS).to_dicts(),
        columns=_SHOWN[preview.table],
        targets=_targets(preview),
        examples=examples,
        beyond=unseen(preview.months),
    )


def _example(cells: pl.Series) -> str:
    """The first cell with something in it."""
    found = cells.drop_nulls().cast(pl.String)
    return str(found[0])[:_EXAMPLE] if found.len() else ""


def _targets(preview: Preview) -> tuple[Target, ...]:
    """What of a file a person may map; nothing where its format says what is what."""
    mapping = preview.mapping or ColumnMapping(preview.table)
    names = SYNONYMS[preview.table] if preview.headers else preview.missing
    return tuple(
        Target(
            name=name,
            words=_WORDS[name],
            headers=mapping.columns.get(name, ()),
            constant=mapping.constants.get(name, ""),
            choices=_CHOICES[preview.table].get(name, {}),
            missing=name in preview.missing,
        )
        for name in names
    )
