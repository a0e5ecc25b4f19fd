"""What a query reads, and so costs: the columns that it uses, in the partitions that its constant filters leave."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from sqlglot import exp
from sqlglot.optimizer.pushdown_predicates import pushdown_predicates
from sqlglot.optimizer.pushdown_projections import pushdown_projections
from sqlglot.optimizer.scope import Scope, traverse_scope

from matching_platform_tests.emulators.bigquery_tables import Catalog, Reference, Refusal, Table

MINIMUM_BILLED: Final = 10 * 2**20
PSEUDO_COLUMNS: Final = ("_PARTITIONTIME", "_PARTITIONDATE")

_TURNED: Final = {exp.EQ: exp.EQ, exp.LT: exp.GT, exp.LTE: exp.GTE, exp.GT: exp.LT, exp.GTE: exp.LTE}

Evaluate = Callable[[exp.Expr], Any]


def estimate(
    catalog: Catalog, tables: Mapping[Reference, Table], query: exp.Expr, evaluate: Evaluate, changed: Table | None
) -> tuple[int, int]:
    """Bytes processed and billed by a typed query over `tables`; of the table that it changes, all columns count."""
    tree = pushdown_predicates(pushdown_projections(query.copy()), dialect="bigquery")
    read: dict[Reference, set[tuple[str | None, str]]] = {reference: set() for reference in tables}
    for scope in traverse_scope(tree):
        for alias, source in tables_of(scope):
            table = tables[reference_of(source)]
            used = {c.name for c in scope.columns if c.table == alias}
            if table is changed:
                used = {column.name for column in table.columns}
            kept = _partitions(scope, alias, table, evaluate)
            read[table.reference] |= {(partition, name) for partition in kept for name in used}
    sizes = [_size(catalog, tables[reference], cells) for reference, cells in read.items()]
    return sum(sizes), sum(max(MINIMUM_BILLED, -(-size // 2**20) * 2**20) for size in sizes)


def tables_of(scope: Scope) -> list[tuple[str, exp.Table]]:
    """The tables that a scope reads itself, by alias."""
    sources = scope.selected_sources.items()
    return [(alias, source) for alias, (_, source) in sources if isinstance(source, exp.Table) and source.db]


def reference_of(table: exp.Expr) -> Reference:
    return Reference(table.text("catalog"), table.text("db"), table.name)


def _size(catalog: Catalog, table: Table, cells: set[tuple[str | None, str]]) -> int:
    if table.is_view:
        return MINIMUM_BILLED
    figures = catalog.figures(table)
    return sum(figures[partition].bytes.get(name, 0) for partition, name in cells)


def _partitions(scope: Scope, alias: str, table: Table, evaluate: Evaluate) -> list[str | None]:
    """The partitions in which a row may satisfy the scope's filters."""
    if table.partitioning is None:
        return [None]
    where = scope.expression.args.get("where")
    joins = [join for join in scope.expression.args.get("joins") or [] if not join.side]
    conditions = [part for part in [where and where.this, *(join.args.get("on") for join in joins)] if part]
    names = PSEUDO_COLUMNS if table.by_ingestion else (table.partition_column,)

    def is_partition(node: exp.Expr) -> bool:
        return isinstance(node, exp.Column) and node.table == alias and node.name in names

    if table.resource.get("requirePartitionFilter") and not any(
        is_partition(column) for condition in conditions for column in condition.find_all(exp.Column)
    ):
        message = f"Cannot query over table '{table.reference}' without a filter over column(s) '{names[0]}'"
        raise Refusal("invalidQuery", f"{message} that can be used for partition elimination")
    return [
        partition
        for partition in table.partitions
        if all(_may_hold(c, is_partition, table.bounds(partition), evaluate) for c in conditions)
    ]


def _may_hold(
    condition: exp.Expr,
    is_partition: Callable[[exp.Expr], bool],
    bounds: tuple[datetime, datetime] | None,
    evaluate: Evaluate,
) -> bool:
    """Whether a condition may hold for a row whose partitioning column lies within `bounds`, or is null without."""

    def compare(sign: type[exp.Expr], value: exp.Expr) -> bool:
        if value.find(exp.Column, exp.Query, exp.Unnest):
            return True
        constant = evaluate(value)
        if constant is None or bounds is None:
            return False
        low, high = bounds
        return {
            exp.EQ: low <= constant <= high,
            exp.LT: low < constant,
            exp.LTE: low <= constant,
            exp.GT: high > constant,
            exp.GTE: high >= constant,
        }[sign]

    match condition:
        case exp.Paren():
            return _may_hold(condition.this, is_partition, bounds, evaluate)
        case exp.And() | exp.Or():
            sides = [_may_hold(side, is_partition, bounds, evaluate) for side in (condition.left, condition.right)]
            return all(sides) if isinstance(condition, exp.And) else any(sides)
        case exp.Boolean():
            return bool(condition.this)
        case exp.Between() if is_partition(condition.this):
            return compare(exp.GTE, condition.args["low"]) and compare(exp.LTE, condition.args["high"])
        case exp.In() if is_partition(condition.this) and condition.expressions:
            return any(compare(exp.EQ, value) for value in condition.expressions)
        case exp.EQ() | exp.LT() | exp.LTE() | exp.GT() | exp.GTE():
            if is_partition(condition.left):
                return compare(type(condition), condition.right)
            if is_partition(condition.right):
                return compare(_TURNED[type(condition)], condition.left)
    return True
