"""The command line. Each module has one command or one group of commands."""

from __future__ import annotations

import click

from duly.cli import backup, crons, dev, jobs, migrate, run
from duly.cli.commands import Commands


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="duly")  # looked up only when it is printed
def main() -> None:
    """Functions that run when they should, exactly once."""


for command in (dev.dev, run.run, migrate.migrate, jobs.jobs, crons.crons, backup.backup, backup.restore):
    main.add_command(command)
