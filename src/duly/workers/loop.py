"""The one loop of every worker: work, then sleep until something is due or something it has read has changed."""

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
_BACKOFF_SECONDS: Final = (
    0.5,
    4.0,
)  # first and longest pause after a store that refuses: one that is back is to be noticed soon


class Worker(Protocol):
    """What an alarm drives."""

    async def step(self) -> float | None:
        """Do what is due. Returns when to come again, in milliseconds since 1970; None: when woken."""
        ...

    def wakers(self) -> list[asyncio.Future[Any]]:
        """Futures that are done when there is work again, given what the last step has read."""
        ...


async def run(worker: Worker, clock: Clock, chance: Random, stop: asyncio.Future[None]) -> None:
    """Step until told to stop, or until the store is gone. What else fails is tried again, ever later."""
    failures = 0
    while not stop.done():
        try:
            due = await worker.step()
            wakers = worker.wakers() if due is None or due > clock.now() else None
            failures = 0
        except StoreGoneError:
            return  # for good, which the log has been told
        except Exception:  # whatever it is, what is due must not wait for a restart
            pause = min(_BACKOFF_SECONDS[0] * 2**failures, _BACKOFF_SECONDS[1]) * chance.random()
            failures += 1
            _log.exception("work failed, trying again in %.1f s", pause)
            await first((stop,), clock, clock.now() + pause * 1000)
        else:
            if wakers is not None:
                await first((stop, *wakers), clock, due)


async def first(wakers: Iterable[asyncio.Future[Any]], clock: Clock, due: float | None = None) -> None:
    """Wait until one of the futures is done or the clock has reached `due`; cancel the rest but the first.

    Also return where the clock is set far back, by which `due` may be another time.
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
