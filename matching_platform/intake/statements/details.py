"""What a bank tells of an entry in `:86:` or `:NS:`: each dialect's counterparty, account and remittance text."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

_WRAPPED: Final = 65  # characters of a line of `:86:`
# Lengths at which banks cut a text into sub-fields or lines; one that is shorter ended by itself.
_CUTS: Final = (27, 35, 65, 70, 140)
_SUB_FIELDS: Final = re.compile(r"\s*(?:(?:[0-9]{3})?\s*(?P<mark>[?~<^])[0-9]{2}|[0-9]{3}\s*(?P<plus>\+)00)")
# What fills an empty sub-field of Polish banks: the byte 255 in one encoding or the other.
_FILLING: Final = "ÿ˙"
_TAGS: Final = """EREF KREF MREF BREF RREF CREF CRED DEBT SVWZ ABWA ABWE IBAN BIC PURP COAM OAMT MDAT DDAT SQTP ORCR ORMR
    RCMT""".split()
_TAGGED: Final = re.compile(rf"(?:(?:^|(?<=\s))({'|'.join(_TAGS)})\+|(?:^|(?<=\n))(MTLG|IBAN|BIC|ABWA|ABWE):)")
_NOTHING: Final = ("NOTPROVIDED", "NONREF")
_CODES: Final = """TRTP IBAN BIC NAME REMI EREF MARF CSID CNTP ORDP BENM ULTB ULTD ULTC ADDR PREF RTRN PURP ISDT KREF PT
    PY OCMT CHGS EXCH RFB""".split()
_CODED: Final = re.compile(rf"/({'|'.join(_CODES)})/")
_REMITTED: Final = re.compile(r"^/*(?:USTD|STRD(?:/(?:CUR|ISO))?)/+")
_KEYS: Final = ("ID IPH", "Z RACH.", "NA RACH.", "OD", "DLA", "TYT.", "TNR")
_KEYED: Final = re.compile(rf"(?:^|[;\s])\s*({'|'.join(map(re.escape, _KEYS))}):")
_IBAN: Final = r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}"
# Texts without any marks, by what they begin with: what stands where in them.
_PLAIN: Final = tuple(
    re.compile(pattern, re.S)
    for pattern in (
        r"GIRO\s+(?P<account>[0-9.]+) (?P<name>\S.*?)(?:\s{2,}(?P<title>.*))?",
        r"(?P<title>BEA\s+NR:\S+\s+[0-9./]+ (?P<name>[^\n]+?),PAS[0-9]+.*)",
        r"(?P<account>[0-9]{2}\.[0-9]{2}\.[0-9]{2}\.[0-9]{3})\s+(?P<name>\S.*?)(?:\s{2,}(?P<title>.*))?",
        rf"(?P<account>{_IBAN}) (?P<name>[^\n]+)\n(?P<title>.*)",
        r"(?P<account>[0-9]{10}) (?P<name>[^\n]+)\n(?P<title>.+)",
        r"(?P<account>[0-9]{10}) (?P<title>[^\n]+)",
        r"[0-9]{3}PN[0-9]{4}(?P<title>.*)",
    )
)


@dataclass(frozen=True)
class Details:
    """The other side of an entry as the bank names it, and what the payer wrote."""

    name: str = ""
    account: str = ""
    title: str = ""


def details(lines: Sequence[str], *, incoming: bool) -> Details:
    """What the lines of an entry's `:86:` tell; `incoming` says whether the payer or the payee is the other side."""
    begun = "".join(lines)[:200]
    sub_fields = _SUB_FIELDS.match(begun)
    if sub_fields:
        mark = sub_fields["mark"] or sub_fields["plus"]
        return _sub_fields(_rewrapped(lines, mark), mark, incoming=incoming)
    text = unwrapped(lines)
    for dialect in (_coded, _keyed):
        told = dialect(text)
        if told:
            return told
    return _plain("\n".join(lines).strip(), text)


def non_swift(lines: Iterable[str]) -> Details:
    """What the lines of an entry's `:NS:` tell: remittance in 01 to 14, the name in 15 and 16, the account in 33 and 34."""
    found = {line[:2]: line[2:] for line in lines if re.match(r"[0-9]{2}", line)}
    return Details(
        name=joined(found.get(key, "") for key in ("15", "16")),
        account=_with_bank(found.get("33", ""), found.get("34", "")),
        title=" ".join(" ".join(found[key] for key in sorted(found) if "01" <= key <= "14").split()),
    )


def joined(chunks: Iterable[str], cuts: Collection[int] = _CUTS) -> str:
    """One text of the pieces into which a bank cut it: a blank goes between two, unless the first was cut at full length,
    which is one of `cuts`."""
    text, last = "", ""
    for chunk in chunks:
        if chunk.strip(_FILLING).strip():
            glue = "" if len(last) in cuts else " "
            text, last = f"{text}{glue if text else ''}{chunk}", chunk
    return " ".join(text.split())


def unwrapped(lines: Iterable[str]) -> str:
    """One text of lines, as they were before they were wrapped; runs of blanks stay, for they part columns."""
    text, last = "", ""
    for line in lines:
        text += f"{'' if len(last) == _WRAPPED or not text else ' '}{line}"
        last = line
    return text.strip()


def _rewrapped(lines: Sequence[str], mark: str) -> str:
    """Sub-fields are wrapped without regard to words; a line feed stays where a line may have lost the blank at its end."""
    text = ""
    for line in lines:
        within_mark = line[-1:] == mark or line[-2:-1] == mark
        text += f"{line}\n" if len(line) == _WRAPPED - 1 and not within_mark else line
    return text.removesuffix("\n")


