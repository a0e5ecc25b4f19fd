"""The code that makes a model, as a short text: where that changes, the same rows make another model."""

import ast
import hashlib
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).parents[1]
# How pairs are found and described, sets compared, networks trained and promises kept.
TRAINING_CODE: Final = (
    *sorted((PACKAGE / "matching").glob("*.py")),
    *(PACKAGE / "learning" / f"{name}.py" for name in ("examples", "promise", "training")),
)


def version_of(paths: tuple[Path, ...] = TRAINING_CODE) -> str:
    """12 hexadecimal digits over names and code of Python files; comments, docstrings and layout do not count."""
    told = hashlib.sha256()
    for path in paths:
        told.update(f"{path.name}\n{_meant(ast.parse(path.read_bytes()))}\n".encode())
    return told.hexdigest()[:12]


def _meant(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.dump(tree)
