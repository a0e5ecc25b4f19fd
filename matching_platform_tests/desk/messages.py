"""What rooms say in words, read from their source: errors, notes and reasons, with {} for what is filled in."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import matching_platform

ROOT: Final = Path(matching_platform.__file__).parent
# Names under which a sentence is put together before it is said.
NAMES: Final = frozenset(
    {"problem", "advice", "told", "note", "notes", "what", "reason", "more", "named", "where", "who", "parties", "word"}
)
# Names of module constants that hold sentences or parts of them.
CONSTANTS: Final = frozenset({"_AGAIN", "_CORRECT", "_ADVICE", "_KINDS", "_NAMES", "_SIGNS"})
# Keywords of calls by which a sentence is handed on.
KEYWORDS: Final = frozenset({"reason", "left_out", "where"})
LITERALS: Final = frozenset({"lit", "_refuse", "_whole"})


def said(*rooms: str) -> dict[str, str]:
    """Where each sentence of rooms, folders or files below the package, is said."""
    found = {}
    for room in rooms:
        path = ROOT / room
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            for line, text in _said(ast.parse(file.read_text())):
                if " " in text and any(letter.isalpha() for letter in text.replace("{}", "")):
                    found.setdefault(text, f"{file.relative_to(ROOT)}:{line}")
    return found


def _said(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        for part in _parts(node):
            yield from ((part.lineno, text) for text in _texts(part))


def _parts(node: ast.AST) -> Iterable[ast.expr]:
    """The expressions of a node that hold a sentence."""
    if isinstance(node, ast.Call):
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if name.endswith(("Error", "error", "HTTPException")):
            yield from node.args
        elif name in LITERALS:
            yield from (one for one in node.args if any(" " in text for text in _texts(one)))
        elif name == "append" and ast.unparse(node.func).split(".")[-2].strip("_") in NAMES:
            yield from node.args
        yield from (one.value for one in node.keywords if one.arg in KEYWORDS)
    elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(getattr(one, "id", "") in NAMES | CONSTANTS for one in targets):
            yield node.value
    elif isinstance(node, ast.Return | ast.Yield) and isinstance(node.value, ast.JoinedStr | ast.List | ast.Tuple):
        yield from [node.value] if any(text.count(" ") > 1 for text in _texts(node.value)) else []
    elif isinstance(node, ast.Dict):
        yield from (value for key, value in zip(node.keys, node.values, strict=True) if _is(key, "reason"))


def _is(key: ast.expr | None, text: str) -> bool:
    return isinstance(key, ast.Constant) and key.value == text


def _texts(node: ast.AST) -> Iterator[str]:
    """Texts and templates in an expression, those that are filled into others among them."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)  # type: ignore[misc]
        for part in node.values:
            if isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.IfExp):
                yield from _texts(part.value)
    elif isinstance(node, ast.IfExp):
        yield from (*_texts(node.body), *_texts(node.orelse))
    elif isinstance(node, ast.List | ast.Tuple | ast.Set):
        for one in node.elts:
            yield from _texts(one)
    elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "sorted":
        yield from (text for one in node.args for text in _texts(one))
    elif isinstance(node, ast.SetComp | ast.ListComp):
        yield from _texts(node.elt)
