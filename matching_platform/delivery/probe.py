"""A request that travels inside every bento, with the answer that its model gave when it was packed.

Whoever starts a server sends the request and compares, before the server gets traffic.
"""

import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from matching_platform.ledger.wire import from_rows, proposal_rows

FILE: Final = "probe.json"
# Confidence is a float; other machines sum in another order.
TOLERANCE: Final = 1e-4

Proposals = list[dict[str, Any]]


class _Row(TypedDict):
    """What is compared of a proposal."""

    transfer_id: str
    invoice_id: str | None
    amount: float | None
    decision: str
    confidence: float


class _Answer(TypedDict):
    proposals: list[_Row]


_ANSWER: Final = TypeAdapter(_Answer)


def _invoice(number: str, amount: str, customer: str, account: str) -> dict[str, Any]:
    return {
        "invoice_id": f"probe-{number}",
        "number": number,
        "direction": "sale",
        "counterparty_id": customer,
        "counterparty_name": customer,
        "counterparty_tax_id": None,
        "counterparty_account": account,
        "issued_on": "2024-05-02",
        "due_on": "2024-06-01",
        "amount": amount,
        "currency": "EUR",
        "reference": None,
    }


def _transfer(name: str, amount: str, payer: str, account: str | None, title: str) -> dict[str, Any]:
    return {
        "transfer_id": f"probe-{name}",
        "booked_on": "2024-05-28",
        "amount": amount,
        "currency": "EUR",
        "direction": "in",
        "counterparty_name": payer,
        "counterparty_account": account,
        "title": title,
    }


_NORTH: Final = ("Nordlicht GmbH", "DE89370400440532013000")
_QUARRY: Final = ("Kamenolom s.r.o.", "CZ6508000000192000145399")

# One that pays an invoice, one that pays two, and one that pays none.
REQUEST: Final = {
    "invoices": [
        _invoice("FV/2024/05/117", "1230.00", *_NORTH),
        _invoice("FV/2024/05/118", "310.50", *_NORTH),
        _invoice("FV/2024/05/131", "89.90", *_QUARRY),
    ],
    "transfers": [
        _transfer("single", "89.90", "KAMENOLOM SRO", _QUARRY[1], "FV/2024/05/131"),
        _transfer("batch", "1540.50", "NORDLICHT GMBH", _NORTH[1], "FV/2024/05/117 + 118"),
        _transfer("nothing", "42.00", "INTEREST", None, "CREDIT INTEREST MAY"),
    ],
}


@dataclass(frozen=True)
class Probe:
    """The version that a server has to name, the request to send it, and the proposals that it has to answer."""

    version: str
    request: dict[str, Any]
    proposals: Proposals


def answers(model: Path) -> Proposals:
    """What the model in folder `model` proposes for the probe's request; ModelError where it does not load."""
    # Only who packs or promotes waits for torch; a rollout compares answers.
    from matching_platform.matching.matcher import Matcher

    transfers = from_rows("transfers", REQUEST["transfers"])
    invoices = from_rows("open_invoices", REQUEST["invoices"])
    return proposal_rows(Matcher.load(model).propose(transfers, invoices))


def write(probe: Probe, path: Path) -> None:
    path.write_text(json.dumps(asdict(probe), indent=2), encoding="utf-8")


def read(bento: Path) -> Probe:
    """The probe packed in the bento at `bento`; FileNotFoundError where there is none."""
    return Probe(**json.loads((bento / "src" / FILE).read_text(encoding="utf-8")))


def given(content: bytes) -> Proposals:
    """The proposals in the body of an answer of `/match`; ValueError where it is not JSON of that form."""
    try:
        return [{**row} for row in _ANSWER.validate_json(content)["proposals"]]
    except ValidationError as error:
        raise ValueError(in_short(error)) from error


def in_short(error: ValidationError) -> str:
    """The first thing that is wrong with an answer, in one line."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'the body'}: {first['msg']}"


def differences(expected: Proposals, given: Proposals) -> list[str]:
    """One line for each transfer that is proposed otherwise than expected; confidences may differ by TOLERANCE."""
    wanted, found = _by_transfer(expected), _by_transfer(given)
    return [
        f"transfer {transfer}: expected {_shown(wanted.get(transfer))}, got {_shown(found.get(transfer))}"
        for transfer in sorted(wanted.keys() | found.keys())
        if not _same(wanted.get(transfer), found.get(transfer))
    ]


def mistakes(packed: Proposals, given: Proposals) -> list[str]:
    """The `differences` that make a server a wrong one: it may leave to people what the packed answer books.

    A server obeys freezes and raised thresholds, which the model did not know of when it was packed.
    """
    decided = {(row["transfer_id"], row["decision"]) for row in given}
    obeying = [
        {**row, "decision": "review"}
        if (row["transfer_id"], "review") in decided and row["decision"] == "auto"
        else row
        for row in packed
    ]
    return differences(obeying, given)


def _by_transfer(proposals: Proposals) -> dict[str, Proposals]:
    rows = defaultdict(list)
    for row in sorted(proposals, key=lambda row: row["invoice_id"] or ""):
        rows[row["transfer_id"]].append(row)
    return rows


def _same(expected: Proposals | None, given: Proposals | None) -> bool:
    if expected is None or given is None or len(expected) != len(given):
        return False
    return all(
        all(one[name] == other[name] for name in ("invoice_id", "amount", "decision"))
        and abs(one["confidence"] - other["confidence"]) <= TOLERANCE
        for one, other in zip(expected, given, strict=True)
    )


def _shown(rows: Proposals | None) -> str:
    if not rows:
        return "no answer"
    allocation = ", ".join(f"{row['invoice_id'] or 'nothing'} {row['amount'] or ''}".strip() for row in rows)
    return f"{allocation} ({rows[0]['decision']}, {rows[0]['confidence']:.4f})"
