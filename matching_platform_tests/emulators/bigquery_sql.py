"""The statements of the BigQuery test server: read by sqlglot, priced, and run by DuckDB."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, Final

import duckdb
import pyarrow as pa
import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, SqlglotError
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import traverse_scope
from sqlglot.schema import MappingSchema

from matching_platform_tests.emulators.bigquery_cost import PSEUDO_COLUMNS, estimate, reference_of, tables_of
from matching_platform_tests.emulators.bigquery_dialect import duck
from matching_platform_tests.emulators.bigquery_tables import (
    Catalog,
    Column,
    Json,
    Reference,
    Refusal,
    Table,
    listed,
    quoted,
)

_DIALECT: Final = "bigquery, normalization_strategy=case_sensitive"
_WIDER: Final = {("INTEGER", "NUMERIC"), ("INTEGER", "FLOAT"), ("NUMERIC", "FLOAT"), ("DATE", "TIMESTAMP")}
# What DuckDB may make of a function whose type is known to be another.
_CONFUSED: Final = {("DECIMAL", "FLOAT"), ("DATE", "TIMESTAMP")}


@dataclass
class Statement:
    """A statement that was read and priced, but not run: a SELECT has columns and SQL, all others `run`."""

    kind: str
    cost: tuple[int, int] = (0, 0)
    tables: list[Table] = field(default_factory=list)
    columns: list[Column] = field(default_factory=list)
    sql: str = ""
    run: Callable[[], Json] = dict

    @property
    def bytes_processed(self) -> int:
        return self.cost[0]

    @property
    def bytes_billed(self) -> int:
        return self.cost[1]


class Reader:
    """Reads the statement of a project's query job."""

    def __init__(self, catalog: Catalog, project: str, configuration: Json) -> None:
        self._catalog, self._project, self._configuration = catalog, project, configuration
        self._tables: dict[Reference, Table] = {}
        self._constants: dict[tuple[str, str], Any] = {}

    def read(self) -> Statement:
        """The statement; its `run` returns what it did, as the job's statistics say it.

        Raises Refusal for what BigQuery would refuse without running it.
        """
        try:
            tree = self._parse(self._configuration["query"])
            self._name_tables(tree)
            statement = self._statement(tree)
        except ParseError as error:
            found = error.errors[0]
            message = f"Syntax error: {found['description']} at [{found['line']}:{found['col']}]"
            raise Refusal("invalidQuery", message) from error
        except (SqlglotError, duckdb.Error) as error:
            raise Refusal("invalidQuery", str(error)) from error
        statement.tables = list(self._tables.values())
        return statement

    # Names and types

    def _parse(self, sql: str) -> exp.Expr:
        trees = [tree for tree in sqlglot.parse(sql, read="bigquery") if tree is not None]
        if len(trees) != 1:
            raise Refusal("notImplemented", f"This server runs one statement at a time, not {len(trees)}.")
        parameters = self._configuration.get("queryParameters", [])
        named = {p["name"].lower(): _constant(p) for p in parameters if p.get("name")}
        placed = iter([_constant(p) for p in parameters if not p.get("name")])

        def bind(node: exp.Expr) -> exp.Expr:
            if not isinstance(node, exp.Parameter | exp.Placeholder):
                return node
            found = named.get(node.name.lower()) if isinstance(node, exp.Parameter) else next(placed, None)
            if found is None:
                raise Refusal("invalidQuery", f"Query parameter '{node.name}' not found")
            return found.copy()

        return trees[0].transform(bind)

    def _name_tables(self, tree: exp.Expr) -> None:
        """Gives every table its full name, and looks up those that are there already."""
        local = {cte.alias for cte in tree.find_all(exp.CTE)}
        for table in list(tree.find_all(exp.Table)):
            if not table.name or (not table.db and table.name in local):
                continue
            reference = self._reference(table)
            table.set("db", exp.to_identifier(reference.dataset, quoted=True))
            table.set("catalog", exp.to_identifier(reference.project, quoted=True))
            table.meta.pop("quoted_table", None)
            if table is not _defined(tree):
                self._tables[reference] = self._find(reference)

    def _reference(self, table: exp.Table) -> Reference:
        default = self._configuration.get("defaultDataset", {})
        if table.db:
            return Reference(table.catalog or self._project, table.db, table.name)
        if not default:
            message = f'Table "{table.name}" must be qualified with a dataset (e.g. dataset.table).'
            raise Refusal("invalid", message)
        return Reference(default.get("projectId", self._project), default["datasetId"], table.name)

    def _find(self, reference: Reference) -> Table:
        if reference.table.upper() in _VIEWS:
            return _view(self._catalog, reference)
        return self._catalog.table(reference)

    def _typed(self, query: exp.Expr) -> exp.Expr:
        """The query with every column qualified and every expression typed."""
        schema = MappingSchema(dialect=_DIALECT)
        for reference, table in self._tables.items():
            columns = {column.name: column.standard for column in table.columns}
            if table.by_ingestion:
                columns |= {"_PARTITIONTIME": "TIMESTAMP", "_PARTITIONDATE": "DATE"}
            name = exp.table_(reference.table, db=reference.dataset, catalog=reference.project, quoted=True)
            schema.add_table(name, columns, dialect=_DIALECT)
        query = qualify(query, dialect=_DIALECT, schema=schema)
        for scope in traverse_scope(query):
            sources = [alias for alias, table in tables_of(scope) if self._tables[reference_of(table)].by_ingestion]
            for column in list(scope.find_all(exp.Pseudocolumn)):
                if not column.table and len(sources) != 1:
                    raise Refusal("invalidQuery", f"Unrecognized or ambiguous name: {column.name}")
                column.replace(exp.column(column.name, table=column.table or sources[0], quoted=True))
        return annotate_types(query, schema=schema, dialect=_DIALECT)

    def _cost(self, typed: exp.Expr, changed: Table | None = None) -> tuple[int, int]:
        return estimate(self._catalog, self._tables, typed, self._evaluate, changed)

    def _evaluate(self, constant: exp.Expr, kind: str = "TIMESTAMP") -> Any:
        key = constant.sql("bigquery"), kind
        if key not in self._constants:
            typed = annotate_types(exp.select(constant.copy()), dialect=_DIALECT)
            query = f"SELECT CAST(({duck(typed)}) AS {kind})"
            self._constants[key] = self._catalog.connection.execute(query).fetchall()[0][0]
        return self._constants[key]

    # Queries

    def _statement(self, tree: exp.Expr) -> Statement:
        match tree:
            case exp.Query():
                return self._query(tree)
            case exp.Insert():
                return self._insert(tree)
            case exp.Update() if not tree.args.get("from_"):
                return self._update(tree)
            case exp.Delete():
                return self._delete(tree)
            case exp.Merge():
                return self._merge(tree)
            case exp.Create() if tree.kind == "TABLE":
                return self._create(tree)
            case exp.Drop() if tree.kind == "TABLE":
                return self._drop(tree)
        raise Refusal("notImplemented", f"This server does not run: {tree.sql('bigquery')[:80]}")

    def _query(self, tree: exp.Expr) -> Statement:
        """A query, as DuckDB runs it."""
        _name_outputs(tree)
        typed = self._typed(tree)
        names = [projection.output_name for projection in typed.selects]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            message = f"Duplicate column names in the result are not supported. Found duplicate(s): {', '.join(twice)}"
            raise Refusal("invalidQuery", message)
        sql = duck(typed)
        described = self._catalog.connection.execute(f"DESCRIBE {sql}").fetchall()
        columns = [Column.of_duck(name, kind) for name, kind, *_ in described]
        for column, projection in zip(columns, typed.selects, strict=True):
            if (str(projection.type), column.type) in _CONFUSED:
                message = f"This server would answer column {column.name} as {column.standard}, not {projection.type}."
                raise Refusal("notImplemented", message)
        return Statement("SELECT", self._cost(typed), columns=columns, sql=sql)

    # Changes

    def _insert(self, tree: exp.Insert) -> Statement:
        target = self._target(tree.this)
        names = [name.name for name in tree.this.expressions] or [column.name for column in target.columns]
        columns, source = _chosen(target, names), tree.expression
        if not any(reference_of(table) == target.reference for table in source.find_all(exp.Table)):
            del self._tables[target.reference]
        if isinstance(source, exp.Values):
            typed = annotate_types(source, dialect=_DIALECT)
            sql, cost, given = duck(typed, exact=True), (0, 0), len(source.expressions[0].expressions)
        else:
            query = self._query(source)
            sql, cost, given = query.sql, query.cost, len(query.columns)
            for number, (column, new) in enumerate(zip(columns, query.columns, strict=False), start=1):
                _check_assignable(number, column, new)
        if given != len(columns):
            message = f"Inserted row has wrong column count; Has {given}, expected {len(columns)}"
            raise Refusal("invalidQuery", message)
        values = [column.stored(f"c{i}") for i, column in enumerate(columns)]
        return self._change("INSERT", target, cost, (
            f"INSERT INTO {target.reference.duck} ({', '.join(listed(columns))}) "
            f"SELECT {', '.join(values)} FROM ({sql}) AS q({', '.join(f'c{i}' for i in range(given))}) "
            f"RETURNING 'INSERT', {target.partition_id()}"
        ))  # fmt: skip

    def _update(self, tree: exp.Update) -> Statement:
        target, where = self._target(tree.this), _where(tree)
        parts = [where, *(_assigned(target, assignment) for assignment in tree.expressions)]
        cost, (condition, *values), _ = self._typed_parts(target, tree.this, [], parts, where)
        sets = [_set(target, a.this.name, value) for a, value in zip(tree.expressions, values, strict=True)]
        alias = tree.this.alias_or_name
        return self._change("UPDATE", target, cost, (
            f"UPDATE {target.reference.duck} AS {quoted(alias)} SET {', '.join(sets)} WHERE {duck(condition)} "
            f"RETURNING 'UPDATE', {target.partition_id(alias)}"
        ))  # fmt: skip

    def _delete(self, tree: exp.Delete) -> Statement:
        target, where = self._target(tree.this), _where(tree)
        cost, (condition,), _ = self._typed_parts(target, tree.this, [], [where], where)
        alias = tree.this.alias_or_name
        return self._change("DELETE", target, cost, (
            f"DELETE FROM {target.reference.duck} AS {quoted(alias)} WHERE {duck(condition)} "
            f"RETURNING 'DELETE', {target.partition_id(alias)}"
        ))  # fmt: skip

    def _merge(self, tree: exp.Merge) -> Statement:
        target, on, using = self._target(tree.this), tree.args["on"], tree.args["using"]
        whens = tree.args["whens"].expressions
        given = self._query(exp.select("*").from_(using.copy())).columns
        row = [exp.column(column.name, table=using.alias_or_name, quoted=True) for column in given]
        scanned, parts = on, [on]
        for when in whens:
            if not when.args["matched"]:
                _qualify(when, tree.this if when.args.get("source") else using)
            condition = when.args.get("condition")
            parts += [condition or exp.true(), *_merged_values(target, row, when.args["then"])]
            if when.args.get("source"):
                scanned = exp.or_(scanned, condition or exp.true())
        only_inserts = all(isinstance(when.args["then"], exp.Insert) for when in whens)
        cost, typed, (source,) = self._typed_parts(target, tree.this, [using], parts, scanned, whole=not only_inserts)
        rest = iter(typed)
        alias = tree.this.alias_or_name
        clauses = [f"MERGE INTO {target.reference.duck} AS {quoted(alias)} USING {duck(source)} ON {duck(next(rest))}"]
        clauses += [_when(target, when, rest) for when in whens]
        sql = " ".join(clauses) + f" RETURNING merge_action, {target.partition_id(alias)}"
        return self._change("MERGE", target, cost, sql)

    def _typed_parts(
        self,
        target: Table,
        table: exp.Expr,
        sources: list[exp.Expr],
        parts: list[exp.Expr],
        scanned: exp.Expr,
        *,
        whole: bool = True,
    ) -> tuple[tuple[int, int], list[exp.Expr], list[exp.Expr]]:
        """The cost of a DML statement, and its parts and sources, typed in a query over the tables that it reads."""
        query = exp.select(*(exp.alias_(part.copy(), f"__{i}") for i, part in enumerate(parts))).from_(table.copy())
        for source in sources:
            query = query.join(source.copy(), join_type="cross")
        typed = self._typed(query.where(scanned.copy()))
        cost = self._cost(typed, target if whole else None)
        return cost, [part.this for part in typed.selects], [join.this for join in typed.args.get("joins") or []]

    def _target(self, table: exp.Expr) -> Table:
        named = table.this if isinstance(table, exp.Schema) else table
        return self._tables[reference_of(named)]

    def _change(self, kind: str, target: Table, cost: tuple[int, int], sql: str) -> Statement:
        """A DML statement, whose SQL returns of each row what was done and in which partition."""

        def run() -> Json:
            with self._catalog.transaction() as connection:
                rows = connection.execute(sql).fetchall()
            self._catalog.touch(target, list({partition for _, partition in rows}), prune=True)
            actions = [action for action, _ in rows]
            names = {"INSERT": "insertedRowCount", "UPDATE": "updatedRowCount", "DELETE": "deletedRowCount"}
            counts = {name: str(actions.count(action)) for action, name in names.items()}
            return {"dmlStats": counts, "numDmlAffectedRows": str(len(rows))}

        return Statement(kind, cost, run=run)

    # Definitions

    def _create(self, tree: exp.Create) -> Statement:
        defined = tree.this.expressions if isinstance(tree.this, exp.Schema) else []
        columns = [_column(definition) for definition in defined]
        reference, query = reference_of(_defined(tree)), None
        if tree.expression:
            query = self._query(tree.expression)
            columns = columns or query.columns
        table = self._catalog.new_table(reference, self._properties(tree), columns)
        exists, replaces = self._catalog.find(reference) is not None, tree.args.get("replace")
        if exists and not replaces and not tree.args.get("exists"):
            raise Refusal("duplicate", f"Already Exists: Table {reference}")
        empty = f"SELECT {', '.join(f'NULL AS {quoted(column.name)}' for column in columns)} LIMIT 0"

        def run() -> Json:
            if exists and not replaces:
                return {"ddlOperationPerformed": "SKIP"}
            self._catalog.replace(table, columns, query.sql if query else empty)
            done = "REPLACE" if exists else "CREATE"
            return {"ddlOperationPerformed": done, "ddlTargetTable": reference.resource()}

        kind = "CREATE_TABLE_AS_SELECT" if query else "CREATE_TABLE"
        return Statement(kind, query.cost if query else (0, 0), run=run)

    def _drop(self, tree: exp.Drop) -> Statement:
        reference = reference_of(_defined(tree))
        table = self._catalog.find(reference)
        if table is None and not tree.args.get("exists"):
            raise Refusal("notFound", f"Not found: Table {reference}")

        def run() -> Json:
            if table is not None:
                self._catalog.drop_table(reference)
            return {"ddlOperationPerformed": "DROP" if table else "SKIP", "ddlTargetTable": reference.resource()}

        return Statement("DROP_TABLE", run=run)

    def _properties(self, tree: exp.Create) -> Json:
        """Partitioning, clustering and options of a CREATE TABLE, as the REST API names them."""
        found: Json = {}
        properties = tree.args.get("properties")
        for item in properties.expressions if properties else []:
            match item:
                case exp.PartitionedByProperty():
                    found["timePartitioning"] = _partitioning(item.this)
                case exp.ClusterProperty():
                    found["clustering"] = {"fields": [column.name for column in item.expressions]}
                case exp.Property():
                    found |= self._option(item.name.lower(), item.args.get("value"))
                case _:
                    raise Refusal("notImplemented", f"This server does not know {item.sql('bigquery')}.")
        return found

    def _option(self, name: str, value: Any) -> Json:
        match name:
            case "description":
                return {"description": value.name}
            case "expiration_timestamp":
                moment = self._evaluate(value).replace(tzinfo=UTC)
                return {"expirationTime": str(int(moment.timestamp() * 1000))}
            case "require_partition_filter":
                return {"requirePartitionFilter": bool(self._evaluate(value, "BOOLEAN"))}
            case "labels":
                return {"labels": {pair.expressions[0].name: pair.expressions[1].name for pair in value.expressions}}
        raise Refusal("notImplemented", f"This server does not know the table option {name}.")


