"""The command line. Each module has a group of its commands."""

from __future__ import annotations

import click

from duly.cli import backup, crons, dev, jobs, migrate, run
from duly.cli.commands import Commands


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="duly")  # which is looked up when it is asked for
def main() -> None:
    """Functions that run when they should, exactly once."""


for command in (dev.dev, run.run, migrate.migrate, jobs.jobs, crons.crons, backup.backup, backup.restore):
    main.add_command(command)
