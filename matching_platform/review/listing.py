"""Lists, numbers and invoices as the desk shows them, read from where everything stands."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from matching_platform.matching.arrays import Ints
from matching_platform.review.books import DECISIONS, sought
from matching_platform.review.cases import (
    Filter,
    Offer,
    OpenInvoice,
    Option,
    Precision,
    Row,
    Settles,
    Status,
    Summary,
)
from matching_platform.review.standing import STATUSES, Standing

_KEY: Final = re.compile(r"[0-9a-f]{16}")
_COLUMNS: Final = (
    "transfer_id",
    "booked_on",
    "amount",
    "currency",
    "direction",
    "counterparty_name",
    "title",
)


def ordered(standing: Standing, month: str, wanted: Filter) -> Ints:
    """The rows of a month's transfers that `wanted` lists, the most valuable doubt first."""
    inside = standing.books.month(month)
    keep = standing.books.proposals.listed[inside] & standing.is_in(*wanted.statuses)[inside]
    if wanted.alike:
        keep &= standing.key[inside] == _key(wanted.alike)
    found = inside.start + np.flatnonzero(keep)
    if text := sought(wanted.text):
        searched = standing.books.transfer_text.gather(found)
        found = found[searched.str.contains(text, literal=True).to_numpy()]
    return found[np.argsort(-standing.stake[found], kind="stable")]


def alike(standing: Standing, transfer: int) -> Ints:
    """The rows of the waiting transfers of the same month whose proposal is like that of `transfer`."""
    month = f"{standing.books.transfers['booked_on'][transfer]:%Y-%m}"
    return ordered(standing, month, Filter(alike=_shown(standing.key[transfer])))


def rows(standing: Standing, transfers: Sequence[int] | Ints) -> list[Row]:
    """What a list shows of each transfer."""
    books = standing.books
    held = books.transfers.select(_COLUMNS)[list(map(int, transfers))]
    names = books.invoices["counterparty_name"]
    made = []
    for transfer, (name, day, amount, currency, direction, payer, title) in zip(
        transfers, held.iter_rows(), strict=True
    ):
        first, history = int(standing.first[transfer]), standing.history.get(name)
        made.append(
            Row(
                transfer_id=name,
                booked_on=day,
                amount=amount,
                currency=currency,
                direction=direction,
                payer=payer,
                title=title,
                status=STATUSES[standing.status[transfer]],
                decision=DECISIONS[standing.decision[transfer]],
                confidence=float(standing.confidence[transfer]),
                stake=int(standing.stake[transfer]),
                counterparty=names[first] if first >= 0 else "",
                invoices=int(standing.size[transfer]),
                alike=_shown(standing.key[transfer]),
                last=history[-1] if history else None,
            )
        )
    return made


def summary(standing: Standing, month: str, precision: Precision | None, frozen: str) -> Summary:
    """The numbers of a month."""
    books, inside = standing.books, standing.books.month(month)
    status = np.where(books.proposals.listed[inside], standing.status[inside], -1)
    count = {name: int((status == place).sum()) for place, name in enumerate(STATUSES)}

    def total(values: Ints, name: Status) -> int:
        return int(values[inside][status == STATUSES.index(name)].sum())

    return Summary(
        month=month,
        currency=books.main,
        transfers=int((status >= 0).sum()),
        booked=count[Status.BOOKED],
        booked_money=total(books.money, Status.BOOKED),
        waiting=count[Status.WAITING],
        waiting_money=total(books.money, Status.WAITING),
        doubtful_money=total(standing.stake, Status.WAITING),
        decided=count[Status.DECIDED],
        later=count[Status.LATER],
        tagged=count[Status.TAGGED],
        precision=precision,
        frozen=frozen,
    )


def offers(standing: Standing, transfers: Sequence[int]) -> list[Offer]:
    """What is proposed for each of some transfers."""
    shown = [standing.proposal(transfer) for transfer in transfers]
    asked = [(transfer, invoice) for transfer, one in zip(transfers, shown, strict=True) for invoice in one.parts]
    invoices = _opened(standing, asked)
    return [
        Offer(
            row,
            Option(one.confidence, tuple(Settles(next(invoices), amount) for amount in one.parts.values())),
            row.last.number if row.last else 0,
        )
        for row, one in zip(rows(standing, transfers), shown, strict=True)
    ]


