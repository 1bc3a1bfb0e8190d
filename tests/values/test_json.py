"""Values keep their type through JSON, and what is no value is refused with the place it stands at."""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from datetime import datetime
from enum import Enum, IntEnum
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duly.errors import LimitError, ValidationError
from duly.limits import Limits
from duly.values.json import check_document, check_size, dumps, loads, size
from duly.values.plain import UNSET, to_plain

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary(max_size=20)
)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(lambda name: name[:1] != "$")
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=20
)


class Colour(Enum):
    RED = "red"


class Text(str, Enum):  # noqa: UP042  its str() is another than that of a StrEnum
    TEA = "tea"

    def __str__(self) -> str:
        return "another text"


class Number(IntEnum):
    ONE = 1


class Double(float):
    """Such as numpy.float64."""

    def __repr__(self) -> str:
        return "np.float64(1.5)"


class Blob(bytes):
    pass


class Point(NamedTuple):
    x: float
    y: float


class Fields(dict[str, Any]):
    def copy(self) -> Any:
        raise AssertionError("a subclass may do anything")


class Items(list[Any]):
    def copy(self) -> Any:
        raise AssertionError("a subclass may do anything")


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


@given(values)
def test_a_value_comes_back_from_json_as_it_went(value: Any) -> None:
    assert loads(dumps(value)) == value
    assert repr(loads(dumps(value))) == repr(value)  # 1 and 1.0, 0.0 and -0.0 are told apart


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinities_come_back(value: float) -> None:
    assert loads(dumps([value])) == [value]


def test_nan_comes_back() -> None:
    assert math.isnan(loads(dumps({"x": math.nan}))["x"])


def test_text_that_looks_like_an_escape_stays_text() -> None:
    assert loads(dumps({"price": "$bytes", "a": ['"$float"']})) == {"price": "$bytes", "a": ['"$float"']}


def test_bytes_are_readable_in_json() -> None:
    assert dumps({"b": b"hi"}) == '{"b":{"$bytes":"aGk="}}'


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"tags": {1}},
            "at .tags: got {1} (set), expected a value: None, bool, int, float, str, bytes, list or dict; use a list",
        ),
        ({"n": [0, 2**63]}, "at .n[1]: got an int of 65 bits, expected at most 64; use a float or a str"),
        (-(2**63) - 1, "got an int of 65 bits, expected at most 64; use a float or a str"),
        ({"a": {"$b": 1}}, "at .a.$b: got the field name '$b', expected one that does not start with '$'"),
        ({"é" * 1025: 1}, "of 1,025 characters, expected at most 1,024 (FIELD_NAME_LENGTH_MAX)"),
        ({"a\ud800": 1}, "got text with a lone surrogate, expected Unicode text"),
        ({"a": [UNSET]}, "at .a[0]: got UNSET (Unset), expected a value"),
        ({"a": (1, UNSET)}, "at .a[1]: got UNSET (Unset), expected a value"),
        (UNSET, "got UNSET (Unset), expected a value"),
        ({"a": bytearray(b"x")}, "at .a: got bytearray(b'x') (bytearray), expected a value"),
        ({"at": datetime(2030, 1, 1)}, "name it in an annotation, such as `at: datetime`"),
        ({"kind": Colour.RED}, "name it in an annotation, such as `kind: Colour`"),
        ({1: 2}, "got the field name 1 (int), expected a str"),
        (nested(17), "got a value nested more than 16 levels deep, expected at most 16"),
        ([0] * 8193, "got an array of 8193 elements, expected at most 8192"),
        ({str(n): n for n in range(1025)}, "got an object of 1025 fields, expected at most 1024"),
        ("\ud800", "got text with a lone surrogate, expected Unicode text"),
    ],
)
def test_what_is_no_value_is_refused_with_its_place(value: Any, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        dumps(value)
    assert message in str(caught.value)


def test_the_bounds_themselves_are_values() -> None:
    for value in (nested(16), [0] * 8192, {f"f{n}": n for n in range(1024)}, 2**63 - 1, -(2**63), {"é" * 1024: 1}):
        assert loads(dumps(value)) == value


def test_documents_leave_the_systems_names_alone() -> None:
    with pytest.raises(
        ValidationError, match="orders.insert: got the field '_id', expected names that do not start with '_'"
    ):
        check_document({"_id": "x"}, "orders.insert")
    with pytest.raises(ValidationError, match=r"orders.insert: got \[1\] \(list\), expected a dict"):
        check_document([1], "orders.insert")
    assert check_document({"a": {"_b": 1}}, "orders.insert") == {"a": {"_b": 1}}


SUBCLASSES = [
    (Text.TEA, "tea"),
    (Number.ONE, 1),
    (Double(1.5), 1.5),
    (Double("inf"), math.inf),
    (Blob(b"x"), b"x"),
    (OrderedDict(a=1), {"a": 1}),
    (defaultdict(list, a=[1]), {"a": [1]}),
    (Fields(a=Fields(b=())), {"a": {"b": []}}),
    (Items([Items()]), [[]]),
    ((1, "a"), [1, "a"]),
    (Point(1, Double(2)), [1, 2.0]),
    ({Text.TEA: 1}, {"tea": 1}),
    ({Text.TEA: b"x"}, {"tea": b"x"}),
]


@pytest.mark.parametrize(("value", "plain"), SUBCLASSES)
def test_instances_of_subclasses_and_tuples_are_plain_values_at_every_place(value: Any, plain: Any) -> None:
    for held, expected in ((value, plain), ([value], [plain]), ({"a": [value]}, {"a": [plain]})):
        kept = loads(dumps(held))
        assert kept == expected and repr(kept) == repr(expected)
        made = to_plain(held)
        assert made == expected and (type(made) is type(expected))


def test_a_field_that_is_unset_is_left_out_and_counts_for_nothing() -> None:
    assert dumps({"a": UNSET, "b": {"c": UNSET, "d": [{"e": UNSET}]}}) == '{"b":{"d":[{}]}}'
    assert dumps({"a": UNSET, **{str(n): n for n in range(1024)}}) == dumps({str(n): n for n in range(1024)})
    document = {"a": UNSET, "b": 1}
    assert to_plain(document) == {"b": 1} and document == {"a": UNSET, "b": 1}


def test_bytes_count_as_many_as_they_are() -> None:
    for length in (0, 1, 2, 3, 4, 100_000):
        assert size(dumps(b"x" * length)) == length + 2
        assert size(dumps("x" * length)) == length + 2
        assert size(dumps({"a": [b"x" * length, "é", b""]})) == len('{"a":["","é",""]}'.encode()) + length
    assert size(dumps({"a": '{"$bytes":"aGk="}'})) == len(dumps({"a": '{"$bytes":"aGk="}'}))
    assert check_size(dumps(b"x" * 8), Limits(document_bytes_max=10), "document_bytes_max", "it")
    with pytest.raises(LimitError, match=r"it: got 11 bytes, expected at most 10 \(document_bytes_max\)"):
        check_size(dumps(b"x" * 9), Limits(document_bytes_max=10), "document_bytes_max", "it")


def test_a_size_is_counted_in_bytes() -> None:
    assert check_size("é" * 5, Limits(document_bytes_max=10), "document_bytes_max", "it") == "é" * 5
    with pytest.raises(LimitError, match=r"it: got 12 bytes, expected at most 10 \(document_bytes_max\)"):
        check_size("é" * 6, Limits(document_bytes_max=10), "document_bytes_max", "it")
