"""How a process that runs an app ends: by signals, when its store is gone, and what it waits for."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Final

import click

from duly.app import App
from duly.clock import monotonic
from duly.database.driver.application_lines import BLOCKED_LOOP_ADVICE, application_line
from duly.limits import GRACE_SECONDS, INTERRUPT_SECONDS, LOOP_BLOCKED_SECONDS

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_ORDERLY_MAX: Final = 2
"""The number of signals that end the process in order. The next one exits at once."""


class SignalHandler:
    """Handles Ctrl-C and SIGTERM: the first ends this process, the second interrupts actions, the third exits at once.

    The second exits at once, too, if an action blocks the event loop, so that the first one was not handled.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._actions: list[Callable[[], object]] = []
        self._count = 0
        self._pending_since: float | None = None
        for number in _SIGNALS:
            # Not `loop.add_signal_handler`: that is not called while the loop is blocked.
            signal.signal(number, self._on_signal)

    def on_next(self, action: Callable[[], object]) -> None:
        """Set what the next signal does. Signals after it do nothing more."""
        self._actions = [action]

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._pending_since is None:
            self._count += 1
            if self._count > _ORDERLY_MAX or self._loop.is_closed():
                _exit_at_once()
            self._pending_since = monotonic()
            self._loop.call_soon_threadsafe(self._run_action)
        elif monotonic() - self._pending_since > LOOP_BLOCKED_SECONDS:
            _exit_at_once(
                f" in the middle of {application_line(frame)}, which held up the event loop: {BLOCKED_LOOP_ADVICE}"
            )

    def _run_action(self) -> None:
        self._pending_since = None
        if self._actions:
            self._actions.pop()()


def _exit_at_once(why: str = "") -> None:
    """Exit as a crash does."""
    click.echo(f"ended at once{why}", err=True)
    _exit(1)


async def close(app: App, signals: SignalHandler) -> None:
    if not app.is_open:
        return
    executor, task = app.executor, asyncio.current_task()
    assert task is not None
    if running := executor.running + len(executor.called_actions):
        signals.on_next(lambda: (executor.running or executor.called_actions) and task.cancel())
        actions, them = ("1 running action", "it") if running == 1 else (f"{running} running actions", "them")
        click.echo(f"waiting up to {GRACE_SECONDS:g} s for {actions}; Ctrl-C again interrupts {them}")
    try:
        await app.close()
    finally:
        if executor.running or not await _end_other_tasks():
            _exit_stopped()


async def _end_other_tasks() -> bool:
    """Interrupt all other tasks, such as calls of `duly run`. Return whether they have ended."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for other in others:
        other.cancel()
    return not others or not (await asyncio.wait(others, timeout=INTERRUPT_SECONDS))[1]


def _exit_stopped() -> None:
    """Exit although a task ignores its interruption. Otherwise asyncio would wait for it without end."""
    click.echo("stopped")
    _exit(0)


def _exit(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


async def exit_when_gone(app: App, file: str) -> None:
    """Exit when the file of the store is gone, because writes to a deleted file are lost."""
    await asyncio.shield(app.database.gone)  # a cancelled future would count as done: as if the store were gone
    click.echo(
        f"Error: the store {file} was deleted, moved or replaced while this ran, so this ends: nothing"
        " it did from then on would be kept. Start it again with the file that is there now, or to make a new one",
        err=True,
    )
    os._exit(1)  # running actions could not record their end
