"""Bytes become text: statements do not say in which encoding they are, so the one is taken that reads as language."""

import codecs
import re
from typing import Final

_MARKS: Final = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_WESTERN: Final = "äöüßÄÖÜéèêëàâçîïôùûáíóúñæøåœ€§°ÉÈÀÇÁÍÓÚÑÆØÅ–„“”’´"
_CENTRAL: Final = "ąćęłńóśźżĄĆĘŁŃÓŚŹŻäöüßÄÖÜáéíóúýčďěňřšťůžÁÉÍÓÚÝČĎĚŇŘŠŤŮŽőűŐŰľĺŕôăâîșțşţ€§°–„“”’"
_CYRILLIC: Final = "абвгдежзийклмнопрстуфхцчшщъыьэюяёАБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯЁіїєґІЇЄҐђјљњћџЈ№«»–"
# The letters that texts in an encoding are made of; of equal readings the first is taken.
_LETTERS: Final = {
    "cp1252": _WESTERN,
    "iso8859-15": _WESTERN,
    "cp1250": _CENTRAL,
    "iso8859-2": _CENTRAL,
    "cp852": _CENTRAL,
    "cp1251": _CYRILLIC,
}
_NAMES: Final = {
    "utf-8": "UTF-8",
    "utf-8-sig": "UTF-8",
    "utf-16": "UTF-16",
    "cp1252": "Windows-1252",
    "iso8859-15": "ISO-8859-15",
    "cp1250": "Windows-1250",
    "iso8859-2": "ISO-8859-2",
    "cp852": "CP852",
    "cp1251": "Windows-1251",
}
# Accounts and currencies of countries whose letters are Central European.
_CENTRAL_ACCOUNTS: Final = re.compile(rb"\b(?:PL|CZ|SK|HU|SI|HR|RO)[0-9]{2}[0-9A-Z]{12}|[0-9](?:PLN|CZK|HUF|RON)[0-9]")
_FOREIGN_WORDS: Final = re.compile(rb"[A-Za-z]*[\x80-\xff][A-Za-z\x80-\xff]*")
_ASCII: Final = bytes(range(128))
_LOST: Final = "�"


def text_of(content: bytes) -> tuple[str, tuple[str, ...]]:
    """The text of `content`, and notes on what was assumed to read it."""
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), None) or _encoding(content)
    text = content.decode(encoding, errors="replace")
    notes = [] if content.isascii() else [f"read as {_NAMES[encoding]}"]
    if lost := text.count(_LOST):
        notes.append(f"{lost} characters were lost before it came here, or cannot be read")
    return text, tuple(notes)


def _encoding(content: bytes) -> str:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return max(_LETTERS, key=lambda encoding: _likelihood(content, encoding))
    return "utf-8"


def _likelihood(content: bytes, encoding: str) -> float:
    """How much of what is not ASCII reads as letters, and stands as it does in words of the encoding's languages."""
    words = _FOREIGN_WORDS.findall(content)
    letters = b"".join(words).translate(None, _ASCII).decode(encoding, errors="replace")
    known = sum(letter in _LETTERS[encoding] for letter in letters) / len(letters)
    # Words in Cyrillic hold nothing else; elsewhere such letters stand among others.
    whole = sum(min(word) > 127 for word in words) / len(words)
    alike = whole if encoding == "cp1251" else 1 - whole
    written = [word.decode(encoding, errors="replace") for word in words]
    # Within a word of capitals there are no small letters.
    cased = sum(word.isupper() or word.islower() or word.istitle() for word in written) / len(written)
    central = _LETTERS[encoding] is _CENTRAL and _CENTRAL_ACCOUNTS.search(content) is not None
    return known + alike + 0.2 * central + 0.2 * cased
