"""Documents that were read, whatever form they have."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from duly.values.annotations import Id
from duly.values.checks import show

M = TypeVar("M")


def id_of(document: M) -> Id[M]:
    """The id of a document that was read: of a dict, or of an instance of the class of its table.

        for order in await ctx.db.query(Order).collect():
            await ctx.db.delete(id_of(order))

    TypeError for a document that was not read from the database.
    """
    given: Any = document
    id = given.get("_id") if isinstance(given, dict) else getattr(given, "_id", None)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    if not isinstance(id, str):
        raise TypeError(
            f"id_of: got {show(cast('object', document))}, expected a document that was read from the database"
        )
    return cast("Id[M]", id)
