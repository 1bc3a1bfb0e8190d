"""What a handler's signature accepts and returns, and what it must accept."""

import datetime
import functools
from dataclasses import dataclass
from typing import Any, Literal, Optional, Required, TypedDict, Unpack

from duly.values.plain import UNSET
from duly.values.schema.annotations import Id, validator_of
from duly.values.schema.containers import OptionalValidator
from duly.values.schema.scalars import IdValidator
from duly.values.schema.signatures import arguments_of, check_handler_accepts, returns_of
from duly.values.schema.v import v
from tests.values.refusals import STORE, complaint, refusal


class Order(TypedDict):
    items: list[str]


@dataclass
class Line:
    name: str


async def greet(ctx, name: str, times: int = 1, *, anything, note: str | None = None) -> list[str]: ...


def test_a_signature_is_an_object() -> None:
    assert arguments_of(greet) == v.object(
        {
            "name": v.string(),
            "times": v.optional(v.int64()),
            "anything": v.any(),
            "note": v.optional(v.union(v.string(), v.null())),
        }
    )
    assert returns_of(greet) == v.array(v.string())


def test_a_handler_that_says_nothing_about_its_result_returns_anything() -> None:
    def silent(ctx): ...

    def nothing(ctx) -> None: ...

    assert returns_of(silent) is None
    assert returns_of(nothing) == v.null()
    assert arguments_of(silent) == v.object({})


def test_keyword_rest_takes_more_fields() -> None:
    def anything(ctx, **rest): ...

    def floats(ctx, a: str, **rest: float): ...

    assert arguments_of(anything).check({"x": None}, STORE) == {"x": None}
    assert repr(arguments_of(floats).check({"a": "s", "x": 1}, STORE)) == "{'a': 's', 'x': 1.0}"
    assert refusal(arguments_of(floats), {"a": "s", "x": "y"}) == 'at .x: expected a number, got "y"'


class Options(TypedDict, total=False):
    a: Required[int]
    b: str


def test_keyword_rest_may_take_the_fields_of_a_typed_dict() -> None:
    def exact(ctx, x: str, **options: Unpack[Options]): ...

    def text(ctx, **options: "Unpack[Options]"): ...

    assert arguments_of(exact) == v.object({"x": v.string(), "a": v.int64(), "b": v.optional(v.string())})
    assert arguments_of(text) == v.object({"a": v.int64(), "b": v.optional(v.string())})
    assert refusal(arguments_of(text), {"a": 1, "c": 2}) == "at .c: not a declared field; declared are .a, .b"

    def twice(ctx, a: int, **options: Unpack[Options]): ...

    def other(ctx, **options: Unpack[Line]): ...

    assert complaint(arguments_of, twice) == (
        "parameter options of twice(): got the field a, expected one that is no parameter beside it"
    )
    assert "got the annotation Unpack of a Line, expected that of a TypedDict" in complaint(arguments_of, other)


def test_nothing_takes_an_argument_that_python_would_take_for_ctx() -> None:
    def more(ctx, **rest): ...

    def free(ctx, /, **rest): ...

    @functools.wraps(more)
    def wrapper(context, **arguments): ...

    taken = "this is the name of the first parameter, which is ctx; expected another name"
    assert refusal(arguments_of(more), {"ctx": 1}) == f"at .ctx: {taken}"
    assert refusal(arguments_of(wrapper), {"context": 1}) == f"at .context: {taken}"
    assert arguments_of(free).check({"ctx": 1}, STORE) == {"ctx": 1}
    check_handler_accepts(free, v.object({"ctx": v.any()}))
    for handler in (more, wrapper):
        assert complaint(check_handler_accepts, handler, v.object({"ctx": v.any()})) == (
            "more() has the argument ctx, expected another name: its ctx bears that one"
        )


def test_what_wraps_a_handler_must_take_what_the_handler_takes() -> None:
    def inner(ctx, a: str, b: int = 1): ...

    @functools.wraps(inner)
    def passes(ctx, *args, **kwargs): ...

    @functools.wraps(inner)
    def some(ctx, a): ...

    @functools.wraps(inner)
    def none(ctx, *args): ...

    assert arguments_of(passes) == arguments_of(inner)
    assert complaint(arguments_of, some).startswith("inner() takes the argument b, but what wraps it does not: give")
    assert complaint(arguments_of, none).startswith("inner() takes the argument a, but what wraps it does not: give")
    assert "but what wraps it does not" in complaint(
        check_handler_accepts, some, v.object({"a": v.any(), "b": v.any()})
    )


def test_a_parameter_that_cannot_be_given_by_name_is_a_type_error() -> None:
    def position(ctx, a: str, /): ...

    def position_ctx(ctx, /, a: str): ...

    def many(ctx, *parts: str): ...

    assert complaint(arguments_of, position) == (
        "parameter a: str of position() is given by position,"
        " expected one that can be given by its name: arguments are passed as keywords"
    )
    assert complaint(arguments_of, many).startswith("parameter *parts: str of many() is given by position,")
    assert arguments_of(position_ctx) == v.object({"a": v.string()})


def test_a_handler_without_place_for_ctx_is_a_type_error() -> None:
    def nothing(): ...

    def keyword(*, ctx): ...

    def rest(*ctx): ...

    for handler in (nothing, keyword, rest):
        assert complaint(arguments_of, handler) == (
            f"{handler.__name__}() has no place for ctx, expected it as the first parameter"
        )