def _defined(tree: exp.Expr) -> exp.Expr | None:
    """The table that a statement makes or drops."""
    match tree:
        case exp.Create():
            return tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
        case exp.Drop():
            return tree.args["tables"][0]
    return None


def _where(tree: exp.Expr) -> exp.Expr:
    if not tree.args.get("where"):
        raise Refusal("invalidQuery", f"{tree.key.upper()} must have a WHERE clause")
    return tree.args["where"].this


def _name_outputs(tree: exp.Expr) -> None:
    """Gives the columns without a name BigQuery's names f0_, f1_, …"""
    while isinstance(tree, exp.SetOperation | exp.Subquery):
        tree = tree.this
    unnamed = [column for column in tree.expressions if not column.output_name and not column.is_star]
    for number, column in enumerate(unnamed):
        column.replace(exp.alias_(column.copy(), f"f{number}_"))


def _constant(parameter: Json) -> exp.Expr:
    """A query parameter as a typed constant."""
    kind, value = parameter["parameterType"], parameter.get("parameterValue", {})
    if kind["type"] == "ARRAY":
        element = kind["arrayType"]
        cells = [_constant({"parameterType": element, "parameterValue": v}) for v in value.get("arrayValues", [])]
        return exp.cast(exp.Array(expressions=cells), f"ARRAY<{element['type']}>", dialect="bigquery")
    raw = value.get("value")
    if raw is not None and kind["type"] == "BYTES":
        return exp.func("FROM_BASE64", exp.Literal.string(raw), dialect="bigquery")
    return exp.cast(exp.null() if raw is None else exp.Literal.string(raw), kind["type"], dialect="bigquery")