def _healed(value: str) -> str:
    """A sub-field with the blanks that it lost where lines were wrapped, known by the length at which banks cut."""
    lines = value.split("\n")
    length = sum(map(len, lines))
    if length in _CUTS:
        return "".join(lines)
    if length + len(lines) - 1 in _CUTS:
        return " ".join(lines)
    return re.sub(r"(?<=[^\W\d_])\n(?=[^\W\d_])", " ", value).replace("\n", "")


def _sub_fields(text: str, mark: str, *, incoming: bool) -> Details:
    # The plus sign also ends SEPA tags.
    tags = "".join(rf"(?<!{tag})" for tag in _TAGS) if mark == "+" else ""
    pieces = re.split(rf"{tags}{re.escape(mark)}([0-3][0-9]|[67][0-9])", text)
    found: dict[str, str] = {}
    for key, value in zip(pieces[1::2], pieces[2::2], strict=True):
        found.setdefault(key, _healed(value).rstrip(_FILLING))
    names = ["32", "33"]
    remitted = [f"2{digit}" for digit in range(10)]
    # Some Polish banks give the title six sub-fields and the name the next three.
    if not any(found.get(key) for key in names) and not found.get("26") and found.get("27"):
        names, remitted = remitted[7:], remitted[:7]
    # German banks go on with the title where Polish ones have the rest of the address.
    elif mark in "?+":
        remitted += [f"6{digit}" for digit in range(6)]
    tagged = _tagged([found[key] for key in remitted if found.get(key)])
    name = joined(found.get(key, "") for key in names)
    ultimate = tagged.get("ABWA" if incoming else "ABWE", "")
    written = " ".join(part for part in (tagged[""], tagged.get("SVWZ", "")) if part)
    reference = tagged.get("EREF", "")
    told = " ".join(part for part in ("" if reference in _NOTHING else reference, tagged.get("MTLG", "")) if part)
    return Details(
        name=other_side(name, ultimate),
        account=found.get("38", "").strip()
        or tagged.get("IBAN", "")
        or _with_bank(found.get("30", ""), found.get("31", "")),
        title=written or told or " ".join(found.get("00", "").split()),
    )


def _tagged(chunks: Iterable[str]) -> dict[str, str]:
    """The text of each SEPA tag; what stands before the first one is under the empty key."""
    text, last = "", ""
    for chunk in chunks:
        glue = "\n" if _TAGGED.match(chunk) else "" if len(last) in _CUTS else " "
        text, last = f"{text}{glue if text else ''}{chunk}", chunk
    pieces = _TAGGED.split(text)
    found = {"": " ".join(pieces[0].split())}
    for plus, colon, value in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        found.setdefault(plus or colon, " ".join(value.split()))
    return found


def other_side(holder: str, ultimate: str) -> str:
    """The other side's name: on whose behalf it was, where a bank tells that, and whose account it is."""
    if not ultimate or ultimate.casefold() == holder.casefold():
        return holder
    return f"{ultimate} / {holder}" if holder else ultimate


def _with_bank(bank: str, account: str) -> str:
    """A domestic account with its bank's number, without which it is not one account; an IBAN as it is."""
    bank, account = bank.strip(), "".join(account.split())
    return f"{bank}/{account}" if account and bank.isdigit() and len(account) < 20 else account


def _coded(text: str) -> Details | None:
    """`/TRTP/…/IBAN/…/NAME/…/REMI/…`, as Dutch and international banks have it."""
    if not _CODED.match(text):
        return None
    pieces = _CODED.split(text)
    found: dict[str, str] = {}
    for code, value in zip(pieces[1::2], pieces[2::2], strict=True):
        if value.strip("/ "):
            found.setdefault(code, value)
    party = [*found.get("CNTP", "").split("/"), "", "", ""]
    reference = found.get("EREF", "").strip("/ ")
    named = (found.get("ORDP") or found.get("BENM") or "").strip("/ ")
    title = _REMITTED.sub("", found.get("REMI", "")) or found.get("PY", "") or found.get("RFB", "")
    return Details(
        name=" ".join((found.get("NAME", "").strip("/ ") or party[2] or named).split()),
        account=found.get("IBAN", "").strip("/ ") or party[0].strip(),
        title=" ".join((title.rstrip("/ ") or ("" if reference in _NOTHING else reference)).split()),
    )


def _keyed(text: str) -> Details | None:
    """`…; OD: name  address; TYT.: title; TNR: number`, as mBank has it."""
    pieces = _KEYED.split(text)
    found = {
        key: value.strip().removesuffix(";").strip() for key, value in zip(pieces[1::2], pieces[2::2], strict=True)
    }
    if not found.keys() & {"TYT.", "TNR"}:
        return None
    party = found.get("OD") or found.get("DLA") or ""
    return Details(
        name=re.split(r"\s{2,}", party)[0],
        account=found.get("Z RACH.") or found.get("NA RACH.") or "",
        title=" ".join((found.get("TYT.") or pieces[0].strip("; ")).split()),
    )


def _plain(wrapped: str, text: str) -> Details:
    for pattern in _PLAIN:
        read = pattern.fullmatch(wrapped)
        if read:
            found = {
                key: " ".join(unwrapped((value or "").split("\n")).split()) for key, value in read.groupdict().items()
            }
            return Details(found.get("name", ""), found.get("account", ""), found.get("title", ""))
    return Details(title=" ".join(text.split()))
