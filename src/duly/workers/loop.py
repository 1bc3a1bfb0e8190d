"""The loop of every worker: do what is due, then sleep until more is due or until something it has read changes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from random import Random
from typing import Any, Final, Protocol

from duly.clock import Clock
from duly.errors import StoreGoneError
from duly.limits import CLOCK_BACK_MS, TIMER_CHECK_SECONDS
from duly.logs import log_of

_log: Final = log_of("duly.worker")
_BACKOFF_SECONDS: Final = (0.5, 4.0)
"""The first and the longest pause after an error. They are short, to notice soon that a store is back."""


class Worker(Protocol):
    """What the loop runs."""

    async def step(self) -> float | None:
        """Do what is due. Return when to step again, in milliseconds since 1970; None to step only when woken."""
        ...

    def wakers(self) -> list[asyncio.Future[Any]]:
        """Return futures that are done when there is new work, given what the last step has read."""
        ...


async def run_worker(worker: Worker, clock: Clock, rng: Random, stop: asyncio.Future[None]) -> None:
    """Step until `stop` is done or the store is gone. After any other error, try again with a growing pause."""
    failures = 0
    while not stop.done():
        try:
            due = await worker.step()
            wakers = worker.wakers() if due is None or due > clock.now() else None
            failures = 0
        except StoreGoneError:
            return  # it does not come back; the database has logged it
        except Exception:  # any error: due functions must not wait for a restart of the process
            pause = min(_BACKOFF_SECONDS[0] * 2**failures, _BACKOFF_SECONDS[1]) * rng.random()
            failures += 1
            _log.exception("work failed, trying again in %.1f s", pause)
            await first_done((stop,), clock, clock.now() + pause * 1000)
        else:
            if wakers is not None:
                await first_done((stop, *wakers), clock, due)


async def first_done(wakers: Iterable[asyncio.Future[Any]], clock: Clock, due: float | None = None) -> None:
    """Wait until one of the futures is done or the clock has reached `due`; then cancel all futures but the first.

    Return also if the clock is set far back: then `due` may be a wrong time.
    """
    keep, *others = wakers
    latest, seconds = clock.now(), None if due is None else TIMER_CHECK_SECONDS
    if due is not None:
        others.append(asyncio.ensure_future(clock.sleep_until(due)))
    try:
        while True:
            done, _ = await asyncio.wait((keep, *others), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if done or (now := clock.now()) < latest - CLOCK_BACK_MS:
                break
            latest = max(latest, now)
    finally:
        for future in others:
            future.cancel()
