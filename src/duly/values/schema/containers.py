"""The validators of values that hold others (arrays, objects, records), and of unions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

from duly.values.schema.scalars import (
    AnyValidator,
    FloatValidator,
    IdValidator,
    IntValidator,
    LiteralValidator,
    NumberValidator,
)
from duly.values.schema.validator import Ids, Kinds, Mismatch, Validator
from duly.values.text import show, step

_MISSING: Final = object()
_NAMES_MAX: Final = 20


class ArrayValidator(Validator):
    """Accepts lists whose elements all fit."""

    __slots__ = ("element",)

    def __init__(self, element: Validator) -> None:
        self.element = element

    def check(self, value: Any, ids: Ids) -> Any:
        given: Any = value
        if not isinstance(value, list):
            raise self.mismatch(value)
        result, sure, check = given, self.element.sure, self.element.check
        for index, item in enumerate(given):
            if type(item) is sure:
                continue
            try:
                checked = check(item, ids)
            except Mismatch as mismatch:
                mismatch.under(f"[{index}]")
                raise
            if checked is not item:
                result = given.copy() if result is given else result
                result[index] = checked
        return result

    def over(self, change: Callable[[Validator], Validator]) -> Validator:
        element = change(self.element)
        return self if element is self.element else ArrayValidator(element)

    def written(self, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        given = cast("list[object]", value)
        return _changed(given, ((index, self.element.written(item)) for index, item in enumerate(given)))

    def kinds(self) -> Kinds:
        return frozenset((list,))

    def describe(self) -> str:
        return f"array of {_many(self.element)}"

    def parts(self) -> tuple[object, ...]:
        return (self.element,)


class OptionalValidator(Validator):
    """Marks a field of an object that may be missing, which is not the same as null."""

    __slots__ = ("member",)

    def __init__(self, member: Validator) -> None:
        self.member = member

    def check(self, value: Any, ids: Ids) -> Any:
        return self.member.check(value, ids)

    def written(self, value: Any) -> Any:
        return self.member.written(value)

    def over(self, change: Callable[[Validator], Validator]) -> Validator:
        member = change(self.member)
        return self if member is self.member else OptionalValidator(member)

    def kinds(self) -> Kinds:
        return self.member.kinds()

    def describe(self) -> str:
        return f"optional {self.member.describe()}"

    def parts(self) -> tuple[object, ...]:
        return (self.member,)


class ObjectValidator(Validator):
    """Accepts dicts with the declared fields. `rest` is the validator of all other fields; None refuses them.

    `name` names the object in messages, `model` is the class that it was made from. If that class describes the
    documents of a table, the fields of the system are allowed too.
    """

    __slots__ = ("_plan", "fields", "model", "name", "rest")

    def __init__(
        self,
        fields: Mapping[str, Validator],
        rest: Validator | None = None,
        name: str = "object",
        model: type | None = None,
    ) -> None:
        self.fields = fields
        self.rest = rest
        self.name = name
        self.model = model
        # For a check without look-ups of attributes: name, sure type, check, whether the field is required.
        present = {key: present_field(part) for key, part in fields.items()}
        self._plan = tuple((key, part.sure, part.check, part is fields[key]) for key, part in present.items())

    def check(self, value: Any, ids: Ids) -> Any:
        given: Any = value
        if not isinstance(value, dict):
            raise self.mismatch(value)
        result, unseen = given, len(given)
        for key, sure, check, is_required in self._plan:
            item = given.get(key, _MISSING)
            if item is _MISSING:
                if is_required:
                    raise self._missing(key, given)
                continue
            unseen -= 1
            if type(item) is sure:
                continue
            try:
                checked = check(item, ids)
            except Mismatch as mismatch:
                mismatch.under(step(key))
                raise
            if checked is not item:
                result = given.copy() if result is given else result
                result[key] = checked
        return self._check_rest(given, result, ids) if unseen else result

    def _check_rest(self, given: dict[str, Any], result: dict[str, Any], ids: Ids) -> dict[str, Any]:
        for key in given:
            if key in self.fields:
                continue
            if self.rest is None:
                raise self._undeclared(key)
            checked = _check_item(self.rest, given, key, ids)
            if checked is not given[key]:
                result = given.copy() if result is given else result
                result[key] = checked
        return result

    def written(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        given, rest = cast("dict[str, Any]", value), self.rest or AnyValidator()
        return _changed(given, ((key, self.fields.get(key, rest).written(item)) for key, item in given.items()))

    def _missing(self, key: str, given: dict[str, Any]) -> Mismatch:
        others = [] if self.rest else [step(name) for name in given if name not in self.fields]
        misspelled = f"; there is {others[0]}, which is not declared" if others else ""
        return Mismatch(f"missing required field of type {self.fields[key].describe()}{misspelled}").under(step(key))

    def _undeclared(self, key: object) -> Mismatch:
        names = [step(name) for name in self.fields]
        more = f" and {len(names) - _NAMES_MAX} more" if len(names) > _NAMES_MAX else ""
        listed = f"declared are {', '.join(names[:_NAMES_MAX])}{more}" if names else "no field is declared"
        return Mismatch(f"not a declared field; {listed}").under(step(key))

    def over(self, change: Callable[[Validator], Validator]) -> Validator:
        fields = {key: change(part) for key, part in self.fields.items()}
        rest = self.rest and change(self.rest)
        same = rest is self.rest and all(fields[key] is part for key, part in self.fields.items())
        return self if same else ObjectValidator(fields, rest, self.name, self.model)

    def bind(self, tables: Mapping[type, str]) -> Validator:
        bound = super().bind(tables)
        if self.model is None or self.model not in tables or not isinstance(bound, ObjectValidator):
            return bound
        system = {"_id": IdValidator(tables[self.model]), "_creationTime": NumberValidator()}
        optional = {name: OptionalValidator(validator) for name, validator in system.items()}
        return ObjectValidator({**bound.fields, **optional}, self.rest, self.name, self.model)

    def pick(self, *names: str) -> ObjectValidator:
        """Return the validator of an object with these fields only.

        >>> v.object({"a": v.string(), "b": v.number()}).pick("a") == v.object({"a": v.string()})
        True
        """
        self._check_declared("pick", names)
        return ObjectValidator({name: self.fields[name] for name in names}, self.rest)

    def omit(self, *names: str) -> ObjectValidator:
        """Return the validator of an object without these fields."""
        self._check_declared("omit", names)
        return ObjectValidator({name: part for name, part in self.fields.items() if name not in names}, self.rest)

    def partial(self) -> ObjectValidator:
        """Return the validator of an object with the same fields, all optional: an argument for `ctx.db.patch`."""
        return ObjectValidator(
            {name: OptionalValidator(present_field(part)) for name, part in self.fields.items()}, self.rest
        )

    def extend(self, fields: Mapping[str, Validator]) -> ObjectValidator:
        """Return the validator of an object with more fields. A field with the name of an existing one replaces it."""
        for name, part in fields.items():
            if not isinstance(part, Validator):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"extend: got {show(part)} for the field {show(name)}, expected a validator")
        return ObjectValidator({**self.fields, **fields}, self.rest)

    def _check_declared(self, method: str, names: tuple[str, ...]) -> None:
        for name in names:
            if name not in self.fields:
                raise TypeError(f"{method}: got the field {show(name)}, which is {self._undeclared(name).problem}")

    def kinds(self) -> Kinds:
        return frozenset((dict,))

    def describe(self) -> str:
        return self.name

    def parts(self) -> tuple[object, ...]:
        return frozenset(self.fields.items()), self.rest


class RecordValidator(Validator):
    """Accepts dicts whose keys are data: one validator for all keys, one for all values."""

    __slots__ = ("keys", "values")

    def __init__(self, keys: Validator, values: Validator) -> None:
        if (keys.kinds() or frozenset()) & _JSON_KINDS != frozenset((str,)):  # a member of an enum may be a text
            raise TypeError(f"the keys of a record are strings or ids, got {keys.describe()}")
        self.keys = keys
        self.values = values

    def check(self, value: Any, ids: Ids) -> Any:
        given: Any = value
        if not isinstance(value, dict):
            raise self.mismatch(value)
        result, sure, renamed = given, self.values.sure, False
        for key, item in given.items():
            renamed = self._check_key(key, ids) is not key or renamed
            if type(item) is sure:
                continue
            checked = _check_item(self.values, given, key, ids)
            if checked is not item:
                result = given.copy() if result is given else result
                result[key] = checked
        return {self._check_key(key, ids): item for key, item in result.items()} if renamed else result

    def written(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        given = cast("dict[object, Any]", value)
        changed = _changed(given, ((key, self.values.written(item)) for key, item in given.items()))
        names = {key: self.keys.written(key) for key in given}
        if all(name is key for key, name in names.items()):
            return changed
        return {names[key]: item for key, item in changed.items()}

    def _check_key(self, key: Any, ids: Ids) -> Any:
        """Return the checked key: the text of a member of an enum becomes the member."""
        if type(key) is self.keys.sure:
            return key
        try:
            return self.keys.check(key, ids)
        except Mismatch as mismatch:
            mismatch.under(f" (key {show(key)})")
            raise

    def over(self, change: Callable[[Validator], Validator]) -> Validator:
        keys, values = change(self.keys), change(self.values)
        same = keys is self.keys and values is self.values
        return self if same else RecordValidator(keys, values)

    def kinds(self) -> Kinds:
        return frozenset((dict,))

    def describe(self) -> str:
        return f"record of {_many(self.values)}"

    def parts(self) -> tuple[object, ...]:
        return self.keys, self.values


class UnionValidator(Validator):
    """Accepts what one of its members accepts. The first such member decides about conversions.

    A number that some member accepts unchanged stays unchanged: `int | float` converts none.
    """

    __slots__ = ("members", "_by_kind")

    def __init__(self, *members: Validator) -> None:
        flat: list[Validator] = []
        for member in members:
            flat.extend(member.members if isinstance(member, UnionValidator) else (member,))
        self.members: tuple[Validator, ...] = tuple(flat)
        self._by_kind: dict[type, tuple[Validator, ...]] = {kind: self._candidates(kind) for kind in _JSON_KINDS}

    def _candidates(self, kind: type) -> tuple[Validator, ...]:
        """Return the members that may accept values of a type. The members that would convert such values come last."""
        accepting = [part for part in self.members if (kinds := part.kinds()) is None or kind in kinds]
        converting = {int: FloatValidator, float: IntValidator}.get(kind, ())
        return tuple(sorted(accepting, key=lambda part: isinstance(part, converting)))

    def check(self, value: object, ids: Ids) -> Any:
        members = self._by_kind.get(type(value), self.members)
        if len(members) == 1:
            return members[0].check(value, ids)
        for member in members:
            try:
                return member.check(value, ids)
            except Mismatch:
                continue
        raise self.mismatch(value)

    def written(self, value: Any) -> Any:
        written = (member.written(value) for member in self.members)
        return next((one for one in written if one is not value), value)

    def over(self, change: Callable[[Validator], Validator]) -> Validator:
        members = tuple(change(member) for member in self.members)
        same = all(new is old for new, old in zip(members, self.members, strict=True))
        return self if same else UnionValidator(*members)

    def kinds(self) -> Kinds:
        kinds: set[type] = set()
        for member in self.members:
            if (some := member.kinds()) is None:
                return None
            kinds |= some
        return frozenset(kinds)

    def describe(self) -> str:
        return " or ".join(member.describe() for member in self.members) or "nothing"

    def expected(self) -> str:
        texts = list(dict.fromkeys(member.expected() for member in self.members))
        if len(texts) > 1 and all(isinstance(member, LiteralValidator) for member in self.members):
            return f"one of {', '.join(texts)}"
        return " or ".join(texts) or "nothing"

    def parts(self) -> tuple[object, ...]:
        return self.members


_JSON_KINDS: Final[frozenset[type]] = frozenset((str, int, float, bool, bytes, type(None), list, dict))


def present_field(field: Validator) -> Validator:
    """Return the validator of the value of a field, without the mark that the field is optional."""
    return field.member if isinstance(field, OptionalValidator) else field


def not_optional(validator: Validator, place: str) -> Validator:
    """Return the validator. Raises TypeError for `v.optional(…)`, which only a field of an object can be."""
    if isinstance(validator, OptionalValidator):
        raise TypeError(f"{place} cannot be v.optional(…): only a field of an object can be absent")
    return validator


def _many(element: Validator) -> str:
    words = element.describe()
    return f"({words})" if isinstance(element, UnionValidator) and len(element.members) > 1 else words


def _changed(given: Any, pairs: Iterable[tuple[Any, Any]]) -> Any:
    """Return a list or dict with these items; `given` itself if they are all its own."""
    result = given
    for key, item in pairs:
        if item is not given[key]:
            result = given.copy() if result is given else result
            result[key] = item
    return result


def _check_item(validator: Validator, given: Any, key: Any, ids: Ids) -> Any:
    try:
        return validator.check(given[key], ids)
    except Mismatch as mismatch:
        mismatch.under(step(key))
        raise
