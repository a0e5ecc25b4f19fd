"""Makes google_provider.json anew: what Terraform's google provider calls the arguments that deploy/terraform may use.

The provider itself is a program to be fetched from Terraform's registry. What its resources are called is also in the
Python package cdktf-cdktf-provider-google (MPL-2.0), generated from the provider's schema, which is read here and not
run:

    pip download --no-deps --dest . cdktf-cdktf-provider-google
    python -m matching_platform_tests.deploy.google_provider cdktf_cdktf_provider_google-*.whl

Only the resources in use are kept, of these every argument and attribute, and of nested blocks those in use.
"""

import ast
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final
from zipfile import ZipFile

from matching_platform_tests.deploy.terraform import Module, blocks_in, read_module

FACTS: Final = Path(__file__).parent / "google_provider.json"
PACKAGE: Final = "cdktf_cdktf_provider_google"
META: Final = {"connection", "count", "depends_on", "for_each", "lifecycle", "provider", "provisioners"}


def facts(wheel: Path, module: Module) -> dict[str, Any]:
    """Resources and data sources of `module` by type: arguments (required or not; a dict where in use as a block) and
    attributes."""
    with ZipFile(wheel) as archive:
        described = {}
        for kind, used in module.types().items():
            folder = kind.removeprefix("google_") if not kind.startswith("data.") else f"data_{kind[5:]}"
            text = archive.read(f"{PACKAGE}/{folder}/__init__.py").decode()
            version = re.search(r"providers/hashicorp/google/([\d.]+)/", text)
            described[kind] = _resource(ast.parse(text), [path for body in used for path in blocks_in(body)])
    return {"about": _about(wheel), "provider": version[1] if version else "", "types": described}


def _about(wheel: Path) -> str:
    return f"Names from {wheel.name} (MPL-2.0, HashiCorp); made by google_provider.py, which says how to make it anew."


def _resource(tree: ast.Module, used: Iterable[tuple[str, ...]]) -> dict[str, Any]:
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    resource = next(
        node
        for node in classes.values()
        if "jsii_type" in ast.dump(ast.Module(node.decorator_list, []))
        or any(keyword.arg == "jsii_type" for keyword in node.keywords)
    )
    arguments = _arguments(classes, classes[f"{resource.name}Config"], set(used), ())
    attributes = sorted(
        node.name
        for node in resource.body
        if isinstance(node, ast.FunctionDef) and _is_property(node) and not node.name.endswith("_input")
    )
    return {"arguments": arguments, "attributes": attributes}


def _arguments(
    classes: dict[str, ast.ClassDef], struct: ast.ClassDef, used: set[tuple[str, ...]], at: tuple[str, ...]
) -> dict[str, Any]:
    """By name: whether it is required; for blocks in use {"required": …, "block": their own arguments}."""
    init = next(node for node in struct.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    found: dict[str, Any] = {}
    for argument, default in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True):
        name = argument.arg.rstrip("_")
        if not at and name in META:
            continue
        required, inner = default is None, _struct_of(argument.annotation, classes)
        if inner and (*at, name) in used:
            found[name] = {"required": required, "block": _arguments(classes, classes[inner], used, (*at, name))}
        else:
            found[name] = required
    return found


def _struct_of(annotation: ast.expr | None, classes: dict[str, ast.ClassDef]) -> str | None:
    named = (node.value for node in ast.walk(annotation) if isinstance(node, ast.Constant)) if annotation else ()
    return next((name for name in named if name in classes), None)


def _is_property(node: ast.FunctionDef) -> bool:
    return any(isinstance(each, ast.Attribute) and each.attr == "property" for each in node.decorator_list)


if __name__ == "__main__":
    module = read_module(Path(__file__).parents[2] / "deploy" / "terraform")
    FACTS.write_text(json.dumps(facts(Path(sys.argv[1]), module), indent=1) + "\n")
