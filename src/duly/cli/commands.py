"""A group of commands whose help has all of what each is for."""

from __future__ import annotations

import sys

import click


class Commands(click.Group):
    """Lists its commands with their whole first sentence, where click would cut it off."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.get_short_help_str(sys.maxsize)) for name, one in found if one])
