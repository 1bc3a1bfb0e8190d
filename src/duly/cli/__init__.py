"""The command line. Each module has one command or one group of commands."""

from __future__ import annotations

import click

from duly.cli import admin_key, backup, crons, init, jobs, migrate, run
from duly.cli.commands import Commands
from duly.cli.process import dev, serve


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="duly")  # looked up only when it is printed
def main() -> None:
    """Functions that run when they should, exactly once."""


_COMMANDS = (
    init.init,
    dev.dev,
    serve.serve,
    run.run,
    migrate.migrate,
    jobs.jobs,
    crons.crons,
    backup.backup,
    backup.restore,
    admin_key.admin_key,
)
for command in _COMMANDS:
    main.add_command(command)
