"""An API under schemathesis, by its own description and with all of its checks; the same requests each time."""

import subprocess
import sys
from pathlib import Path
from typing import Final

_SECONDS: Final = 280


def fuzz(url: str, folder: Path, settings: str, *, examples: int = 12) -> None:
    """Fails with what schemathesis found at the API whose description is at `url`; `settings` are its file's, TOML."""
    file = folder / "schemathesis.toml"
    file.write_text(settings)
    options = ("--seed=1", "--generation-deterministic", f"--max-examples={examples}")
    quiet = ("--suppress-health-check=all", "--warnings=off", "--no-color")
    command = [sys.executable, "-m", "schemathesis.cli", f"--config-file={file}", "run", url, *options, *quiet]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, cwd=folder)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
