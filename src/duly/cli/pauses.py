"""That nothing starts, for somebody has paused the executor: said wherever an operator may wonder why."""

from __future__ import annotations

import click

from duly.cli.times import off
from duly.database.database import Database
from duly.database.transaction import Transaction
from duly.model import executor_state, operating


async def paused_and_now(transaction: Transaction) -> tuple[float | None, float]:
    """Since when it is paused, None where it is not, and the time."""
    return await executor_state.paused_since(transaction), transaction.now


def note(paused: float, now: float) -> str:
    return f"nothing starts: it was paused {off(paused, now)}; duly jobs resume"


async def tell(database: Database) -> None:
    """Say so, beside what the command prints."""
    paused, now = await operating.read(database, paused_and_now)
    if paused is not None:
        click.echo(note(paused, now), err=True)
