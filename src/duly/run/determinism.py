"""The determinism check of development mode: each mutation runs twice, and differences of the two runs are reported.

A mutation may be run again at any time, so each run must do the same: take the time from `ctx.now`, randomness from
`ctx.random`, and keep no state in variables of the module. The first run is a rehearsal, which stores nothing; both
runs get the same ids, the same time and the same seeds.
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
from duly.database.driver.application_lines import is_application
from duly.database.transaction import Transaction
from duly.errors import FunctionError, LimitError
from duly.logs import log_of
from duly.storage.rows import CRON_LOGS, REQUESTS, Job, Row
from duly.values.json import loads
from duly.values.text import show

T = TypeVar("T")
_UNLIKE: Final = (CRON_LOGS.name, REQUESTS.name)
"""Tables whose rows differ from run to run: they contain times, and log lines, which a rehearsal has none of."""
Unit = Callable[..., Coroutine[Any, Any, T]]

_log: Final = log_of("duly.run")
_WHY: Final = (
    "; a mutation may be run again, so both runs must write the same: use ctx.now and ctx.random, and no state of"
    " the module"
)


def attempt_with_rehearsal(batch: Batch, name: str, unit: Unit[T], *args: object) -> T:
    """Attempt a unit after a rehearsal of it, and warn if the two wrote different rows."""
    first, second = _Trace(), _Trace()
    forgotten: list[str] = []
    with _collecting_forgotten(forgotten):
        try:
            copy_context().run(batch.dry_run, first.of(unit), *args, handler=name)
        except LimitError:
            raise  # the run would take as long again, with the same result
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
def _collecting_forgotten(forgotten: list[str]) -> Generator[None]:
    """Collect the coroutines that this thread creates meanwhile and never awaits; Python would only warn of them.

    The garbage collector may also find coroutines of other threads. Origin tracking is on only in this thread, and so
    distinguishes them.
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
        if (
            match is None or len(origin) != depth + _FRAMES
        ):  # asyncio's debug mode tracks ten frames for every coroutine
            _pass_on(warning)
        else:
            file, line, _ = next((frame for frame in origin if is_application(frame[0])), origin[0])
            forgotten.append(f"{match[1].rpartition('.')[2].lstrip('_')}() at {Path(file).name}:{line}")


_never_awaited: Final = re.compile("coroutine '(.+)' was never awaited")
_FRAMES: Final = 4
"""Frames of origin tracking: enough to reach from duly's own frames to the call in the application."""


def _pass_on(warning: WarningMessage) -> None:
    text, category, file, line = warning.message, warning.category, warning.filename, warning.lineno
    try:
        warn_explicit(text, category, file, line, source=warning.source)
    except Warning:  # a filter turns it into an error, which does not belong to the running function
        showwarning(text, category, file, line)


def _check_awaited(name: str, forgotten: list[str]) -> None:
    """Raise FunctionError for coroutines that were not awaited: reads without `await`, or application functions."""
    if forgotten:
        raise FunctionError(
            f"{name}: got a call without `await`, which did nothing: {', '.join(forgotten)}; expected `await …`."
            " Nothing of this function is stored (in development; elsewhere Python only warns)"
        )


class _Trace:
    """The writes and the error of one run."""

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
        """The new value of each row, without those of `_UNLIKE`."""
        if self.transaction is None or self.error is not None:
            return {}
        tables = [(name, writes) for name, writes in self.transaction.writes.items() if name not in _UNLIKE]
        return {(name, id): write.new for name, writes in tables for id, write in writes.items()}


def _difference(first: _Trace, second: _Trace) -> str | None:
    if type(first.error) is not type(second.error):
        return f"one ended with {_outcome(first)}, the other with {_outcome(second)}"
    one, other = first.rows, second.rows
    for table, id in [*one, *(key for key in other if key not in one)]:
        before, after = one.get((table, id), _NOT_WRITTEN), other.get((table, id), _NOT_WRITTEN)
        if before != after:
            return f"one wrote {_changes(before, after)} in {table!r}, the other {_changes(after, before)}"
    return None


_NOT_WRITTEN: Final = "nothing"


def _outcome(trace: _Trace) -> str:
    return "success" if trace.error is None else f"{type(trace.error).__name__}: {trace.error}"


def _changes(row: Row | None, other: Row | None) -> str:
    """Return the fields in which a row differs from the other one."""
    if row is None or row == _NOT_WRITTEN:
        return "a deletion" if row is None else _NOT_WRITTEN
    fields, others = _fields(row), _fields(other)
    return show({name: value for name, value in fields.items() if others.get(name, _NOT_WRITTEN) != value})


def _fields(row: Row | None) -> dict[str, Any]:
    if isinstance(row, Job):
        return row._asdict()
    return {} if row is None or row == _NOT_WRITTEN else loads(row)
