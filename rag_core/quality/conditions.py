"""Conditions over a table's rows, for `where` and `expression`: a small part of Python's expressions.

They are parsed when the declarations are read, so a wrong one is an error with file and line, and what they read is
known beforehand. They are evaluated as a pandas query, which is also how Great Expectations takes a row condition.
"""

import ast
import functools
from dataclasses import dataclass

SYNTAX = (
    'a condition such as `status == "ok" and text.length > 20`: columns, numbers, texts, lists, '
    "== != < <= > >=, in, not in, is None, is not None, and, or, not, + - * / %"
)

_COMPARE = {ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
            ast.In: "in", ast.NotIn: "not in"}  # fmt: skip
_ARITHMETIC = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Mod: "%"}


@dataclass(frozen=True)
class Condition:
    """A parsed condition.

    Attributes:
        text: As it was written.
        columns: Columns and measures (`text.length`) that it reads.
        query: The same for `DataFrame.query` and `DataFrame.eval`. A comparison with null is false.
    """

    text: str
    columns: frozenset[str]
    query: str


@functools.cache
def parse(text: str) -> Condition:
    """Parse a condition.

    Raises:
        ValueError: It is not of the syntax; the message says what is.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise ValueError(SYNTAX) from error
    columns: set[str] = set()
    query = _boolean(tree, columns)
    if not columns:
        raise ValueError(f"{SYNTAX}; at least one column")
    return Condition(text, frozenset(columns), query)


def _boolean(node: ast.expr, columns: set[str]) -> str:
    match node:
        case ast.BoolOp(op=op, values=values):
            word = " and " if isinstance(op, ast.And) else " or "
            return "(" + word.join(_boolean(value, columns) for value in values) + ")"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return f"(not {_boolean(operand, columns)})"
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            sides = [left, *comparators]
            pairs = zip(sides[:-1], ops, sides[1:], strict=True)
            return "(" + " and ".join(_comparison(one, op, two, columns) for one, op, two in pairs) + ")"
        case ast.Name() | ast.Attribute():
            return f"({_value(node, columns)} == True)"
    raise ValueError(f"{SYNTAX}; not {ast.unparse(node)}")


def _comparison(left: ast.expr, op: ast.cmpop, right: ast.expr, columns: set[str]) -> str:
    if isinstance(op, ast.Is | ast.IsNot):
        if not isinstance(left, ast.Name | ast.Attribute) or not (
            isinstance(right, ast.Constant) and right.value is None
        ):
            raise ValueError(f"{SYNTAX}; `is` and `is not` compare a column with None")
        return f"{_value(left, columns)}.{'isnull' if isinstance(op, ast.Is) else 'notnull'}()"
    return f"({_value(left, columns)} {_COMPARE[type(op)]} {_value(right, columns)})"


def _value(node: ast.expr, columns: set[str]) -> str:
    match node:
        case ast.Name(id=name):
            columns.add(name)
            return f"`{name}`"
        case ast.Attribute(value=ast.Name(id=name), attr=measure):
            columns.add(f"{name}.{measure}")
            return f"`{name}.{measure}`"
        case ast.Constant(value=value) if isinstance(value, str | int | float):
            return repr(value)
        case ast.List(elts=items) | ast.Tuple(elts=items) if items:
            return "[" + ", ".join(_value(item, columns) for item in items) + "]"
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return f"(-{_value(operand, columns)})"
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return f"({_value(left, columns)} {_ARITHMETIC[type(op)]} {_value(right, columns)})"
    raise ValueError(f"{SYNTAX}; not {ast.unparse(node)}")
