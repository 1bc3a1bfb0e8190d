"""Documents that were read, whatever form they have."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeVar, cast

from duly.values.annotations import Id
from duly.values.checks import show

if TYPE_CHECKING:

    class _TypedDict(Protocol):
        __required_keys__: ClassVar[frozenset[str]]

    class _Dataclass(Protocol):
        __dataclass_fields__: ClassVar[dict[str, Any]]

    class _Pydantic(Protocol):
        def model_dump(self) -> dict[str, Any]: ...


# The bound is for type checkers: without it, a dict that is no Order would be taken for a wider M than Order.
M = TypeVar("M", bound="_TypedDict | _Dataclass | _Pydantic")
"""A class that describes documents."""
I = TypeVar("I", bound="_Dataclass | _Pydantic")  # noqa: E741
"""An instance of such a class, which is no kind of dict."""
D = TypeVar("D")


def id_of(document: D) -> Id[D]:
    """The id of a document that was read: of a dict, or of an instance of the class of its table.

        for order in await ctx.db.query(Order).collect():
            await ctx.db.delete(id_of(order))

    TypeError for a document that was not read from the database, and for an instance that has no place for its id:
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
