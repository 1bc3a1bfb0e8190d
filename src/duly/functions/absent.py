"""What some `ctx` does not have, and what to use instead: the words of the AttributeError."""

from __future__ import annotations

from typing import Any, Final

_WRITES: Final = "a query only reads; make this function a mutation"
_SYSTEM: Final = "only the system writes its tables"
_NO_DATABASE: Final = "an action has no database of its own; call ctx.run_query and ctx.run_mutation"
_WRITERS: Final = ("insert", "patch", "replace", "delete")

_INSTEAD: Final = {
    ("QueryCtx", "scheduler"): "a query schedules nothing; do it in a mutation or an action",
    ("QueryCtx", "run_mutation"): _WRITES,
    ("QueryCtx", "run_action"): "a query has no effects; call the action from an action, or schedule it in a mutation",
    ("MutationCtx", "run_action"): "a mutation may run again; schedule it: ctx.scheduler.run_after(0, action, args)",
    ("ActionCtx", "db"): _NO_DATABASE,
    ("SyncActionCtx", "db"): _NO_DATABASE,
    **{("DatabaseReader", name): _WRITES for name in _WRITERS},
    **{("SystemReader", name): _SYSTEM for name in _WRITERS},
}


def absent(owner: Any, name: str) -> AttributeError:
    """The error for an attribute that an object does not have."""
    kind = type(owner).__name__
    instead = _INSTEAD.get((kind, name), "")
    return AttributeError(f"{kind} has no {name!r}{instead and f': {instead}'}", name=name, obj=owner)
