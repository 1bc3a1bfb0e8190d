"""The note that the executor is paused, which commands print where an operator may wonder why nothing starts."""

from __future__ import annotations

import click

from duly.cli.printing.times import relative
from duly.database.database import Database
from duly.database.transaction import Transaction
from duly.model import executor_pause, job_admin


async def pause_and_time(transaction: Transaction) -> tuple[float | None, float]:
    """Return the time of the pause of the executor, None if it is not paused, and the current time."""
    return await executor_pause.paused_since(transaction), transaction.now


def note(paused: float, now: float) -> str:
    return f"nothing starts: it was paused {relative(paused, now)}; duly jobs resume"


async def print_if_paused(database: Database) -> None:
    """Print the note on the standard error, if the executor is paused."""
    paused, now = await job_admin.read(database, pause_and_time)
    if paused is not None:
        click.echo(note(paused, now), err=True)
