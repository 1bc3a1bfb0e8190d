"""Filters: `lambda q: q.field("n") < 5` becomes a test of documents, and a text that distinguishes filters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

from duly.ctx.db import filter_nodes as nodes
from duly.errors import QueryError
from duly.values.json import Document
from duly.values.schema.validator import Validator
from duly.values.text import show


@dataclass(frozen=True, slots=True)
class Predicate:
    """A filter, compiled: a test of documents."""

    test: Callable[[Document], bool]
    """Returns whether a document passes. Raises QueryError if the condition has no boolean value."""
    fingerprint: str
    """The filter as text: the same for the same filter, different for different ones."""
    operators: int
    """The number of its operators."""


def predicate(build: Callable[[Filters], Expression | bool], document: Validator | None = None) -> Predicate:
    """Compile a filter. Raises QueryError if `build` returns no condition. An error of `build` itself passes through.

    `document` determines the form in which documents store a datetime that is compared with a field.

    >>> predicate(lambda q: q.field("n") < 5).test({"n": 3})
    True
    """
    if not callable(build):
        raise QueryError(f'a filter: got {show(build)}, expected a function such as lambda q: q.field("n") < 5')
    built: Any = build(Filters(document))
    if not isinstance(built, Expression | bool):
        hint = "; a def needs a return" if built is None else ""
        raise QueryError(
            f"a filter: its function returned {show(built)}, expected a condition made with its parameter,"
            f' such as q.field("n") < 5{hint}'
        )
    node = nodes.node_of(_operand(built))
    return Predicate(nodes.boolean_test(node, "the filter"), node.text, node.operators)


class Filters:
    """The parameter of a filter's function: the fields of a document, and operators.

        .filter(lambda q: q.and_(q.eq(q.field("status"), "new"), q.field("n") % 10 < 5))

    Operands are fields, other expressions, or values; UNSET stands for a missing field. On fields and expressions
    Python's own operators do the same: `< <= > >= == !=`, `+ - * / %`, and `& | ~` for and, or and not (with each
    comparison in parentheses). Python's words `and or not in` cannot be used.

    Values of all types compare, in the order of an index: missing (UNSET), None, numbers, False, True, strings,
    bytes, arrays, objects. Arithmetic accepts numbers only, never booleans. A result that is neither a 64-bit int nor a
    float is a QueryError.
    """

    __slots__ = ("_document",)

    def __init__(self, document: Validator | None = None) -> None:
        self._document = document

    def field(self, path: str) -> Expression:
        """A field of the document, or of an object in it: `q.field("address.city")`. UNSET if it is missing."""
        return Expression(nodes.field(path, self._document))

    def eq(self, a: object, b: object) -> Expression:
        """Whether two values are equal. 1 equals 1.0, NaN equals itself, True equals no number."""
        return _comparison("eq", a, b)

    def neq(self, a: object, b: object) -> Expression:
        """Whether two values differ."""
        return _comparison("neq", a, b)

    def lt(self, a: object, b: object) -> Expression:
        """Whether `a` comes before `b`. A missing field comes before everything."""
        return _comparison("lt", a, b)

    def lte(self, a: object, b: object) -> Expression:
        """Whether `a` comes before `b` or equals it."""
        return _comparison("lte", a, b)

    def gt(self, a: object, b: object) -> Expression:
        """Whether `a` comes after `b`. Strings, bytes, arrays and objects come after all numbers."""
        return _comparison("gt", a, b)

    def gte(self, a: object, b: object) -> Expression:
        """Whether `a` comes after `b` or equals it."""
        return _comparison("gte", a, b)

    def add(self, a: object, b: object) -> Expression:
        """The sum of two numbers."""
        return _arithmetic("add", a, b)

    def sub(self, a: object, b: object) -> Expression:
        """The difference of two numbers, `a` minus `b`."""
        return _arithmetic("sub", a, b)

    def mul(self, a: object, b: object) -> Expression:
        """The product of two numbers."""
        return _arithmetic("mul", a, b)

    def div(self, a: object, b: object) -> Expression:
        """`a` divided by `b`, always a float: `q.div(1, 2)` is 0.5.

        Division by zero is a QueryError for two ints. If one of them is a float, it gives an infinity or NaN.
        """
        return _arithmetic("div", a, b)

    def mod(self, a: object, b: object) -> Expression:
        """The remainder of `a` divided by `b`, with the sign of `a`, as in JavaScript and unlike Python's own `%`.

        `q.mod(-7, 3)` is -1, and so is `q.field("n") % 3` where n is -7. For two ints the result is an int, and
        division by zero is a QueryError. If one of them is a float, division by zero gives NaN.
        """
        return _arithmetic("mod", a, b)

    def neg(self, a: object) -> Expression:
        """A number with the opposite sign."""
        return _arithmetic("neg", a)

    def and_(self, *conditions: object) -> Expression:
        """Whether all conditions hold. Conditions after the first false one are not evaluated. `q.and_()` is True."""
        return _logic("and", False, conditions)

    def or_(self, *conditions: object) -> Expression:
        """Whether some condition holds. Conditions after the first true one are not evaluated. `q.or_()` is False."""
        return _logic("or", True, conditions)

    def not_(self, condition: object) -> Expression:
        """Whether a condition does not hold."""
        return Expression(nodes.negation(_operand(condition)))

    if not TYPE_CHECKING:  # a type checker finds these by itself

        def __getattr__(self, name: str) -> NoReturn:
            _refuse_dunder(name)
            known = ", ".join(act for act in vars(Filters) if act[0] != "_")
            raise QueryError(f'a filter: got q.{name}, expected q.field("{name}") or one of q\'s {known}')

        def __getitem__(self, key: object) -> NoReturn:
            raise QueryError(f"a filter: got q[{show(key)}], expected q.field({show(key)}); q is no document")


class Expression:
    """A field, or the result of a computation with fields, in a filter. `Filters` lists what it can be used for."""

    __slots__ = ("_node",)

    def __init__(self, node: nodes.Node) -> None:
        self._node = node

    def __lt__(self, other: object) -> Expression:
        return _comparison("lt", self, other)

    def __le__(self, other: object) -> Expression:
        return _comparison("lte", self, other)

    def __gt__(self, other: object) -> Expression:
        return _comparison("gt", self, other)

    def __ge__(self, other: object) -> Expression:
        return _comparison("gte", self, other)

    def __eq__(self, other: object) -> Expression:  # type: ignore[override]  # a condition, and no bool
        return _comparison("eq", self, other)

    def __ne__(self, other: object) -> Expression:  # type: ignore[override]  # a condition, and no bool
        return _comparison("neq", self, other)

    def __add__(self, other: object) -> Expression:
        return _arithmetic("add", self, other)

    def __radd__(self, other: object) -> Expression:
        return _arithmetic("add", other, self)

    def __sub__(self, other: object) -> Expression:
        return _arithmetic("sub", self, other)

    def __rsub__(self, other: object) -> Expression:
        return _arithmetic("sub", other, self)

    def __mul__(self, other: object) -> Expression:
        return _arithmetic("mul", self, other)

    def __rmul__(self, other: object) -> Expression:
        return _arithmetic("mul", other, self)

    def __truediv__(self, other: object) -> Expression:
        return _arithmetic("div", self, other)

    def __rtruediv__(self, other: object) -> Expression:
        return _arithmetic("div", other, self)

    def __mod__(self, other: object) -> Expression:
        return _arithmetic("mod", self, other)

    def __rmod__(self, other: object) -> Expression:
        return _arithmetic("mod", other, self)

    def __neg__(self) -> Expression:
        return _arithmetic("neg", self)

    def __and__(self, other: object) -> Expression:
        return _logic("and", False, (self, other))

    def __rand__(self, other: object) -> Expression:
        return _logic("and", False, (other, self))

    def __or__(self, other: object) -> Expression:
        return _logic("or", True, (self, other))

    def __ror__(self, other: object) -> Expression:
        return _logic("or", True, (other, self))

    def __invert__(self) -> Expression:
        return Expression(nodes.negation(self._node))

    def __repr__(self) -> str:
        return self._node.text

    def __bool__(self) -> bool:
        raise QueryError(_NO_TRUTH)

    def __hash__(self) -> int:
        # A hash by identity would silently make `q.field("a") in {1, 2}` False.
        raise QueryError(_NO_HASH)

    if not TYPE_CHECKING:  # a type checker finds these by itself
        __iter__ = None

        def __contains__(self, item: object) -> NoReturn:
            raise QueryError(_NO_TRUTH)

        def __getattr__(self, name: str) -> NoReturn:
            _refuse_dunder(name)
            raise QueryError(
                f"a filter: got {self!r:.200}.{name}, expected an operator of q, or for a field of an object a path"
                f' such as q.field("address.{name}")'
            )

        def __getitem__(self, key: object) -> NoReturn:
            raise QueryError(
                f'a filter: got {self!r:.200}[{show(key)}], expected a path such as q.field("address.city");'
                " elements of arrays cannot be asked for"
            )


def _refuse_dunder(name: str) -> None:
    if name[:2] == "__":  # Python looks these up itself, and an AttributeError means "no"
        raise AttributeError(name)


_NO_TRUTH: Final = (
    "a filter: `and`, `or`, `not`, `in`, `if` and chained comparisons such as 1 < a < 5 cannot be used on fields, whose"
    " values are not known yet. Write q.and_(a, b), q.or_(a, b), q.not_(a), or a & b, a | b, ~a with each comparison in"
    " parentheses; instead of `a in (1, 2)` write q.or_(a == 1, a == 2), instead of `1 < a < 5` q.and_(1 < a, a < 5)"
)
_NO_HASH: Final = (
    "a filter: a field cannot stand in a set or as a key of a dict, nor be looked up there; instead of `a in {1, 2}`"
    " write q.or_(a == 1, a == 2)"
)


def _operand(operand: object) -> Any:
    """Return an operand as nodes take it: the node of an expression, or a value as it is."""
    return operand._node if isinstance(operand, Expression) else operand  # pyright: ignore[reportPrivateUsage]


def _comparison(name: str, a: object, b: object) -> Expression:
    return Expression(nodes.comparison(name, _operand(a), _operand(b)))


def _arithmetic(name: str, *operands: object) -> Expression:
    return Expression(nodes.arithmetic(name, *map(_operand, operands)))


def _logic(name: str, decisive: bool, conditions: tuple[object, ...]) -> Expression:
    return Expression(nodes.logic(name, decisive, tuple(map(_operand, conditions))))
