"""What BigQuery's expressions mean in DuckDB's words, where sqlglot's translation would mean something else.

Expressions come typed. TIMESTAMP is a plain DuckDB TIMESTAMP in UTC. Hashes of FARM_FINGERPRINT are as good as
BigQuery's, but other numbers.
"""

import decimal
from typing import Final

import duckdb
import sqlglot
from sqlglot import exp

from matching_platform_tests.emulators.bigquery_tables import NOW, Refusal

_NUMERIC: Final = exp.DataType.build("DECIMAL(38, 9)", dialect="duckdb")
_TIMESTAMP: Final = exp.DataType.build("TIMESTAMP", dialect="duckdb")
_WHITESPACE: Final = "".join(map(chr, [*range(9, 14), 32, 133, 160, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029]))
_MACROS: Final = (
    "bq_float(x) AS CASE WHEN CAST(printf('%.15g', x) AS DOUBLE) = x THEN printf('%.15g', x) ELSE printf('%.17g', x) END",
    # A number has no trailing zeros, and bytes are the text that they encode.
    """bq_text(x) AS CASE WHEN typeof(x) LIKE 'DECIMAL%' AND contains(CAST(x AS VARCHAR), '.')
       THEN rtrim(rtrim(CAST(x AS VARCHAR), '0'), '.') WHEN typeof(x) = 'TIMESTAMP' THEN CAST(x AS VARCHAR) || '+00'
       WHEN typeof(x) = 'DOUBLE' THEN bq_float(TRY_CAST(x AS DOUBLE))
       WHEN typeof(x) = 'BLOB' THEN decode(CAST(x AS BLOB)) ELSE CAST(x AS VARCHAR) END""",
    """bq_integer(x) AS CASE WHEN x IS NULL OR regexp_full_match(trim(x), '[+-]?[0-9]+') THEN CAST(x AS BIGINT)
       ELSE error('Bad int64 value: ' || x) END""",
    "bq_safe_integer(x) AS CASE WHEN regexp_full_match(trim(x), '[+-]?[0-9]+') THEN TRY_CAST(x AS BIGINT) END",
    "bq_divide(x, y) AS CASE WHEN y = 0 THEN error('division by zero: ' || x || ' / ' || y) ELSE x / y END",
    "bq_position(x, p) AS CASE WHEN p = 0 OR p < -length(x) THEN 1 ELSE p END",
    """bq_element(x, i, first) AS CASE WHEN i < first OR i - first >= len(x)
       THEN error('Array index ' || i || ' is out of bounds') ELSE x[i - first + 1] END""",
    "ieee_divide(x, y) AS CAST(x AS DOUBLE) / CAST(y AS DOUBLE)",
    "farm_fingerprint(x) AS CAST(CAST(md5_number_lower(x) AS HUGEINT) - 9223372036854775808 AS BIGINT)",
)


def prepare(connection: duckdb.DuckDBPyConnection) -> None:
    """Gives DuckDB the functions that it lacks."""
    for macro in _MACROS:
        connection.execute(f"CREATE MACRO {macro}")
    numeric = duckdb.decimal_type(38, 9)
    connection.create_function("numeric_divide", _numeric_divide, [numeric, numeric], numeric)


def _numeric_divide(left: decimal.Decimal, right: decimal.Decimal) -> decimal.Decimal:
    if not right:
        raise ZeroDivisionError(f"division by zero: {left} / {right}")
    with decimal.localcontext(decimal.Context(prec=76)):
        return (left / right).quantize(decimal.Decimal("1e-9"), rounding=decimal.ROUND_HALF_UP)


def duck(tree: exp.Expr, *, exact: bool = False) -> str:
    """DuckDB's SQL for a typed tree; with `exact` a lone literal like 0.05 keeps its digits, for a NUMERIC column."""
    tree = tree.copy()
    for node in reversed(list(tree.walk())):
        new = _literal(node, exact=exact) if isinstance(node, exp.Literal) else _translated(node)
        if not isinstance(node, exp.DataType):
            new.type = _TIMESTAMP if node.is_type("TIMESTAMPTZ") else node.type
        if node is tree:
            tree = new
        elif new is not node:
            node.replace(new)
    return tree.sql("duckdb", unsupported_level=sqlglot.ErrorLevel.RAISE)


