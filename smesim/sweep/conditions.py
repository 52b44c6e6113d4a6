"""Conditions: which points of a grid are asked at all, as expressions over a point's keys.

    "tokens * batch <= 4096"        "planner != 'matrix_only' or threads > 1"        "chip.memory.capacity_bytes > 8e9"

An expression is Python's, cut down to names, constants, arithmetic, comparisons, `and`, `or`, `not` and `in`: a sweep
file cannot call anything. A key that a point does not have is None.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from smesim.errors import SweepError

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, container: item in container,
    ast.NotIn: lambda item, container: item not in container,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
_ACCEPTED = "accepted: names of keys, constants, + - * / // %, comparisons, and, or, not, in"


class Condition:
    """One expression, read once and asked of many points. SweepError if it is none that is accepted."""

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self._tree = ast.parse(text, mode="eval").body
        except (SyntaxError, ValueError) as error:
            raise SweepError(f"condition {text!r}: {error}; {_ACCEPTED}") from None
        self.names = frozenset(self._checked(self._tree))

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether it is true of a point's values; SweepError where they cannot be compared so."""
        try:
            return bool(self._value(self._tree, values))
        except (TypeError, ArithmeticError) as error:
            shown = ", ".join(f"{name}={values.get(name)!r}" for name in sorted(self.names))
            raise SweepError(f"condition {self.text!r} with {shown}: {error}") from None

    def _checked(self, node: ast.expr) -> set[str]:
        """The names in it, once every part was seen to be an accepted one."""
        match node:
            case ast.Constant():
                return set()
            case ast.Name():
                return {node.id}
            case ast.Attribute():
                return {ast.unparse(node)}
            case ast.List() | ast.Tuple():
                parts = node.elts
            case ast.BoolOp():
                parts = node.values
            case ast.UnaryOp(op=ast.Not() | ast.USub()):
                parts = [node.operand]
            case ast.BinOp() if type(node.op) in _ARITHMETIC:
                parts = [node.left, node.right]
            case ast.Compare() if all(type(op) in _COMPARISONS for op in node.ops):
                parts = [node.left, *node.comparators]
            case _:
                raise SweepError(f"condition {self.text!r}: {ast.unparse(node)!r} given; {_ACCEPTED}")
        return set().union(*(self._checked(part) for part in parts))

    def _value(self, node: ast.expr, values: Mapping[str, Any]) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.Name() | ast.Attribute():
                return values.get(ast.unparse(node))
            case ast.List() | ast.Tuple():
                return [self._value(part, values) for part in node.elts]
            case ast.BoolOp():
                needed = all if isinstance(node.op, ast.And) else any
                return needed(self._value(part, values) for part in node.values)
            case ast.UnaryOp():
                value = self._value(node.operand, values)
                return not value if isinstance(node.op, ast.Not) else -value
            case ast.BinOp():
                return _ARITHMETIC[type(node.op)](self._value(node.left, values), self._value(node.right, values))
            case ast.Compare():
                left = self._value(node.left, values)
                for op, comparator in zip(node.ops, node.comparators, strict=True):
                    right = self._value(comparator, values)
                    if not _COMPARISONS[type(op)](left, right):
                        return False
                    left = right
                return True
        raise AssertionError(node)
