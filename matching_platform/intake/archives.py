"""ZIP archives of strangers: what is unpacked is counted, whatever their directories say."""

import hashlib
import io
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import Final

from matching_platform.intake.incoming import IntakeError

ZIP: Final = b"PK\x03\x04"
# The others unpack in steps that cannot be bounded.
_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_BROKEN: Final = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError)
_AGAIN: Final = "pack it again"


def members(source: str, content: bytes, files: int, largest: int, total: int) -> Iterator[tuple[str, bytes]]:
    """The files of an archive; IntakeError where it is damaged, has more than `files`, a file of more than `largest` bytes,
    or more than `total` bytes."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            found = [member for member in archive.infolist() if not member.is_dir()]
            if len(found) > files:
                raise IntakeError(source, "is too large when unpacked", "split it")
            for member in found:
                if member.compress_type not in _METHODS:
                    raise IntakeError(source, f"is no archive that can be read ({member.filename})", _AGAIN)
                most = min(largest, total)
                # What the directory says is no bound for what comes.
                member.file_size = sys.maxsize
                with archive.open(member) as file:
                    data = file.read(most + 1)
                if len(data) > most:
                    raise IntakeError(source, "is too large when unpacked", "split it")
                total -= len(data)
                yield member.filename, data
    except IntakeError:
        raise
    except zlib.error as error:
        raise IntakeError(source, f"is a damaged archive ({error})", _AGAIN) from error
    except _BROKEN as error:
        raise IntakeError(source, f"is no archive that can be read ({error})", _AGAIN) from error


def with_copies(files: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes, str]]:
    """Each file with the name of the one before it of which it is a copy, empty where it is none."""
    first: dict[bytes, str] = {}
    for name, data in files:
        digest = hashlib.sha256(data).digest()
        yield name, data, first.get(digest, "")
        first.setdefault(digest, name)
