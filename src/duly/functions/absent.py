"""What some `ctx` does not have, and what to use instead: a note on the AttributeError."""

from __future__ import annotations

from typing import Final

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


def advise(error: BaseException) -> None:
    """Note on an AttributeError of a handler what to use instead."""
    if isinstance(error, AttributeError):
        instead = _INSTEAD.get((type(error.obj).__name__, error.name or ""))
        # It may pass by here again, on its way through functions that call each other.
        if instead is not None and instead not in getattr(error, "__notes__", ()):
            error.add_note(instead)
