"""What was accepted, sealed, and why something else must not be deployed on the strength of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import AwareDatetime, TypeAdapter

from matching_platform.delivery.acceptance.examination import CHECKS
from matching_platform.delivery.acceptance.limits import Limits
from matching_platform.learning.gate import CheckRecord, Verdict
from matching_platform.store.versions import Store, Version

KIND: Final = "acceptances"

_FILE: Final = "acceptance.json"
_AGAIN: Final = "materialize staging again"
_SHOWN: Final = 23  # characters of a digest, its algorithm among them


@dataclass(frozen=True)
class Acceptance:
    """An examination as it is stored: of what and which model, by which limits, when, and with which verdicts.

    `subject` is the digest of what was started: of an image, or of a bento where no image is run.
    """

    subject: str
    model: Version
    limits: Limits
    when: AwareDatetime
    verdicts: list[Verdict]


_ACCEPTANCE: Final = TypeAdapter(Acceptance)


def write(store: Store, acceptance: Acceptance) -> Version:
    """Stores the acceptance."""
    return store.put_bytes(KIND, _FILE, _ACCEPTANCE.dump_json(acceptance, indent=2))


def read(store: Store, version: Version) -> Acceptance:
    """The acceptance that was stored as `version`."""
    return _ACCEPTANCE.validate_json((store.fetch(version) / _FILE).read_bytes())


def obstacles(acceptance: Acceptance | None, records: Mapping[str, CheckRecord | None], subject: str) -> list[str]:
    """Why what has the digest `subject` must not be deployed, a sentence each; empty where it may be.

    `records` are the last results of the checks, whose subject is the digest that they judged. They and the acceptance's
    own verdicts must agree.
    """
    if acceptance is None:
        return ["nothing has been accepted yet: materialize staging"]
    found = [] if acceptance.subject == subject else [_other("what was accepted is", acceptance.subject, subject)]
    return [*found, *_failed(acceptance, records, subject)]


def _failed(acceptance: Acceptance, records: Mapping[str, CheckRecord | None], subject: str) -> Iterator[str]:
    verdicts = {verdict.check: verdict for verdict in acceptance.verdicts}
    for name in CHECKS:
        record, verdict = records.get(name), verdicts.get(name)
        if record is None:
            yield f"the check '{name}' was never made"
        elif record.subject != subject:
            yield _other(f"the last check '{name}' judged", record.subject, subject)
        elif not record.passed:
            yield f"the check '{name}' failed"
        elif verdict is None:
            yield f"the acceptance says nothing about '{name}': {_AGAIN}"
        elif not verdict.passed:
            yield f"the acceptance says that '{name}' failed: {verdict.reason}"


def _other(what: str, digest: str, wanted: str) -> str:
    return f"{what} {digest[:_SHOWN]}, not {wanted[:_SHOWN]}: {_AGAIN}"
