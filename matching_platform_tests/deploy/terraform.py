"""Terraform's files as plain values: what they declare, and what their expressions refer to."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import hcl2

Body = dict[str, Any]

# Where an expression begins with one of these, it names something of the module; a bare word is a function or a keyword.
_REFERENCE: Final = re.compile(r"(?<![\w.\"-])([a-z_][\w-]*(?:\[[^\]]*\])?(?:\.[a-z_*][\w-]*(?:\[[^\]]*\])?|\[\*\])+)")
# Strings, but for those that are an index: of["runs"].
_TEXT: Final = re.compile(r'(?<!\[)"(?:[^"\\$]|\\.|\$(?!\{))*"')


@dataclass(frozen=True)
class Module:
    """What a folder declares; resources and data sources by type (`data.` before those) and name."""

    variables: dict[str, Body]
    locals: dict[str, Any]
    outputs: dict[str, Body]
    resources: dict[tuple[str, str], Body]
    settings: Body

    def types(self) -> dict[str, list[Body]]:
        """The bodies of the google provider's types."""
        found: dict[str, list[Body]] = {}
        for (kind, _), body in sorted(self.resources.items()):
            if "google_" in kind:
                found.setdefault(kind, []).append(body)
        return found


def read_module(folder: Path) -> Module:
    """All `.tf` files of a folder together, as Terraform takes them."""
    module = Module({}, {}, {}, {}, {})
    for path in sorted(folder.glob("*.tf")):
        parsed = plain(hcl2.loads(path.read_text(encoding="utf-8")))
        for one in parsed.get("variable", []):
            module.variables.update(one)
        for one in parsed.get("output", []):
            module.outputs.update(one)
        for one in parsed.get("locals", []):
            module.locals.update(one)
        for one in parsed.get("terraform", []):
            module.settings.update(one)
        for prefix, kind in (("", "resource"), ("data.", "data"), ("ephemeral.", "ephemeral")):
            for one in parsed.get(kind, []):
                module.resources.update(
                    {(prefix + kind, name): body for kind, named in one.items() for name, body in named.items()}
                )
    return module


def plain(value: Any) -> Any:
    """Without quotes around strings and without what the parser adds; expressions stay `${…}`."""
    if isinstance(value, dict):
        return {plain(name): plain(each) for name, each in value.items() if not str(name).startswith("__")}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value[1:-1] if isinstance(value, str) and value[:1] == value[-1:] == '"' else value


def blocks(body: Body, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Body]]:
    """Every nested block by its way from the resource, `dynamic` ones by what they make."""
    for name, value in body.items():
        if name == "dynamic":
            for one in value:
                for made, inner in one.items():
                    for content in inner["content"]:
                        yield (*at, made), content
                        yield from blocks(content, (*at, made))
        elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            for inner in value:
                yield (*at, name), inner
                yield from blocks(inner, (*at, name))


def blocks_in(body: Body) -> list[tuple[str, ...]]:
    return [way for way, _ in blocks(body)]


def references(value: Any) -> Iterator[str]:
    """Everything that expressions within `value` refer to, for instance var.region and google_x.y.id."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from references(name)
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)
    elif isinstance(value, str):
        for expression in _expressions(value):
            yield from _REFERENCE.findall(_TEXT.sub('""', expression))


def _expressions(text: str) -> Iterator[str]:
    """What stands between `${` and its `}`, innermost strings included."""
    start = text.find("${")
    while start >= 0:
        depth, end = 1, start + 2
        while depth and end < len(text):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        inside = text[start + 2 : end - 1]
        yield inside
        for quoted in re.findall(r'"((?:[^"\\]|\\.)*)"', inside):
            yield from _expressions(quoted)
        start = text.find("${", end)
