"""What becomes of queued work whose caller is cancelled: it is withdrawn if it has not begun, else it counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from duly.database.batch import Batch

T = TypeVar("T")


def withdrawable(work: Callable[[Batch], T], future: asyncio.Future[Any]) -> Callable[[Batch], T | None]:
    """The work, or none where the future was cancelled before that was run first; it may be run again."""
    has_begun = False

    def begin(batch: Batch) -> T | None:
        nonlocal has_begun
        if not has_begun and future.cancelled():
            return None
        has_begun = True
        return work(batch)

    return begin
