"""The tables of the contract as JSON Schema, and the matching service's OpenAPI description made of them."""

from collections.abc import Mapping
from typing import Any, Final

from matching_platform.ledger.schema import OPEN_INVOICES, PROPOSED, TRANSFERS, Column, Kind, Table

VERSION: Final = "3.1.0"
# As large as an amount may be, in major units.
LARGEST: Final = 9_999_999_999_999.99
MONEY: Final = r"^-?[0-9]{1,13}\.[0-9]{2}$"

_ASKED: Final[dict[Kind, dict[str, Any]]] = {
    Kind.KEY: {"type": "string", "pattern": r"\S"},
    # What is missing is empty.
    Kind.TEXT: {"type": ["string", "null"]},
    Kind.CHOICE: {"type": "string"},
    Kind.DATE: {"type": "string", "format": "date"},
    Kind.AMOUNT: {
        "description": "In major units, with at most two decimal places",
        "anyOf": [
            {"type": "string", "pattern": r"^\s*[+-]?[0-9]{1,13}(\.[0-9]{1,2}0*)?\s*$"},
            {"type": "number", "minimum": -LARGEST, "maximum": LARGEST},
        ],
    },
}
_ANSWERED: Final[dict[Kind, dict[str, Any]]] = {
    Kind.KEY: {"type": "string"},
    Kind.CHOICE: {"type": "string"},
    Kind.AMOUNT: {"type": "number"},
    Kind.SHARE: {"type": "number", "minimum": 0, "maximum": 1},
    Kind.STATEMENTS: {"type": "array", "items": {"type": "string"}},
}


# Of a column that may be null, what is blank is null.
_BLANK: Final[dict[str, Any]] = {"type": ["string", "null"], "pattern": r"^\s*$"}
_NULL: Final[dict[str, Any]] = {"type": "null"}


def asked(table: Table) -> dict[str, Any]:
    """The schema of a row of `table` as it is sent to us; keys that it does not name are ignored."""
    properties = {column.name: _value(column, _ASKED, _BLANK) for column in table.columns}
    required = [column.name for column in table.columns if not column.nullable]
    return {"type": "object", "properties": properties, "required": required}


def answered(table: Table) -> dict[str, Any]:
    """The schema of a row of `table` as we answer it."""
    properties = {column.name: _value(column, _ANSWERED, _NULL) for column in table.columns}
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def _value(column: Column, kinds: Mapping[Kind, dict[str, Any]], missing: dict[str, Any]) -> dict[str, Any]:
    schema = kinds[column.kind]
    if column.choices:
        schema = {**schema, "enum": sorted(column.choices)}
    if column.positive:
        above = [{**kind, "exclusiveMinimum": 0} if kind["type"] == "number" else kind for kind in schema["anyOf"]]
        schema = {**schema, "anyOf": above}
    return {"anyOf": [schema, missing]} if column.nullable else schema


def schemas() -> dict[str, Any]:
    """What is asked of matching, and what it answers, by name."""
    return {
        "Matching": {
            "type": "object",
            "description": "Transfers, and the open invoices that they may pay; ids are unique",
            "properties": {
                "transfers": {"type": "array", "items": asked(TRANSFERS)},
                "invoices": {"type": "array", "items": asked(OPEN_INVOICES)},
            },
            "required": ["transfers", "invoices"],
        },
        "Proposals": {
            "type": "object",
            "properties": {
                "model": {"type": "string", "description": "The model's version"},
                "proposals": {"type": "array", "items": answered(PROPOSED)},
            },
            "required": ["model", "proposals"],
            "additionalProperties": False,
        },
        "Model": {
            "type": "object",
            "description": "The model's card",
            "properties": {"version": {"type": "string"}, "trained_until": {"type": "string"}},
            "required": ["version", "trained_until"],
        },
        "Refusal": {
            "type": "object",
            "description": "What is wrong, and where; rows are counted from 1",
            "properties": {
                "error": {"type": "string"},
                "table": {"type": "string"},
                "row": {"type": ["integer", "null"]},
                "column": {"type": ["string", "null"]},
            },
            "required": ["error"],
        },
    }


def service() -> dict[str, Any]:
    """The OpenAPI description of the matching service."""
    refused = {"description": "Not what the contract says", "content": reference("Refusal")}
    return {
        "openapi": VERSION,
        "info": {"title": "Matching service", "version": "1"},
        "paths": {
            "/match": {
                "post": {
                    "summary": "Proposals for transfers",
                    "requestBody": {"required": True, "content": reference("Matching")},
                    "responses": {
                        "200": {"description": "A row per transfer and invoice", "content": reference("Proposals")},
                        "400": refused,
                        "413": {"description": "The request is too large", "content": reference("Refusal")},
                    },
                }
            },
            "/model": {
                "get": {
                    "summary": "The model that answers",
                    "responses": {"200": {"description": "Its card", "content": reference("Model")}},
                }
            },
        },
        "components": {"schemas": schemas()},
    }


def reference(name: str) -> dict[str, Any]:
    """A body of JSON by the name of its schema."""
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
