"""Times, durations, UUIDs, decimals and enums: read from their plain form, written in one, in annotations."""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from duly.values.schema.annotations import validator_of
from duly.values.schema.fingerprints import fingerprint
from duly.values.schema.stored_forms import has_forms
from tests.values.refusals import STORE, complaint, refusal


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Access(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Odd(enum.Enum):
    NOTHING = None
    YES = True
    HALF = 0.5


KEY = UUID("cd613e30-d8f1-4adf-91b7-584a2265b1f5")
INDIA = timezone(timedelta(hours=5, minutes=30))
FORMS: list[tuple[type, Any, Any]] = [
    (datetime, datetime(2030, 1, 31, 9, tzinfo=UTC), "2030-01-31T09:00:00.000000Z"),
    (datetime, datetime(2030, 1, 31, 9, 0, 0, 500), "2030-01-31T09:00:00.000500"),
    (datetime, datetime(2030, 1, 31, 9, tzinfo=INDIA), "2030-01-31T09:00:00.000000+05:30"),
    (date, date(2030, 1, 31), "2030-01-31"),
    (time, time(9, 30), "09:30:00.000000"),
    (time, time(9, 30, tzinfo=UTC), "09:30:00.000000Z"),
    (timedelta, timedelta(hours=1, seconds=3.5), "PT1H3.5S"),
    (timedelta, timedelta(0), "PT0S"),
    (timedelta, -timedelta(days=400, minutes=1), "-P1Y35DT1M"),
    (UUID, KEY, "cd613e30-d8f1-4adf-91b7-584a2265b1f5"),
    (Decimal, Decimal("1.20"), "1.20"),
    (Decimal, Decimal("-1E+30"), "-1E+30"),
    (Colour, Colour.RED, "red"),
    (Size, Size.LARGE, 2),
    (Access, Access.READ | Access.WRITE, 3),
    (Odd, Odd.NOTHING, None),
    (Odd, Odd.YES, True),
    (Odd, Odd.HALF, 0.5),
]


@pytest.mark.parametrize(("kind", "instance", "plain"), FORMS)
def test_each_is_read_from_its_form_and_written_in_it(kind: type, instance: Any, plain: Any) -> None:
    validator = validator_of(kind)
    read = validator.check(plain, STORE)
    assert read == instance and type(read) is type(instance)
    assert validator.check(instance, STORE) is instance
    for given_value in (instance, plain):
        written = validator.plain(given_value, STORE)
        assert written == plain and type(written) is type(plain)
    assert validator.written(instance) == plain and validator.written(plain) == plain


@pytest.mark.parametrize(
    ("kind", "spelling", "plain"),
    [
        (datetime, "2030-01-31 09:00:00+00:00", "2030-01-31T09:00:00.000000Z"),
        (datetime, "2030-01-31T09:00", "2030-01-31T09:00:00.000000"),
        (timedelta, "PT90M", "PT1H30M"),
        (timedelta, "P1W", "P7D"),
        (UUID, str(KEY).upper(), str(KEY)),
        (Size, 2.0, 2),
    ],
)
def test_another_spelling_is_stored_as_instances_are(kind: type, spelling: Any, plain: Any) -> None:
    written = validator_of(kind).plain(spelling, STORE)
    assert written == plain and type(written) is type(plain)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (datetime, "2030-01-31", 'expected a datetime such as "2030-01-31T09:00:00Z", got "2030-01-31"'),
        (datetime, 1.9e12, 'expected a datetime such as "2030-01-31T09:00:00Z", got 1900000000000.0 (float)'),
        (datetime, date(2030, 1, 31), "got datetime.date(2030, 1, 31) (date)"),
        (date, datetime(2030, 1, 31), "got datetime.datetime(2030, 1, 31, 0, 0) (datetime)"),
        (date, "2030-01-31T09:00:00Z", 'expected a date such as "2030-01-31", got "2030-01-31T09:00:00Z"'),
        (time, "25:00", 'expected a time such as "09:00:00", got "25:00"'),
        (timedelta, "P", 'expected a duration such as "PT1H30M", got "P"'),
        (timedelta, "PT", "expected a duration"),
        (timedelta, "P9999999999D", "expected a duration"),
        (timedelta, 5, "expected a duration"),
        (UUID, "cd613e30d8f14adf91b7584a2265b1f5", "expected a UUID such as"),
        (Decimal, 1.2, 'expected a decimal such as "1.20", got 1.2 (float)'),
        (Decimal, "1_0", "expected a decimal"),
        (Decimal, "one", "expected a decimal"),
        (Colour, "RED", 'expected a Colour, one of "red", "blue", got "RED"'),
        (Size, True, "expected a Size, one of 1, 2, got True (bool)"),
        (Size, "1", 'got "1"'),
        (Colour, Size.SMALL, "got <Size.SMALL: 1> (Size)"),
        (Odd, 1, "expected an Odd, one of None, True, 0.5, got 1 (int)"),
    ],
)
def test_what_is_no_such_thing_is_refused(kind: type, value: Any, message: str) -> None:
    assert message in refusal(validator_of(kind), value)


