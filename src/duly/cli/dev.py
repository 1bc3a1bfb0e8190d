"""`duly dev`: run the functions of a folder, reload them when a file changes, print each run."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Final

import click

from duly.app import App
from duly.cli import options, terminal
from duly.cli.errors import errors_as_text
from duly.cli.file_changes import FileChanges
from duly.cli.times import local_and_utc
from duly.clock import monotonic
from duly.database.driver.application_lines import BLOCKED_LOOP_ADVICE, application_line
from duly.declare.registry import Registry
from duly.errors import DulyError, LoadError, SchemaValidationError, StoreError
from duly.limits import GRACE_SECONDS, INTERRUPT_SECONDS, LOOP_BLOCKED_SECONDS
from duly.model import executor_pause
from duly.server import control_socket
from duly.storage.open import sqlite_path
from duly.storage.postgres.address import is_postgres

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_ORDERLY_MAX: Final = 2
"""The number of signals that end the process in order. The next one exits at once."""


@click.command()
@click.argument("folder", default=options.default_folder)
@options.store
def dev(folder: str, store: str) -> None:
    """Execute the functions in FOLDER, reload them when a file changes, and print each run.

    FOLDER defaults to [tool.duly] folder, then to ./backend. Call functions from another terminal
    with `duly run`.
    """
    if not Path(folder).is_dir():
        problem = "which is a file" if Path(folder).is_file() else "which does not exist"
        raise click.ClickException(
            f"got the folder {folder!r}, {problem} ({Path(folder).absolute()}); name one: duly dev FOLDER"
        )
    with errors_as_text(), suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(_dev(folder, store))
    click.echo("stopped")


async def _dev(folder: str, store: str) -> None:
    task = asyncio.current_task()
    assert task is not None
    terminal.print_runs()
    signals = _SignalHandler()
    signals.on_next(task.cancel)
    app = App(folder, store, development=True)
    changes, background = FileChanges(folder), list[asyncio.Task[None]]()
    await asyncio.sleep(0)  # from here on a change is noticed
    try:
        while not await _open(app):
            await changes.next()
        # Print this at once: due functions start during the next await.
        click.echo(
            f"duly {version('duly')} runs {_counted(app.runner.registry)} of {folder} on {options.redacted(store)}"
        )
        if not app.runner.registry.functions:
            click.echo(f"There is no decorated function in {Path(folder).absolute()} yet: write one, and it is loaded")  # noqa: ASYNC240
        background.append(asyncio.create_task(_print_pauses(app, store)))
        if not is_postgres(store):
            file = os.path.abspath(sqlite_path(store))  # noqa: ASYNC240  it takes no time
            background.append(asyncio.create_task(_exit_when_gone(app, file)))
        async with nullcontext() if is_postgres(store) else control_socket.serve(app, sqlite_path(store)):
            # Not earlier, because such a call is answered only from here on.
            click.echo(click.style("Call one from another terminal with `duly run`; Ctrl-C ends this.", dim=True))
            while True:
                await changes.next()
                await _reload(app)
    finally:
        changes.close()
        await _close(app, signals)
        for each in background:
            each.cancel()


async def _exit_when_gone(app: App, file: str) -> None:
    """Exit when the file of the store is gone, because writes to a deleted file are lost."""
    await app.database.gone
    click.echo(
        f"Error: the store {file} was deleted, moved or replaced while this ran, so this ends: nothing"
        " it did from then on would be kept. Start it again with the file that is there now, or to make a new one",
        err=True,
    )
    os._exit(1)  # running actions could not record their end


async def _print_pauses(app: App, store: str) -> None:
    """Print when the executor is paused or resumed."""
    how = "duly jobs resume" if is_postgres(store) else "end this, run `duly jobs resume`, and start it again"
    was_paused = False
    while app.is_open:
        try:
            paused = await app.database.read(executor_pause.paused_since)
        except StoreError:
            continue  # the store did not answer, or the app is closed
        if paused.value is not None and not was_paused:
            click.echo(click.style(f"nothing starts: it was paused {local_and_utc(paused.value)}; {how}", fg="yellow"))
        elif paused.value is None and was_paused:
            click.echo(click.style("resumed: what is due starts", fg="cyan"))
        was_paused = paused.value is not None
        await app.database.watch(paused.reads, paused.version)


class _SignalHandler:
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


async def _close(app: App, signals: _SignalHandler) -> None:
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


async def _open(app: App) -> bool:
    try:
        await app.__aenter__()
    except (LoadError, SchemaValidationError) as error:
        _print_error("cannot start; waiting for a change", error)
        return False
    return True


async def _reload(app: App) -> None:
    try:
        registry = await app.reload()
    except DulyError as error:
        _print_error("not reloaded, the last good code goes on", error)
    else:
        click.echo(click.style(f"reloaded {_counted(registry)}", fg="cyan"))


def _counted(registry: Registry) -> str:
    count = len(registry.functions)
    return "1 function" if count == 1 else f"{count} functions"


def _print_error(what: str, error: Exception) -> None:
    click.echo(click.style(f"{what}:", fg="red", bold=True), err=True)
    click.echo(click.style(f"  {error}", fg="red"), err=True)
