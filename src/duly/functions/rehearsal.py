"""Development mode: each mutation runs twice, and what its two runs do not agree on is reported.

A mutation may be run again at any time, so it must do the same each time: take the time from `ctx.now`, chance
from `ctx.random`, and keep nothing in variables of its module. The first run is a rehearsal of which nothing
stays; both get the same ids, the same time and the same seeds.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any, Final, TypeVar
from warnings import WarningMessage, catch_warnings, showwarning, simplefilter, warn_explicit

from duly.database.batch import Batch
from duly.database.transaction import Transaction
from duly.database.watchdog import is_application
from duly.errors import FunctionError, LimitError
from duly.logs import log_of
from duly.storage.rows import CRON_LOGS, Job, Row
from duly.values.checks import show
from duly.values.value import loads

T = TypeVar("T")
Unit = Callable[..., Coroutine[Any, Any, T]]

_log: Final = log_of("duly.run")
_WHY: Final = (
    "; a mutation may be run again, so both runs must write the same: use ctx.now and ctx.random, and no state of"
    " the module"
)


def attempt_twice(batch: Batch, name: str, unit: Unit[T], *args: object) -> T:
    """Attempt a unit after a rehearsal of it, and warn if they differ in what they wrote."""
    first, second = _Trace(), _Trace()
    forgotten: list[str] = []
    with _noting_forgotten(forgotten):
        try:
            copy_context().run(batch.rehearse, first.of(unit), *args, handler=name)
        except LimitError:
            raise  # the run would take as long again, to the same end
        except Exception as error:
            first.error = error
    _check_awaited(name, forgotten)
    try:
        return copy_context().run(batch.attempt, second.of(unit), *args, handler=name)
    except Exception as error:
        second.error = error
        raise
    finally:
        difference = _difference(first, second)
        if difference is not None:
            _log.warning("%s is not repeatable: of two runs, %s%s", name, difference, _WHY)


@contextmanager
def _noting_forgotten(forgotten: list[str]) -> Generator[None]:
    """Note each coroutine that is made meanwhile in this thread and thrown away, of which Python only warns.

    The collector may find those of others meanwhile: Python tells where each of ours was made, as it does of no other.
    """
    depth = sys.get_coroutine_origin_tracking_depth()
    with catch_warnings(record=True) as caught:
        simplefilter("always", RuntimeWarning)
        sys.set_coroutine_origin_tracking_depth(depth + _FRAMES)
        try:
            yield
        finally:
            sys.set_coroutine_origin_tracking_depth(depth)
    for warning in caught:
        match = _never_awaited.match(str(warning.message))
        origin: Any = getattr(warning.source, "cr_origin", None) or ()
        if match is None or len(origin) != depth + _FRAMES:  # where asyncio debugs, all have an origin, of ten frames
            _pass_on(warning)
        else:
            file, line, _ = next((frame for frame in origin if is_application(frame[0])), origin[0])
            forgotten.append(f"{match[1].rpartition('.')[2].lstrip('_')}() at {Path(file).name}:{line}")


_never_awaited: Final = re.compile("coroutine '(.+)' was never awaited")
_FRAMES: Final = 4
"""From where a coroutine is made up to the application's own call: there are some of duly in between."""


def _pass_on(warning: WarningMessage) -> None:
    text, category, file, line = warning.message, warning.category, warning.filename, warning.lineno
    try:
        warn_explicit(text, category, file, line, source=warning.source)
    except Warning:  # it is to be an error, but is none of the function that runs
        showwarning(text, category, file, line)


def _check_awaited(name: str, forgotten: list[str]) -> None:
    """FunctionError for a coroutine that was thrown away.

    It was a read, and the function took it for what it reads; or a function of the application, with all it writes.
    """
    if forgotten:
        raise FunctionError(
            f"{name}: got a call without `await`, which did nothing: {', '.join(forgotten)}; expected `await …`."
            " Nothing of this function is stored (in development; elsewhere Python only warns)"
        )


class _Trace:
    """What one run did."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.transaction: Transaction | None = None

    def of(self, unit: Unit[T]) -> Unit[T]:
        async def traced(transaction: Transaction, *args: object) -> T:
            self.transaction = transaction
            return await unit(transaction, *args)

        return traced

    @property
    def rows(self) -> dict[tuple[str, int], Row | None]:
        """What each row became. No two runs are told of alike in the log of a cron: it says when they were."""
        if self.transaction is None or self.error is not None:
            return {}
        tables = [(name, writes) for name, writes in self.transaction.writes.items() if name != CRON_LOGS.name]
        return {(name, id): write.new for name, writes in tables for id, write in writes.items()}


def _difference(first: _Trace, second: _Trace) -> str | None:
    if type(first.error) is not type(second.error):
        return f"one ended with {_outcome(first)}, the other with {_outcome(second)}"
    one, other = first.rows, second.rows
    for table, id in [*one, *(key for key in other if key not in one)]:
        before, after = one.get((table, id), _NOT_WRITTEN), other.get((table, id), _NOT_WRITTEN)
        if before != after:
            return f"one wrote {_shown(before, after)} in {table!r}, the other {_shown(after, before)}"
    return None


_NOT_WRITTEN: Final = "nothing"


def _outcome(trace: _Trace) -> str:
    return "success" if trace.error is None else f"{type(trace.error).__name__}: {trace.error}"


def _shown(row: Row | None, other: Row | None) -> str:
    """The fields of a row that are not those of the other one."""
    if row is None or row == _NOT_WRITTEN:
        return "a deletion" if row is None else _NOT_WRITTEN
    fields, others = _fields(row), _fields(other)
    return show({name: value for name, value in fields.items() if others.get(name, _NOT_WRITTEN) != value})


def _fields(row: Row | None) -> dict[str, Any]:
    if isinstance(row, Job):
        return row._asdict()
    return {} if row is None or row == _NOT_WRITTEN else loads(row)
