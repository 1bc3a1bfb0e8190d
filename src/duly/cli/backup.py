"""`duly backup` and `duly restore`: a complete copy of a store in one file."""

from __future__ import annotations

import click

from duly.cli import options
from duly.cli.errors import errors_as_text
from duly.storage.open import sqlite_path
from duly.storage.postgres.address import is_postgres
from duly.storage.sqlite import backup as copies


@click.command()
@click.argument("file")
@options.store
def backup(file: str, store: str) -> None:
    """Copy the store into the new FILE, while it runs or not.

    FILE contains everything up to one commit, and is a store itself. A plain copy of a running store does not: its
    latest commits are in another file next to it.
    """
    _check_is_file(store, "pg_dump --schema")
    with errors_as_text():
        size = copies.backup(sqlite_path(store), file)
        click.echo(f"{options.redacted(store)} is backed up in {file} ({size:,} bytes)")


@click.command()
@click.argument("file")
@click.option("--incomplete", is_flag=True, help="Take a copy of a running store that lacks its log.")
@options.store
def restore(file: str, incomplete: bool, store: str) -> None:
    """Replace the store by the backup FILE. No process may own the store meanwhile.

    The old files are kept next to it. Functions that were pending when the backup was made are pending again.
    """
    _check_is_file(store, "pg_restore")
    with errors_as_text():
        aside = copies.restore(file, sqlite_path(store), incomplete)
        click.echo(f"{file} is restored to {options.redacted(store)}")
        if aside is not None:
            click.echo(f"What was there before is in {aside}")


def _check_is_file(store: str, instead: str) -> None:
    if is_postgres(store):
        raise click.ClickException(
            f"got the store {options.redacted(store)}; PostgreSQL has tools of its own, such as {instead}"
        )