def _chosen(target: Table, names: Sequence[str]) -> list[Column]:
    columns = {column.name: column for column in target.columns}
    for name in names:
        if name not in columns:
            raise Refusal("invalidQuery", f"Column {name} is not present in table {target.reference}")
    return [columns[name] for name in names]


def _check_assignable(number: int, column: Column, new: Column) -> None:
    if new.repeated != column.repeated or (new.type != column.type and (new.type, column.type) not in _WIDER):
        raise Refusal(
            "invalidQuery",
            f"Query column {number} has type {new.standard} which cannot be inserted into column {column.name}, "
            f"which has type {column.standard}",
        )


def _assigned(target: Table, assignment: exp.Expr) -> exp.Expr:
    if assignment.this.name == target.partition_column:
        raise Refusal("notImplemented", f"This server does not update the partitioning column {assignment.this.name}.")
    return assignment.expression


def _set(target: Table, name: str, value: exp.Expr) -> str:
    return f"{quoted(name)} = {_chosen(target, [name])[0].stored(duck(value, exact=True))}"


def _qualify(when: exp.Expr, only: exp.Expr) -> None:
    """Says that a clause of a MERGE can only mean the columns of one of its tables."""
    for column in when.find_all(exp.Column):
        if not column.table and not column.find_ancestor(exp.Query):
            column.set("table", exp.to_identifier(only.alias_or_name, quoted=True))