def option(standing: Standing, transfer: int, share: float, parts: Mapping[int, int]) -> Option:
    return Option(share, settles(standing, transfer, parts))


def settles(standing: Standing, transfer: int, parts: Mapping[int, int]) -> tuple[Settles, ...]:
    """Parts of invoices, with what is open on them for `transfer`."""
    invoices = open_invoices(standing, transfer, parts)
    return tuple(Settles(invoice, amount) for invoice, amount in zip(invoices, parts.values(), strict=True))


def open_invoices(standing: Standing, transfer: int | None, invoices: Iterable[int]) -> Iterator[OpenInvoice]:
    """Invoices with what of them is open for `transfer`: all others counted."""
    return _opened(standing, [(transfer, int(invoice)) for invoice in invoices])


def _opened(standing: Standing, asked: Sequence[tuple[int | None, int]]) -> Iterator[OpenInvoice]:
    """The invoices of pairs of a transfer and an invoice."""
    columns = [name for name in OpenInvoice.__dataclass_fields__ if name != "open"]
    held = standing.books.invoices.select(columns)[[invoice for _, invoice in asked]]
    for (transfer, invoice), row in zip(asked, held.iter_rows(named=True), strict=True):
        yield OpenInvoice(**row, open=standing.open(invoice, transfer))


def search(standing: Standing, transfer: int, text: str, limit: int) -> list[OpenInvoice]:
    """Open invoices that `transfer` may settle, with `text` in number, name, reference or amount: those of its payer first,
    then those in its currency, the one due first at the front."""
    return list(open_invoices(standing, transfer, sought_of(standing, transfer, text)[:limit]))


def sought_of(standing: Standing, transfer: int, text: str = "") -> Ints:
    """The rows of the same invoices, all of them."""
    books, left = standing.books, standing.left()
    for invoice in standing.settles(transfer):
        left[invoice] = standing.open(invoice, transfer)
    found = np.flatnonzero((left != 0) & (books.sale == books.incoming[transfer]))
    if wanted := sought(text):
        found = found[books.invoice_text.gather(found).str.contains(wanted, literal=True).to_numpy()]
    others = ~np.isin(books.party[found], _parties(standing, transfer))
    foreign = books.invoice_currency[found] != books.currency[transfer]
    return found[np.lexsort((found, books.due[found], foreign, others))]


def theirs(standing: Standing, transfer: int) -> Ints:
    """The rows of all invoices of a transfer's payer, settled ones among them."""
    return np.flatnonzero(np.isin(standing.books.party, _parties(standing, transfer)))


def _parties(standing: Standing, transfer: int) -> Ints:
    """Whose invoices a transfer's payer pays: by account or name, by what he has paid, and by what is proposed."""
    books = standing.books
    account, name = books.payer
    mine = np.zeros(len(account), bool)
    for key in (account, name):
        mine |= (key == key[transfer]) & (key[transfer] > 0)
    payers, parties = books.named
    invoices = [*standing.proposal(transfer).parts, *standing.paid_by(mine)]
    return np.r_[parties[payers == transfer], books.party[np.array(invoices, np.int64)]]


def _shown(key: np.uint64) -> str:
    return f"{int(key):016x}"


def _key(shown: str) -> np.uint64:
    """What `_shown` wrote; 0, which nothing has but by an improbable chance, of what it did not."""
    return np.uint64(int(shown, 16) if _KEY.fullmatch(shown) else 0)


def page_of(values: Sequence[int] | Ints, page: int, size: int) -> tuple[Sequence[int] | Ints, int, int]:
    """The values of a page, its number, which is the last one's where there are fewer, and how many pages there are."""
    pages = max(1, -(-len(values) // size))
    number = min(max(1, page), pages)
    return values[(number - 1) * size : number * size], number, pages
