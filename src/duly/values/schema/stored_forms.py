"""Types with a stored form: times, durations, UUIDs and decimals are stored as text, members of enums by value."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

from duly.errors import QueryError
from duly.values.schema.validator import Ids, Kinds, Validator
from duly.values.text import show
from duly.values.times import written_time


class _Form(NamedTuple):
    """How instances of a class are written as text, and read."""

    name: str
    example: str
    write: Callable[[Any], str]
    read: Callable[[str], object]
    """Raises a ValueError for other texts."""


class FormValidator(Validator):
    """Accepts instances of a class and their stored form. The checked value is an instance."""

    __slots__ = ("kind",)

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def check(self, value: Any, ids: Ids) -> Any:
        return value if self.is_instance(value) else self.read(value)

    def written(self, value: Any) -> Any:
        return self.write(value) if self.is_instance(value) else value

    def is_instance(self, value: object) -> bool:
        """Return whether a value is an instance, as opposed to a stored form."""
        return isinstance(value, self.kind)

    def write(self, value: Any) -> Any:
        """Return the stored form of an instance."""
        raise NotImplementedError

    def read(self, value: Any) -> Any:
        """Return the instance of a stored form, or raise Mismatch."""
        raise NotImplementedError

    def shaped(self) -> Validator:
        return _FormShape(self)

    def describe(self) -> str:
        return self.kind.__name__

    def parts(self) -> tuple[object, ...]:
        return (self.kind,)


class TextFormValidator(FormValidator):
    """The validator of a class stored as text. A text in another spelling is stored in the spelling of instances."""

    __slots__ = ("_form",)

    def __init__(self, kind: type) -> None:
        super().__init__(kind)
        self._form = _FORMS[kind]

    def is_instance(self, value: object) -> bool:
        # In Python a datetime is a date, but stored as a date it would lose its time.
        return isinstance(value, self.kind) and (self.kind is not date or not isinstance(value, datetime))

    def write(self, value: Any) -> str:
        return self._form.write(value)

    def read(self, value: Any) -> Any:
        if isinstance(value, str):
            try:
                return self._form.read(value)
            except (ValueError, InvalidOperation, OverflowError):
                pass
        raise self.mismatch(value)

    def kinds(self) -> Kinds:
        return frozenset((str, self.kind))

    def describe(self) -> str:
        return self._form.name

    def expected(self) -> str:
        return f'{super().expected()} such as "{self._form.example}"'


class EnumValidator(FormValidator):
    """The validator of an enum, whose members are stored by value. `True` is not a number here either."""

    __slots__ = ("_values",)

    def __init__(self, kind: type[Enum]) -> None:
        super().__init__(kind)
        self._values = tuple(member.value for member in kind)
        if not self._values:
            raise TypeError(f"got the enum {kind.__name__}, which has no members, expected one that has some")
        for value in self._values:
            if type(value) not in (str, int, float, bool, type(None)):
                raise TypeError(
                    f"got the enum {kind.__name__} with the value {show(value)}, expected values that are strings,"
                    " numbers, booleans or None: members are stored by their values"
                )

    def write(self, value: Enum) -> Any:
        return value.value

    def read(self, value: Any) -> Any:
        if any(_sort(value) is _sort(known) for known in self._values):
            try:
                member = self.kind(value)
            except ValueError:
                raise self.mismatch(value) from None
            if _sort(member.value) is _sort(value):
                return member
        raise self.mismatch(value)

    def kinds(self) -> Kinds:
        sorts = {_sort(value) for value in self._values}
        return frozenset((*sorts, self.kind, *((int,) if float in sorts else ())))

    def expected(self) -> str:
        return f"{super().expected()}, one of {', '.join(map(_literal, self._values))}"

    def parts(self) -> tuple[object, ...]:
        return self.kind, tuple(map(_literal, self._values))


class _FormShape(Validator):
    """Converts instances, and stored forms in other spellings, to the stored form."""

    __slots__ = ("_form",)

    def __init__(self, form: FormValidator) -> None:
        self._form = form

    def check(self, value: Any, ids: Ids) -> Any:
        return self._form.write(self._form.check(value, ids))

    def shaped(self) -> Validator:
        return self

    def kinds(self) -> Kinds:
        return self._form.kinds()

    def describe(self) -> str:
        return self._form.describe()

    def expected(self) -> str:
        return self._form.expected()

    def parts(self) -> tuple[object, ...]:
        return (self._form,)


def form_of(annotation: object) -> FormValidator | None:
    """Return the validator of a class with a stored form, None for other classes.

    >>> form_of(date).check("2030-01-31", ids)
    datetime.date(2030, 1, 31)
    """
    if not isinstance(annotation, type):
        return None
    kind = cast("type[object]", annotation)
    if issubclass(kind, Enum):
        return EnumValidator(kind)
    return TextFormValidator(kind) if kind in _FORMS else None


def has_forms(validator: Validator) -> bool:
    """Return whether a validator, or a part of it, is of a class with a stored form."""
    found: list[Validator] = []

    def look(part: Validator) -> Validator:
        if isinstance(part, FormValidator):
            found.append(part)
        return part.over(look)

    look(validator)
    return bool(found)


def check_order(value: object, what: str) -> None:
    """Raise a QueryError for a value that `<` and the like cannot compare, because its stored text sorts differently.

    >>> check_order(Decimal("1.20"), "orders.by_price: comparing 'price'")
    Traceback (most recent call last):
    duly.errors.QueryError: orders.by_price: comparing 'price': got Decimal('1.20') (Decimal): decimals are stored as …
    """
    for kind, words in _WITHOUT_ORDER:
        if isinstance(value, kind):
            raise QueryError(f"{what}: got {show(value)}: {words}; only equality can be asked for")
    if isinstance(value, list | tuple):
        for item in cast("list[object]", value):
            check_order(item, what)


_WITHOUT_ORDER: Final = (
    (Decimal, "decimals are stored as text and sort as text; keep cents as an int, or a float"),
    (timedelta, "durations are stored as text and sort as text; keep milliseconds as a number"),
)


def _sort(value: object) -> type:
    return float if type(value) is int else type(value)


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


# The texts are those of pydantic, so that a dataclass can become a model, and a model a dataclass.


def _read_datetime(text: str) -> datetime:
    if len(text) <= len("2030-01-31"):
        raise ValueError("a date is no datetime")
    return datetime.fromisoformat(text)


def _write_duration(value: timedelta) -> str:
    sign, length = ("-", -value) if value < timedelta(0) else ("", value)
    years, days = divmod(length.days, 365)
    minutes, seconds = divmod(length.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{length.microseconds:06}".rstrip("0") if length.microseconds else ""
    whole = "".join(f"{count}{unit}" for count, unit in ((years, "Y"), (days, "D")) if count)
    part = "".join(f"{count}{unit}" for count, unit in ((hours, "H"), (minutes, "M")) if count)
    if seconds or fraction:
        part += f"{seconds}{fraction}S"
    return f"{sign}P{whole}{part and f'T{part}'}" if whole or part else "PT0S"


_DURATION: Final = re.compile(
    r"([+-]?)P(?!$)(?:(\d+)Y)?(?:(\d+)W)?(?:(\d+)D)?(?:T(?!$)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:\.(\d{1,6}))?S)?)?",
    re.ASCII,
)


def _read_duration(text: str) -> timedelta:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError("no duration")
    years, weeks, days, hours, minutes, seconds = (int(part or 0) for part in match.groups()[1:7])
    microseconds = int((match[8] or "0").ljust(6, "0"))
    length = timedelta(365 * years + 7 * weeks + days, seconds, microseconds, 0, minutes, hours)
    return -length if match[1] == "-" else length


def _read_uuid(text: str) -> UUID:
    if len(text) != 36:  # Python reads more spellings than the one with hyphens
        raise ValueError("no UUID")
    return UUID(text)


def _read_decimal(text: str) -> Decimal:
    if "_" in text or text != text.strip():
        raise ValueError("no number")
    return Decimal(text)


_FORMS: Final[dict[type, _Form]] = {
    datetime: _Form("datetime", "2030-01-31T09:00:00Z", written_time, _read_datetime),
    date: _Form("date", "2030-01-31", date.isoformat, date.fromisoformat),
    time: _Form("time", "09:00:00", written_time, time.fromisoformat),
    timedelta: _Form("duration", "PT1H30M", _write_duration, _read_duration),
    UUID: _Form("UUID", "cd613e30-d8f1-4adf-91b7-584a2265b1f5", str, _read_uuid),
    Decimal: _Form("decimal", "1.20", str, _read_decimal),
}
