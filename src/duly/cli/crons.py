"""`duly crons`: list, show, pause, resume and trigger crons; preview an expression."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from typing import Final

import click

from duly.cli import options
from duly.cli.commands import Commands
from duly.cli.errors import errors_as_text
from duly.cli.open_store import open_store
from duly.cli.printing import cron_text, pause_note
from duly.cli.printing.cron_text import CronDetails
from duly.cli.printing.times import local_and_utc
from duly.clock import SystemClock
from duly.database.transaction import Transaction
from duly.errors import InvalidScheduleError
from duly.limits import CRON_LOGS_MAX
from duly.model import cron_log, cron_schedule, executor_pause, job_admin
from duly.model import crons as model
from duly.model.crons import Cron
from duly.storage.rows import JOBS, Job
from duly.values.ids import IdCodec

_NAMED_MAX: Final = 12  # names in the error for an unknown one
_name: Final = click.argument("name", metavar="NAME")


@click.group(cls=Commands)
def crons() -> None:
    """List and show crons, pause, resume and trigger them, preview an expression.

    NAME is the name of a cron, or its id. These commands need no functions, and run none. A store in PostgreSQL may be
    in use meanwhile. A SQLite file has one owner at a time: if another process owns it, these commands say which.
    """


# list


@crons.command("list")
@click.option("--json", "as_json", is_flag=True, help="An array of documents, one a line, as functions see them.")
@options.store
def list_(as_json: bool, store: str) -> None:
    """List all crons, those declared in code and those registered at run time, in the order of their creation."""
    with errors_as_text():
        asyncio.run(_list(store, as_json))


async def _list(store: str, as_json: bool) -> None:
    async with open_store(store) as database:
        found, paused, now = await job_admin.read(database, _all)
        if as_json:
            lines = [cron_text.as_json(entry.id, entry.cron, database.ids) for entry in found]
            click.echo("[\n" + ",\n".join(lines) + "\n]" if lines else "[]")
            return
        if paused is not None:
            click.echo(pause_note.note(paused, now), err=True)
        if not found:
            click.echo("no crons", err=True)
            return
        for line in cron_text.table(found, now):
            click.echo(line)


async def _all(transaction: Transaction) -> tuple[Sequence[CronDetails], float | None, float]:
    found = [
        CronDetails(id, cron, await cron_log.history(transaction, cron, 1))
        for id, cron in await model.all_crons(transaction)
    ]
    return found, await executor_pause.paused_since(transaction), transaction.now


# show


@crons.command()
@_name
@click.option(
    "--history", type=click.IntRange(0, CRON_LOGS_MAX), default=20, show_default=True, help="How many of its last runs."
)
@options.store
def show(name: str, history: int, store: str) -> None:
    """Show all details of a cron: its fields, its next ten runs, how its last ones ended."""
    with errors_as_text():
        asyncio.run(_show(store, name, history))


async def _show(store: str, name: str, history: int) -> None:
    async with open_store(store) as database:
        entry, now = await job_admin.read(database, partial(_one, ids=database.ids, name=name, history=history))
        for line in cron_text.details(entry, database.ids, now):
            click.echo(line)
        await pause_note.print_if_paused(database)


async def _one(transaction: Transaction, ids: IdCodec, name: str, history: int) -> tuple[CronDetails, float]:
    id, cron = await _must_find(transaction, ids, name)
    rows = [await transaction.get(JOBS, int(run)) for run in cron["runs"]]
    logs = await cron_log.history(transaction, cron, history) if history else []
    return CronDetails(id, cron, logs, [row for row in rows if isinstance(row, Job)]), transaction.now


async def _must_find(transaction: Transaction, ids: IdCodec, name: str) -> tuple[int, Cron]:
    found = await model.look_up(transaction, ids, name)
    if found is not None:
        return found
    names = [cron["name"] for _, cron in await model.all_crons(transaction)]
    close = get_close_matches(name, names)
    meant = f"did you mean {' or '.join(map(repr, close))}?" if close else ", ".join(names[:_NAMED_MAX]) or "no crons"
    raise InvalidScheduleError(f"got the cron {name!r:.80}, expected the id or the name of an existing cron: {meant}")


# pause, resume, trigger


@crons.command()
@_name
@options.store
def pause(name: str, store: str) -> None:
    """Pause a cron until `duly crons resume`, across deploys. A run in progress goes on."""
    with errors_as_text():
        before, _ = asyncio.run(_apply(store, name, model.pause))
        click.echo(f"{before['name']}: {'it was paused already' if before['paused'] else 'paused'}")


@crons.command()
@_name
@options.store
def resume(name: str, store: str) -> None:
    """Resume a cron from now on: slots that passed during the pause do not run."""
    with errors_as_text():
        before, cron = asyncio.run(_apply(store, name, model.resume, runs=True))
        said = "resumed, and runs next at" if before["paused"] else "it was not paused, and runs next at"
        click.echo(f"{cron['name']}: {said} {local_and_utc(cron['nextRunTime'])}")


@crons.command()
@_name
@options.store
def trigger(name: str, store: str) -> None:
    """Run a cron now, paused or not, in addition to its schedule: the time of its next run stays."""
    with errors_as_text():
        cron, _ = asyncio.run(_apply(store, name, model.trigger, runs=True))
        click.echo(f"{cron['name']}: triggered; it runs as soon as an executor does")


async def _apply(store: str, name: str, operation: model.CronOperation, runs: bool = False) -> tuple[Cron, Cron]:
    """Change a cron. Return its row before and after. If the change `runs` it, print a note if executors are paused."""
    async with open_store(store) as database:
        done = await job_admin.commit(database, partial(_change, ids=database.ids, name=name, operation=operation))
        if runs:
            await pause_note.print_if_paused(database)
        return done


async def _change(
    transaction: Transaction, ids: IdCodec, name: str, operation: model.CronOperation
) -> tuple[Cron, Cron]:
    id, before = await _must_find(transaction, ids, name)
    await operation(transaction, id, before)
    return before, await model.load(transaction, id) or before


# preview


@crons.command()
@click.argument("expression", metavar="EXPR")
@click.option("--tz", default=cron_schedule.UTC, show_default=True, metavar="ZONE", help="Such as Europe/Berlin.")
def preview(expression: str, tz: str) -> None:
    """Print what a cron expression means, and when it would run next, by the clock of a zone.

    A mark says that the clock was set ahead or back before a run. No store is needed.
    """
    with errors_as_text():
        schedule = cron_schedule.calendar(expression, tz)
        now = SystemClock().now()
        click.echo(cron_schedule.describe(schedule))
        for line in cron_text.upcoming(schedule, cron_schedule.following(schedule, now), now):
            click.echo(line)