def _merged_values(target: Table, row: list[exp.Column], then: exp.Expr) -> list[exp.Expr]:
    """The values of one clause of a MERGE; INSERT ROW, all of the source's columns, is spelled out."""
    if isinstance(then, exp.Update):
        return [_assigned(target, assignment) for assignment in then.expressions]
    if not isinstance(then, exp.Insert):
        return []
    if not then.expression:  # INSERT ROW, or INSERT VALUES (…), which sqlglot takes for a column
        values = row if isinstance(then.this, exp.Var) else then.this.expressions[0].expressions
        then.set("expression", exp.Tuple(expressions=[value.copy() for value in values]))
        then.set("this", exp.Tuple(expressions=[exp.column(column.name) for column in target.columns]))
    if len(then.this.expressions) != len(then.expression.expressions):
        raise Refusal("invalidQuery", "Inserted row has wrong column count")
    return list(then.expression.expressions)


def _when(target: Table, when: exp.Expr, typed: Iterator[exp.Expr]) -> str:
    """A WHEN clause of DuckDB's MERGE from its typed condition and values."""
    matched = "MATCHED" if when.args["matched"] else "NOT MATCHED"
    by_source = " BY SOURCE" if when.args.get("source") else ""
    clause = f"WHEN {matched}{by_source} AND {duck(next(typed))} THEN"
    then = when.args["then"]
    if isinstance(then, exp.Update):
        return f"{clause} UPDATE SET {', '.join(_set(target, a.this.name, next(typed)) for a in then.expressions)}"
    if not isinstance(then, exp.Insert):
        return f"{clause} DELETE"
    columns = _chosen(target, [name.name for name in then.this.expressions])
    stored = [column.stored(duck(next(typed), exact=True)) for column in columns]
    return f"{clause} INSERT ({', '.join(listed(columns))}) VALUES ({', '.join(stored)})"