def test_a_first_parameter_that_is_no_ctx_is_a_type_error() -> None:
    def annotated(items: list[str]): ...

    def named(items, n=1): ...

    assert complaint(arguments_of, annotated) == (
        "annotated() has the first parameter items: list[str], expected ctx before it; call that ctx, or annotate it"
        " with the class of its ctx, such as MutationCtx"
    )
    assert "named() has the first parameter items, expected ctx before it" in complaint(arguments_of, named)
    assert "items, expected ctx" in complaint(check_handler_accepts, named, v.object({}))


def test_a_ctx_is_known_by_its_name_or_its_annotation() -> None:
    def context(context): ...

    def unused(_): ...

    def short(c): ...

    def odd(ctx: "Nowhere[int]"): ...  # noqa: F821

    def annotated(request: "duly.MutationCtx"): ...  # noqa: F821

    for handler in (context, unused, short, odd, annotated):
        assert arguments_of(handler) == v.object({})


def test_a_default_that_its_annotation_does_not_allow_is_a_type_error() -> None:
    def number(ctx, n: int = "a"): ...

    def nothing(ctx, name: str = None): ...  # noqa: RUF013

    def pair(ctx, sizes: list[int] = (1, "b")): ...

    def kind(ctx, kind: Literal["a", "b"] = "c"): ...

    assert complaint(arguments_of, number) == ('parameter n of number(): its default: expected an integer, got "a"')
    assert complaint(arguments_of, nothing).endswith("add `| None` to its annotation")
    assert "parameter sizes of pair(): its default: " in complaint(arguments_of, pair)
    assert "parameter kind of kind(): its default: " in complaint(arguments_of, kind)


def test_a_default_may_be_whatever_its_annotation_allows_and_a_mark_of_absence() -> None:
    mark = object()

    def allowed(
        ctx,
        n: float = 1,
        sizes: list[int] = (1, 2),
        at: datetime.datetime = datetime.datetime(2030, 1, 1),
        line: Line = Line("a"),  # noqa: B008
        lines: list[Line] | None = None,
        order: Id[Line] = "known only in a store",
        note: str = UNSET,
        anything=mark,
        more: Any = mark,
    ): ...

    assert all(isinstance(field, OptionalValidator) for field in arguments_of(allowed).fields.values())


def test_an_annotation_that_is_not_understood_names_its_parameter() -> None:
    def meet(ctx, at: datetime.tzinfo) -> set[int]: ...

    assert complaint(arguments_of, meet).startswith(
        "parameter at of meet(): got the annotation datetime.tzinfo, expected str,"
    )
    assert complaint(returns_of, meet).startswith("the result of meet(): got the annotation set[int], expected")


def test_string_annotations_are_looked_up_where_the_handler_was_written() -> None:
    local = Literal["x"]

    def handler(ctx: "Nowhere", line: "Line", kind: "local", ids: "list[Id[Line]]") -> "Order":  # noqa: F821
        return local  # a closure: the annotation alone would not keep the name

    assert arguments_of(handler) == v.object(
        {"line": validator_of(Line), "kind": v.literal("x"), "ids": v.array(IdValidator(None, Line))}
    )
    assert returns_of(handler) == validator_of(Order)


def test_strings_inside_annotations_are_looked_up_too() -> None:
    def handler(ctx, lines: list["Line"], owner: Optional["Id[Line]"], order: v.id("orders")): ...

    assert arguments_of(handler).fields["lines"] == v.array(Line)
    assert arguments_of(handler).fields["owner"] == v.union(IdValidator(None, Line), v.null())
    assert arguments_of(handler).fields["order"] == v.id("orders")


def test_a_validator_may_be_an_annotation_in_a_string() -> None:
    def handler(ctx, order: "v.id('orders')"): ...

    assert arguments_of(handler) == v.object({"order": v.id("orders")})


def test_a_name_that_does_not_exist_names_parameter_text_and_cause() -> None:
    def lost(ctx, line: "Lnie") -> "[": ...  # noqa: F821, F722

    def unassigned(ctx, line: "later"):
        return later

    assert complaint(arguments_of, lost) == (
        "parameter line of lost(): cannot evaluate its annotation 'Lnie' (NameError: name 'Lnie' is not defined)"
    )
    assert complaint(returns_of, lost).startswith("the result of lost(): cannot evaluate its annotation '[' (Syntax")
    assert "name 'later' is not defined" in complaint(arguments_of, unassigned)
    later = 1


def test_a_callable_object_is_a_handler() -> None:
    class Greeter:
        def __call__(self, ctx, name: str) -> None: ...

    assert arguments_of(Greeter()) == v.object({"name": v.string()})


# ---- handlers with declared arguments


DECLARED = v.object({"a": v.string(), "b": v.optional(v.string())})


def test_a_handler_accepts_what_is_declared() -> None:
    def same(ctx, a, b="x"): ...

    def more(ctx, a, b=None, c=1): ...

    def rest(ctx, **fields): ...

    for handler in (same, more, rest):
        check_handler_accepts(handler, DECLARED)


def test_a_handler_that_does_not_accept_what_is_declared_is_a_type_error() -> None:
    def lacks(ctx, a): ...

    def needs(ctx, a, b): ...

    def wants(ctx, a, c, b=None): ...

    def rest(ctx, b, **rest): ...

    assert complaint(check_handler_accepts, lacks, DECLARED) == ("lacks() has no parameter for the declared argument b")
    assert complaint(check_handler_accepts, needs, DECLARED) == (
        "parameter b of needs() has no default, expected one: its argument is declared optional"
    )
    assert complaint(check_handler_accepts, wants, DECLARED) == (
        "parameter c of wants() has no default and no declared argument"
    )
    assert "no default, expected one" in complaint(check_handler_accepts, rest, DECLARED)
    assert complaint(check_handler_accepts, lacks, v.object({"rest": v.any(), "a": v.any()})) == (
        "lacks() has no parameter for the declared argument rest"
    )