def _translated(node: exp.Expr) -> exp.Expr:
    """`node`, or what stands in its place; its children are translated already."""
    zone = node.this if isinstance(node, exp.CurrentDate) else node.args.get("zone")
    if node.is_type("DATETIME", "TIMESTAMP", "TIME", "BIGDECIMAL") or (zone and zone.name.upper() != "UTC"):
        raise _unknown(node)
    match node:
        case exp.Table() if node.db:
            node.set("db", exp.to_identifier(f"{node.catalog}.{node.db}", quoted=True))
            node.set("catalog", None)
        case exp.DataType():
            return _type(node)
        case exp.Cast():
            return _cast(node)
        case exp.Div() | exp.SafeDivide():
            return _quotient(node)
        case exp.Mul() | exp.Round() if _is_numeric(node):
            return exp.cast(node.copy(), _NUMERIC.copy())
        case exp.Avg() if _is_numeric(node):
            if isinstance(node.parent, exp.Window):
                raise Refusal("notImplemented", "This server has no AVG of NUMERIC over a window.")
            return _call("numeric_divide", exp.Sum(this=node.this.copy()), exp.Count(this=node.this.copy()))
        case exp.Trim() if not node.expression:
            node.set("expression", exp.Literal.string(_WHITESPACE))
        case exp.Substring() if node.args.get("start"):
            node.set("start", _call("bq_position", node.this, node.args["start"]))
        case exp.Format():
            return _call("printf", node.this, *node.expressions)
        case exp.Bracket() if not node.args.get("safe"):
            return _call("bq_element", node.this, *node.expressions, exp.Literal.number(node.args.get("offset") or 0))
        case exp.Unnest() if node.args.get("offset"):
            return _with_offset(node)
        case exp.IgnoreNulls() | exp.ArrayAgg() if not isinstance(node.parent, exp.IgnoreNulls):
            return _limited(node)
        case exp.TimestampDiff():  # whole units that passed, not bounds of units
            return _call("date_sub", exp.Literal.string(node.text("unit").lower()), node.expression, node.this)
        case exp.AggFunc() | exp.Unnest():
            return node
        case exp.Func() if node.is_type("DATE") and not isinstance(node.parent, exp.Window):
            return exp.cast(node.copy(), "DATE")
        case exp.Extract() if node.name.upper() == "DAYOFWEEK":
            return exp.Add(this=node.copy(), expression=exp.Literal.number(1))  # Sunday is 1, not 0
        case exp.CurrentTimestamp():
            return sqlglot.parse_one(NOW, read="duckdb")
        case exp.Extract() if node.name.upper() == "WEEK":
            raise _unknown(node)
        case exp.Add() | exp.Sub() if node.left.is_type("DATE") and node.find(exp.Interval):
            raise _unknown(node)  # a DATETIME
        case exp.CurrentDatetime() | exp.CurrentTime() | exp.TsOrDsToDatetime():
            raise _unknown(node)
    return node


def _call(name: str, *arguments: exp.Expr) -> exp.Expr:
    return exp.Anonymous(this=name, expressions=[argument.copy() for argument in arguments])


def _unknown(node: exp.Expr) -> Refusal:
    return Refusal("notImplemented", f"This server does not know {node.sql('bigquery')}.")


def _is_numeric(node: exp.Expr) -> bool:
    return bool(node.type) and node.is_type("DECIMAL")


def _quotient(node: exp.Expr) -> exp.Expr:
    """A NUMERIC if a side is one and none a FLOAT64."""
    sides = [node.this, node.expression]
    if any(side.type is None or side.is_type("UNKNOWN") for side in sides):
        raise Refusal("notImplemented", f"This server does not know the types of {node.sql('bigquery')}.")
    exact = any(map(_is_numeric, sides)) and not any(side.is_type("DOUBLE") for side in sides)
    node.type = _NUMERIC if exact else node.type
    if isinstance(node, exp.SafeDivide):
        divisor = _call("nullif", node.expression, exp.Literal.number(0))
        return _call("numeric_divide" if exact else "ieee_divide", node.this, divisor)
    return _call("numeric_divide" if exact else "bq_divide", *sides)


