"""Filters: `lambda q: q.field("n") < 5` becomes a test of documents, and a text that tells filters apart."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, TypeAlias

import orjson

from duly.errors import LimitError, QueryError
from duly.limits import FILTER_OPERATORS_MAX, OF_ANY_SIZE
from duly.values.checks import Validator, show
from duly.values.forms import check_order
from duly.values.keys import compare, field_of
from duly.values.paths import written_at
from duly.values.value import INT_MAX, INT_MIN, UNSET, Document, NotAValueError, dumps, loads

Evaluate: TypeAlias = Callable[[Document], Any]
"""An expression, compiled."""


@dataclass(frozen=True, slots=True)
class Predicate:
    """A filter, compiled: a test of documents."""

    test: Callable[[Document], bool]
    """Whether the filter lets a document through. QueryError if it cannot be said."""
    fingerprint: str
    """The filter as text: the same for the same filter, different for different ones."""
    operators: int
    """How many operators it has."""


def predicate(build: Callable[[Filters], Expression | bool], document: Validator | None = None) -> Predicate:
    """Compile a filter. QueryError if `build` returns no condition; what it raises itself passes through.

    `document` says in which form documents have a datetime that a field is compared with.

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
    node = _node(built)
    return Predicate(_boolean(node, "the filter"), node.text, node.operators)


class Filters:
    """What the function of a filter is given: the fields of the document at hand, and operators.

        .filter(lambda q: q.and_(q.eq(q.field("status"), "new"), q.field("n") % 10 < 5))

    Operands are fields, other expressions, or values; UNSET stands for a missing field. On fields and expressions
    Python's own operators do the same: `< <= > >= == !=`, `+ - * / %`, and `& | ~` for and, or and not (with each
    comparison in parentheses). Python's words `and or not in` cannot be used.

    Values of all types compare, in the order of an index: missing (UNSET), None, numbers, False, True, strings,
    bytes, arrays, objects. Arithmetic takes numbers only, never booleans; a result that is no 64-bit int and no float
    is a QueryError.
    """

    __slots__ = ("_document",)

    def __init__(self, document: Validator | None = None) -> None:
        self._document = document

    def field(self, path: str) -> Expression:
        """A field of the document, or of an object in it: `q.field("address.city")`. UNSET where it is missing."""
        return _field(path, self._document)

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
        """`a` without `b`, both numbers."""
        return _arithmetic("sub", a, b)

    def mul(self, a: object, b: object) -> Expression:
        """The product of two numbers."""
        return _arithmetic("mul", a, b)

    def div(self, a: object, b: object) -> Expression:
        """`a` divided by `b`, always a float: `q.div(1, 2)` is 0.5.

        Division by zero is a QueryError for two ints; where one is a float it gives an infinity or NaN.
        """
        return _arithmetic("div", a, b)

    def mod(self, a: object, b: object) -> Expression:
        """What division of `a` by `b` leaves, with the sign of `a`, as in JavaScript and unlike Python's own `%`.

        `q.mod(-7, 3)` is -1, and so is `q.field("n") % 3` where n is -7. Of two ints it is an int, and division by
        zero a QueryError; where one is a float, it gives NaN.
        """
        return _arithmetic("mod", a, b)

    def neg(self, a: object) -> Expression:
        """A number with the other sign."""
        return _arithmetic("neg", a)

    def and_(self, *conditions: object) -> Expression:
        """Whether all conditions hold; those after one that does not are not evaluated. `q.and_()` is True."""
        return _logic("and", False, conditions)

    def or_(self, *conditions: object) -> Expression:
        """Whether some condition holds; those after it are not evaluated. `q.or_()` is False."""
        return _logic("or", True, conditions)

    def not_(self, condition: object) -> Expression:
        """Whether a condition does not hold."""
        return _negation(condition)

    if not TYPE_CHECKING:  # a type checker finds these by itself

        def __getattr__(self, name: str) -> NoReturn:
            _refuse_dunder(name)
            known = ", ".join(act for act in vars(Filters) if act[0] != "_")
            raise QueryError(f'a filter: got q.{name}, expected q.field("{name}") or one of q\'s {known}')

        def __getitem__(self, key: object) -> NoReturn:
            raise QueryError(f"a filter: got q[{show(key)}], expected q.field({show(key)}); q is no document")


class Expression:
    """A field, or what is computed of fields, in a filter. See `Filters` for what can be done with one."""

    __slots__ = ("_node",)

    def __init__(self, node: Node) -> None:
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
        return _negation(self)

    def __repr__(self) -> str:
        return self._node.text

    def __bool__(self) -> bool:
        raise QueryError(_NO_TRUTH)

    def __hash__(self) -> int:
        # By identity it would make `q.field("a") in {1, 2}` False without a word.
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
    if name[:2] == "__":  # Python asks for these itself, and takes an AttributeError for no
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


# What expressions are made of. Each is compiled as it is made, so that however deep, none is ever walked.


class Node(NamedTuple):
    """What an expression is: kept out of reach of its users, to whom any name could be a field's."""

    text: str
    """In a form that only equal expressions share."""
    evaluate: Evaluate
    operators: int = 0
    boolean: bool = False
    """Whether its value is certain to be True or False."""
    write: Callable[[object], object] = lambda value: value
    """What is compared with it, in the form that its values have."""