def _column(definition: exp.ColumnDef) -> Column:
    """The column that a CREATE TABLE defines."""
    kind = definition.args["kind"]
    repeated = kind.is_type(exp.DataType.Type.ARRAY)
    required = any(isinstance(c.kind, exp.NotNullColumnConstraint) for c in definition.constraints)
    mode = "REPEATED" if repeated else "REQUIRED" if required else "NULLABLE"
    element = kind.expressions[0] if repeated else kind
    return Column.of({"name": definition.name, "type": element.sql("bigquery"), "mode": mode})


def _partitioning(expression: exp.Expr) -> Json:
    """The timePartitioning of a PARTITION BY."""
    kind = "DAY"
    if isinstance(expression, exp.DateTrunc | exp.TimestampTrunc):
        kind, expression = expression.args["unit"].name.upper(), expression.this
    while isinstance(expression, exp.Cast | exp.Date):
        expression = expression.this
    return {"type": kind} | ({} if expression.name in PSEUDO_COLUMNS else {"field": expression.name})


# Metadata


def _tables_view(catalog: Catalog, table: Table) -> Iterator[tuple[Any, ...]]:
    yield "BASE TABLE", int(table.resource["creationTime"]) * 1000


def _columns_view(catalog: Catalog, table: Table) -> Iterator[tuple[Any, ...]]:
    clustered = table.resource.get("clustering", {}).get("fields", [])
    for number, column in enumerate(table.columns, start=1):
        nullable = "NO" if column.mode == "REQUIRED" else "YES"
        partitioning = "YES" if column.name == table.partition_column else "NO"
        place = clustered.index(column.name) + 1 if column.name in clustered else None
        yield column.name, number, nullable, column.standard, partitioning, place


