"""The nodes of a filter: each operator compiled, as it is made, into a function of a document.

Nodes are never walked afterwards, so the depth of a filter costs no recursion.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

import orjson

from duly.errors import LimitError, QueryError
from duly.limits import FILTER_OPERATORS_MAX, OF_ANY_SIZE
from duly.values.index_keys import compare, field_of
from duly.values.json import INT_MAX, INT_MIN, Document, NotAValueError, dumps, loads
from duly.values.plain import UNSET
from duly.values.schema.field_paths import written_at
from duly.values.schema.stored_forms import check_order
from duly.values.schema.validator import Validator
from duly.values.text import show

Evaluate: TypeAlias = Callable[[Document], Any]
"""A compiled expression."""


class Node(NamedTuple):
    """One compiled expression."""

    text: str
    """A text that only equal expressions share."""
    evaluate: Evaluate
    operators: int = 0
    boolean: bool = False
    """Whether its value is certain to be True or False."""
    write: Callable[[object], object] = lambda value: value
    """Converts a value that is compared with it to the form that documents store, such as the text of a datetime."""


def node_of(operand: object, other: object = None) -> Node:
    """Return the node of an operand: a node itself, or a value, converted to the form of the `other` operand."""
    if isinstance(operand, Node):
        return operand
    if operand is UNSET:
        return Node("UNSET", _constant(UNSET))
    try:
        try:
            text = dumps(operand, OF_ANY_SIZE)
        except NotAValueError:  # it may be a datetime, which documents store as text
            if not isinstance(other, Node):
                raise
            text = dumps(other.write(operand), OF_ANY_SIZE)
    except NotAValueError as error:
        raise QueryError(f"a filter: an operand: {error}") from None
    value = loads(text)  # a copy of its own, plain where it was a model
    sorted_text = orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS).decode()
    return Node(sorted_text, _constant(value), boolean=type(value) is bool)


def _constant(value: object) -> Evaluate:
    return lambda _: value


def _operation(name: str, operands: list[Node], evaluate: Evaluate, boolean: bool) -> Node:
    operators = 1 + sum(operand.operators for operand in operands)
    if operators > FILTER_OPERATORS_MAX:  # checked at once, because it also limits the depth of nesting
        raise LimitError(
            f"got {operators} operators in the filters of one query, expected at most {FILTER_OPERATORS_MAX}"
            " (FILTER_OPERATORS_MAX); look at the documents in Python instead"
        )
    return Node(f"{name}({','.join(operand.text for operand in operands)})", evaluate, operators, boolean)


def field(path: object, document: Validator | None) -> Node:
    """Return the field at a path; UNSET if a document does not have it."""
    if not isinstance(path, str) or not all(path.split(".")):
        raise QueryError(f'a filter: got q.field({show(path)}), expected a name, or a path such as "address.city"')

    def nested(document: Document) -> object:
        return field_of(document, path)

    def top(document: Document) -> object:
        return document.get(path, UNSET)

    evaluate = nested if "." in path else top
    return Node(f"field({node_of(path).text})", evaluate, write=partial(written_at, document, path))


_ORDERS: Final = {"eq": (0,), "neq": (-1, 1), "lt": (-1,), "lte": (-1, 0), "gt": (1,), "gte": (0, 1)}


def comparison(name: str, a: object, b: object) -> Node:
    """Return whether two operands compare as `name` says: eq, neq, lt, lte, gt or gte."""
    wanted = _ORDERS[name]
    if name not in ("eq", "neq"):
        check_order((a, b), f"a filter: q.{name}")
    operands = [node_of(a, b), node_of(b, a)]
    first, second = operands[0].evaluate, operands[1].evaluate
    return _operation(name, operands, lambda document: compare(first(document), second(document)) in wanted, True)


def logic(name: str, decisive: bool, conditions: tuple[object, ...]) -> Node:
    """Return `and` or `or`: the first condition with the `decisive` value decides, later ones are not evaluated."""
    operands = [node_of(condition) for condition in conditions]
    tests = [boolean_test(operand, f"{operand.text:.200} in q.{name}_") for operand in operands]

    def test(document: Document) -> bool:
        for holds in tests:
            if holds(document) is decisive:
                return decisive
        return not decisive

    return _operation(name, operands, test, True)


def negation(condition: object) -> Node:
    """Return whether a condition does not hold."""
    operand = node_of(condition)
    holds = boolean_test(operand, f"{operand.text:.200} in q.not_")
    return _operation("not", [operand], lambda document: not holds(document), True)


def boolean_test(node: Node, what: str) -> Callable[[Document], bool]:
    """Return the node as a test of documents. The test raises QueryError for a value that is no boolean."""
    if node.boolean:
        return node.evaluate
    evaluate = node.evaluate

    def test(document: Document) -> bool:
        value = evaluate(document)
        if value is True or value is False:
            return value
        raise QueryError(f"{what} gave {_text_of(value)}, expected True or False")

    return test


def arithmetic(name: str, *operands: object) -> Node:
    """Return a computation with numbers: add, sub, mul, div, mod or neg."""
    act, words = _ARITHMETIC[name]
    nodes = [node_of(operand) for operand in operands]
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
    return QueryError(f"a filter cannot {words.format(*map(_text_of, values))}: {why}")


def _text_of(value: object) -> str:
    return "UNSET (a missing field)" if value is UNSET else show(value)