def _literal(literal: exp.Literal, *, exact: bool) -> exp.Expr:
    """Whole numbers have 64 bits. 0.05 is a FLOAT64; beside a NUMERIC it becomes a NUMERIC of exactly these digits."""
    signed = [literal]
    while isinstance(signed[-1].parent, exp.Paren | exp.Neg):
        signed.append(signed[-1].parent)
    parent = signed[-1].parent
    if literal.is_string:
        return literal
    if literal.is_int:
        widens = isinstance(parent, exp.Add | exp.Sub | exp.Mul) and parent.is_type(*exp.DataType.INTEGER_TYPES)
        return exp.cast(literal.copy(), "BIGINT") if widens else literal
    if isinstance(parent, exp.If) and isinstance(parent.parent, exp.Case):
        parent = parent.parent
    if parent is None or isinstance(parent, exp.Tuple):
        keeps = exact
    else:
        others = [other for other in parent.iter_expressions() if other is not signed[-1]]
        branches = [branch.args["true"] for branch in others if isinstance(branch, exp.If)]
        keeps = any(map(_is_numeric, [parent, *others, *branches]))
    if not keeps:
        return exp.cast(literal.copy(), "DOUBLE")
    for part in signed:
        part.type = _NUMERIC
    return literal


def _type(kind: exp.DataType) -> exp.DataType:
    if kind.is_type("TIMESTAMPTZ"):
        return _TIMESTAMP.copy()
    return _NUMERIC.copy() if kind.this == exp.DataType.Type.DECIMAL and not kind.expressions else kind


def _cast(node: exp.Cast) -> exp.Expr:
    """Casts that DuckDB reads, rounds or writes in another way."""
    value, is_text = node.this, node.this.is_type(*exp.DataType.TEXT_TYPES)
    if node.args.get("format"):
        raise _unknown(node)
    if node.to.is_type(*exp.DataType.TEXT_TYPES):
        return _call("bq_text", value)
    if node.to.is_type("BIGINT") and is_text:
        return _call("bq_safe_integer" if isinstance(node, exp.TryCast) else "bq_integer", value)
    if node.to.is_type("BIGINT") and value.is_type("DOUBLE", "DECIMAL"):
        node.set("this", exp.Round(this=value.copy()))
    if node.to.is_type(_TIMESTAMP) and is_text:
        node.set("this", exp.cast(value.copy(), "TIMESTAMPTZ"))  # reads the offset that TIMESTAMP would overlook
    return node


def _with_offset(node: exp.Unnest) -> exp.Expr:
    """An array's elements and their places from 0, where DuckDB counts from 1."""
    if not node.alias_column_names:
        raise _unknown(node)
    if isinstance(node.parent, exp.Join) and node.parent.side and not node.parent.args.get("on"):
        node.parent.set("on", exp.true())
    array = node.expressions[0]
    place = exp.Sub(this=_call("generate_subscripts", array, exp.Literal.number(1)), expression=exp.Literal.number(1))
    element = exp.alias_(exp.Explode(this=array.copy()), node.alias_column_names[0], quoted=True)
    return exp.select(element, exp.alias_(place, node.args["offset"].name, quoted=True)).subquery(node.alias)


def _limited(node: exp.Expr) -> exp.Expr:
    """ARRAY_AGG with a LIMIT, which DuckDB's does not have."""
    aggregate = node.this if isinstance(node, exp.IgnoreNulls) else node
    if not isinstance(aggregate, exp.ArrayAgg) or not isinstance(aggregate.this, exp.Limit):
        return node
    limit = aggregate.this
    aggregate.set("this", limit.this)
    return _call("list_slice", node, exp.Literal.number(1), limit.expression)
