"""Documents that were read from the database: type variables for their classes, and their ids."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeVar, cast

from duly.values.schema.annotations import Id
from duly.values.text import show

if TYPE_CHECKING:

    class _TypedDict(Protocol):
        __required_keys__: ClassVar[frozenset[str]]

    class _Dataclass(Protocol):
        __dataclass_fields__: ClassVar[dict[str, Any]]

    class _Pydantic(Protocol):
        def model_dump(self) -> dict[str, Any]: ...


# The bound is for type checkers: without it, they would infer a wider M than Order for a dict that is no Order.
M = TypeVar("M", bound="_TypedDict | _Dataclass | _Pydantic")
"""A class that describes documents."""
I = TypeVar("I", bound="_Dataclass | _Pydantic")  # noqa: E741
"""A class whose instances are no dicts."""
D = TypeVar("D")


def id_of(document: D) -> Id[D]:
    """Return the id of a document that was read: a dict, or an instance of the class of its table.

        for order in await ctx.db.query(Order).collect():
            await ctx.db.delete(id_of(order))

    Raises TypeError for a document that was not read from the database, and for an instance without a place for its id:
    a dataclass with slots needs `_id: Id[Order] = field(init=False)`.
    """
    given = cast("object", document)
    is_dict = isinstance(document, dict)
    id = cast("dict[str, object]", given).get("_id") if is_dict else getattr(given, "_id", None)
    if isinstance(id, str):
        return cast("Id[D]", id)
    place = "" if _has_place(document) else _PLACE.format(type(document).__name__)
    raise TypeError(f"id_of: got {show(given)}, expected a document that was read from the database{place}")


_PLACE: Final = "; {0} has slots and no place for its id: declare `_id: Id[{0}] = field(init=False)` in it"


def _has_place(document: object) -> bool:
    return not is_dataclass(document) or hasattr(document, "__dict__") or hasattr(type(document), "_id")
