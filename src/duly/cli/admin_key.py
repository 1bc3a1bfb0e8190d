"""`duly admin-key`: make or revoke the key by which remote clients are the administrator."""

from __future__ import annotations

import asyncio
import secrets
from functools import partial

import click

from duly.cli import options
from duly.cli.errors import errors_as_text
from duly.cli.open_store import open_store
from duly.model import admin_key as model
from duly.model import job_admin


@click.command("admin-key")
@click.option("--revoke", is_flag=True, help="Make no key, and let the one there is count no more.")
@options.store
def admin_key(revoke: bool, store: str) -> None:
    """Make a new admin key for the store, and print it.

    It is printed this once: the store has only its hash. The key before it counts no more. Clients that send the key
    may call internal functions, and act as any user. The environment variable DULY_ADMIN_KEY is another such key, of
    one process, and is not affected.
    """
    with errors_as_text():
        asyncio.run(_revoke(store) if revoke else _make(store))


async def _make(store: str) -> None:
    key = secrets.token_hex(32)
    async with open_store(store) as database:
        was_there = await job_admin.commit(database, partial(model.replace, hash=model.hash_of(key)))
    click.echo(key)
    click.echo(f"store it now: it is not printed again{'; the key before it counts no more' * was_there}", err=True)


async def _revoke(store: str) -> None:
    async with open_store(store) as database:
        was_there = await job_admin.commit(database, partial(model.replace, hash=None))
    click.echo("revoked: the key counts no more" if was_there else "there was no key")
