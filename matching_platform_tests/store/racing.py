"""Two processes that do the same at once."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

RACERS: Final = "ab"


def race(program: str, root: str | Path, rounds: int) -> dict[str, Any]:
    """What each of two processes prints as JSON, by its name, when `program` is run with root, name and rounds at once.

    A program says "ready", waits for a line, and must not write to the error output.
    """
    racers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", program, str(root), me, str(rounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for me in RACERS
    ]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = [racer.communicate(timeout=120) for racer in racers]
    assert [errors for _, errors in said] == ["", ""]
    return {me: json.loads(told) for me, (told, _) in zip(RACERS, said, strict=True)}
