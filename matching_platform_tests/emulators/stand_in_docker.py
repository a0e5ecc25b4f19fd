"""Stands in for Docker where there is no engine: a Dockerfile's RUN lines run in this machine's shell, an image is a file.

`python stand_in_docker.py FOLDER build|inspect|push …`; what was pushed lies in FOLDER/pushed as JSON, named by its digest.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote


def main(folder: Path, *arguments: str) -> int:
    given = _parser().parse_args(arguments)
    image = folder / "built" / quote(given.image, safe="")
    if given.verb == "build":
        return _build(given, image)
    if not image.exists():
        sys.stdout.write(f"{given.image}: image not known\n")
        return 125
    if given.verb == "push":
        content = image.read_bytes()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        (folder / "pushed").mkdir(exist_ok=True)
        (folder / "pushed" / digest).write_bytes(content)
        given.digestfile.write_text(digest)
    return 0


def _build(given: argparse.Namespace, image: Path) -> int:
    values = dict(one.split("=", 1) for one in given.build_arg)
    for line in (given.context / given.file).read_text().splitlines():
        sys.stdout.write(f"STEP {line}\n")
        sys.stdout.flush()
        verb, _, rest = line.partition(" ")
        status = subprocess.run(["sh", "-c", rest], cwd=given.context, env=values).returncode if verb == "RUN" else 0
        if status:
            return status
    image.parent.mkdir(exist_ok=True)
    told = {"name": given.image, "labels": dict(one.split("=", 1) for one in given.label), "arguments": values}
    image.write_text(json.dumps(told))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True)
    build = verbs.add_parser("build", allow_abbrev=False)
    build.add_argument("--file", type=Path, default=Path("Dockerfile"))
    build.add_argument("--tag", dest="image", required=True)
    build.add_argument("--build-arg", action="append", default=[])
    build.add_argument("--label", action="append", default=[])
    build.add_argument("context", type=Path)
    inspect = verbs.add_parser("inspect")
    inspect.add_argument("--type")
    inspect.add_argument("--format")
    inspect.add_argument("image")
    push = verbs.add_parser("push")
    push.add_argument("--digestfile", type=Path)
    push.add_argument("image")
    return parser


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
