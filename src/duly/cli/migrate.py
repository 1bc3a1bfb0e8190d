"""`duly migrate`: bring the tables of a store in PostgreSQL to the format of this version."""

from __future__ import annotations

import asyncio

import click

from duly.app import App
from duly.cli import options
from duly.cli.errors import errors_as_text
from duly.storage.postgres.address import is_postgres, parse, require_driver


@click.command()
@click.option("--plan", is_flag=True, help="Only print what would be done.")
@click.option("--folder", help="Apply the schema and the crons of this folder, too, even over a newer version.")
@options.store
def migrate(plan: bool, folder: str | None, store: str) -> None:
    """Bring duly's own tables in a PostgreSQL database up to date.

    Every start does so, too; this does it beforehand. Nodes of the previous version may run meanwhile. It may be
    interrupted: each migration is done completely or not at all.
    """
    if not is_postgres(store):
        raise click.ClickException(f"got the store {store!r}; a file is migrated when it is opened")
    with errors_as_text():
        require_driver()
        from duly.storage.postgres import migrations

        for line in migrations.plan(parse(store)):
            click.echo(line)
        if not plan:
            migrations.migrate_store(parse(store))
            click.echo(f"the store is of format {migrations.FORMAT}")
            if folder is not None:
                asyncio.run(_deploy(folder, store))
                click.echo(f"the schema and the crons of {folder} are the newest")


async def _deploy(folder: str, store: str) -> None:
    async with App(folder, store, executor=False) as app:
        await app.reload()