def _node(operand: object, beside: object = None) -> Node:
    if isinstance(operand, Expression):
        return operand._node  # pyright: ignore[reportPrivateUsage]
    if operand is UNSET:
        return Node("UNSET", _constant(UNSET))
    try:
        try:
            text = dumps(operand, OF_ANY_SIZE)
        except NotAValueError:  # it may be a datetime, of which documents have the text
            if not isinstance(beside, Expression):
                raise
            text = dumps(_node(beside).write(operand), OF_ANY_SIZE)
    except NotAValueError as error:
        raise QueryError(f"a filter: an operand: {error}") from None
    value = loads(text)  # a copy of its own, plain where it was a model
    sorted_text = orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS).decode()
    return Node(sorted_text, _constant(value), boolean=type(value) is bool)


def _constant(value: object) -> Evaluate:
    return lambda _: value


def _operation(name: str, operands: list[Node], evaluate: Evaluate, boolean: bool) -> Expression:
    operators = 1 + sum(operand.operators for operand in operands)
    if operators > FILTER_OPERATORS_MAX:  # here already, for it also bounds how deep they nest
        raise LimitError(
            f"got {operators} operators in the filters of one query, expected at most {FILTER_OPERATORS_MAX}"
            " (FILTER_OPERATORS_MAX); look at the documents in Python instead"
        )
    return Expression(Node(f"{name}({','.join(operand.text for operand in operands)})", evaluate, operators, boolean))


def _field(path: object, document: Validator | None) -> Expression:
    if not isinstance(path, str) or not all(path.split(".")):
        raise QueryError(f'a filter: got q.field({show(path)}), expected a name, or a path such as "address.city"')

    def nested(document: Document) -> object:
        return field_of(document, path)

    def top(document: Document) -> object:
        return document.get(path, UNSET)

    evaluate = nested if "." in path else top
    return Expression(Node(f"field({_node(path).text})", evaluate, write=partial(written_at, document, path)))


_ORDERS: Final = {"eq": (0,), "neq": (-1, 1), "lt": (-1,), "lte": (-1, 0), "gt": (1,), "gte": (0, 1)}


def _comparison(name: str, a: object, b: object) -> Expression:
    wanted = _ORDERS[name]
    if name not in ("eq", "neq"):
        check_order((a, b), f"a filter: q.{name}")
    operands = [_node(a, b), _node(b, a)]
    first, second = operands[0].evaluate, operands[1].evaluate
    return _operation(name, operands, lambda document: compare(first(document), second(document)) in wanted, True)


def _logic(name: str, decisive: bool, conditions: tuple[object, ...]) -> Expression:
    operands = [_node(condition) for condition in conditions]
    tests = [_boolean(operand, f"{operand.text:.200} in q.{name}_") for operand in operands]

    def test(document: Document) -> bool:
        for holds in tests:
            if holds(document) is decisive:
                return decisive
        return not decisive

    return _operation(name, operands, test, True)


def _negation(condition: object) -> Expression:
    operand = _node(condition)
    holds = _boolean(operand, f"{operand.text:.200} in q.not_")
    return _operation("not", [operand], lambda document: not holds(document), True)


def _boolean(node: Node, what: str) -> Callable[[Document], bool]:
    if node.boolean:
        return node.evaluate
    evaluate = node.evaluate

    def test(document: Document) -> bool:
        value = evaluate(document)
        if value is True or value is False:
            return value
        raise QueryError(f"{what} gave {_shown(value)}, expected True or False")

    return test


def _arithmetic(name: str, *operands: object) -> Expression:
    act, words = _ARITHMETIC[name]
    nodes = [_node(operand) for operand in operands]
    steps = [node.evaluate for node in nodes]

    def compute(document: Document) -> float:
        values = [step(document) for step in steps]
        for value in values:
            if type(value) is not int and type(value) is not float:
                raise _cannot(words, values, "expected int or float")
        try:
            result: float = act(*values)
        except ZeroDivisionError:
            raise _cannot(words, values, "expected a divisor other than 0; by 0.0 it is inf or nan") from None
        if type(result) is int and not INT_MIN <= result <= INT_MAX:
            raise _cannot(words, values, "the result does not fit 64 bits; use floats")
        return result

    return _operation(name, nodes, compute, False)


def _divide(a: float, b: float) -> float:
    try:
        return a / b
    except ZeroDivisionError:
        if type(a) is type(b) is int:
            raise
        return a * math.copysign(math.inf, b)  # as IEEE 754 has it: an infinity, NaN where `a` is zero


def _remainder(a: float, b: float) -> float:
    if type(a) is int and type(b) is int:
        rest = abs(a) % abs(b)
        return -rest if a < 0 else rest
    try:
        return math.fmod(a, b)
    except ValueError:  # of an infinity, or by zero
        return math.nan


_ARITHMETIC: Final[dict[str, tuple[Callable[..., Any], str]]] = {
    "add": (operator.add, "add {} and {}"),
    "sub": (operator.sub, "subtract {1} from {0}"),
    "mul": (operator.mul, "multiply {} by {}"),
    "div": (_divide, "divide {} by {}"),
    "mod": (_remainder, "take {} modulo {}"),
    "neg": (operator.neg, "negate {}"),
}


def _cannot(words: str, values: list[object], why: str) -> QueryError:
    return QueryError(f"a filter cannot {words.format(*map(_shown, values))}: {why}")


def _shown(value: object) -> str:
    return "UNSET (a missing field)" if value is UNSET else show(value)