def test_they_stand_wherever_annotations_do() -> None:
    annotation = dict[str, list[datetime | date | None] | Colour]
    value = {"a": [datetime(2030, 1, 1), date(2030, 1, 2), None], "b": Colour.BLUE}
    plain = {"a": ["2030-01-01T00:00:00.000000", "2030-01-02", None], "b": "blue"}
    validator = validator_of(annotation)
    assert validator.plain(value, STORE) == plain and validator.written(value) == plain
    assert validator.check(plain, STORE) == value
    assert has_forms(validator) and not has_forms(validator_of(dict[str, list[int] | None]))


def test_they_may_be_the_keys_of_a_dict_where_they_are_text() -> None:
    for annotation, key, text in ((dict[Colour, int], Colour.RED, "red"), (dict[UUID, int], KEY, str(KEY))):
        validator = validator_of(annotation)
        assert validator.check({text: 1}, STORE) == {key: 1}
        assert validator.plain({key: 1}, STORE) == validator.plain({text: 1}, STORE) == {text: 1}
        assert validator.written({key: 1}) == {text: 1} and validator.written({text: 1}) == {text: 1}
    assert "at  (key " not in refusal(validator_of(dict[Colour, int]), {"green": 1})
    assert refusal(validator_of(dict[Colour, int]), {"green": 1}).endswith(
        'expected a Colour, one of "red", "blue", got "green"'
    )
    assert complaint(validator_of, dict[Size, int]) == "the keys of a record are strings or ids, got Size"


def test_in_a_union_the_first_that_reads_a_text_decides() -> None:
    assert validator_of(UUID | str).check(str(KEY), STORE) == KEY
    assert validator_of(str | UUID).check(str(KEY), STORE) == str(KEY)
    assert validator_of(datetime | float).check(5, STORE) == 5.0
    assert refusal(validator_of(datetime | None), 5) == (
        'expected a datetime such as "2030-01-31T09:00:00Z" or null, got 5 (int)'
    )


def test_what_does_not_fit_is_left_as_it_is_by_writing() -> None:
    validator = validator_of(dict[str, datetime])
    assert validator.written({"a": 5, "b": datetime(2030, 1, 1)}) == {"a": 5, "b": "2030-01-01T00:00:00.000000"}
    assert validator.written(5) == 5


def test_an_enum_of_other_things_than_plain_values_is_a_type_error() -> None:
    class Corner(enum.Enum):
        TOP = (0, 1)

    assert complaint(validator_of, Corner) == (
        "got the enum Corner with the value (0, 1) (tuple), expected values that are strings, numbers, booleans or"
        " None: members are stored by their values"
    )


def test_an_enum_without_members_is_a_type_error() -> None:
    assert complaint(validator_of, enum.Enum) == ("got the enum Enum, which has no members, expected one that has some")


def test_an_enum_with_another_member_is_another_declaration() -> None:
    def colours(*values: str) -> Any:
        return enum.Enum("Colour", [(value.upper(), value) for value in values])

    one = fingerprint(validator_of(colours("red", "blue")))
    assert one == fingerprint(validator_of(colours("red", "blue")))
    assert one != fingerprint(validator_of(colours("red", "green")))
    assert fingerprint(validator_of(datetime)) != fingerprint(validator_of(date))


def _whole(at: datetime) -> datetime:
    return at.replace(microsecond=0)


@given(
    st.datetimes(timezones=st.none() | st.just(UTC) | st.just(INDIA))
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.uuids()
    | st.decimals(allow_nan=False)
)
def test_all_come_back_as_they_went_and_pydantic_reads_the_same(value: Any) -> None:
    validator = validator_of(type(value))
    text = validator.plain(value, STORE)
    assert validator.check(text, STORE) == value
    adapter = TypeAdapter[Any](type(value))
    if not isinstance(value, datetime | time):  # of which pydantic writes no fraction of zero
        assert adapter.dump_python(value, mode="json") == text
    if not (isinstance(value, Decimal) and not value.is_finite()):
        assert adapter.validate_python(text) == value


@given(*[st.datetimes(timezones=st.just(UTC)) | st.datetimes(timezones=st.just(UTC)).map(_whole)] * 2)
def test_the_texts_of_times_of_one_zone_sort_as_the_times_do(one: datetime, other: datetime) -> None:
    for kind, first, second in ((datetime, one, other), (time, one.timetz(), other.timetz())):
        texts = [validator_of(kind).plain(value, STORE) for value in (first, second)]
        assert (texts[0] < texts[1], texts[0] == texts[1]) == (first < second, first == second)