def _partitions_view(catalog: Catalog, table: Table) -> Iterator[tuple[Any, ...]]:
    for partition, figures in catalog.figures(table).items():
        size, modified = sum(figures.bytes.values()), table.partitions.get(partition, table.modified)
        yield partition, figures.rows, size, size, modified * 1000, "ACTIVE"


_VIEWS: Final[dict[str, tuple[Callable[[Catalog, Table], Iterator[tuple[Any, ...]]], str]]] = {
    "INFORMATION_SCHEMA.TABLES": (_tables_view, "table_type:STRING creation_time:TIMESTAMP"),
    "INFORMATION_SCHEMA.COLUMNS": (
        _columns_view,
        "column_name:STRING ordinal_position:INTEGER is_nullable:STRING data_type:STRING "
        "is_partitioning_column:STRING clustering_ordinal_position:INTEGER",
    ),
    "INFORMATION_SCHEMA.PARTITIONS": (
        _partitions_view,
        "partition_id:STRING total_rows:INTEGER total_logical_bytes:INTEGER total_billable_bytes:INTEGER "
        "last_modified_time:TIMESTAMP storage_tier:STRING",
    ),
}


def _view(catalog: Catalog, reference: Reference) -> Table:
    """A table with what INFORMATION_SCHEMA says of a dataset now."""
    catalog.dataset(reference.project, reference.dataset)
    of_table, more = _VIEWS[reference.table.upper()]
    names = f"table_catalog:STRING table_schema:STRING table_name:STRING {more}"
    view = Table(reference, {}, [Column(*name.split(":")) for name in names.split()], is_view=True)
    tables = [table for name in list(catalog.tables) if name[:2] == reference[:2] and (table := catalog.find(name))]
    rows = [(*table.reference, *row) for table in tables for row in of_table(catalog, table)]
    values = zip(*rows, strict=True) if rows else [()] * len(view.columns)
    columns = [pa.array(v, c.arrow.type) for v, c in zip(values, view.columns, strict=True)]
    schema = pa.schema([column.arrow for column in view.columns])
    with catalog.registered(pa.table(columns, schema=schema)) as name, catalog.transaction() as connection:
        connection.execute(f"CREATE OR REPLACE TABLE {reference.duck} AS {view.selected(name)}")
    return view
