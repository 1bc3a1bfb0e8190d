"""Prints runs and log records on the terminal, one per line."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Final, TextIO, cast

import click

from duly.clock import to_datetime
from duly.ctx.call_log import APP_LOG
from duly.run.failure import describe
from duly.run.run_log import LOG, Run

if TYPE_CHECKING:
    from io import TextIOWrapper

_ARGS_LENGTH_MAX: Final = 80


def print_runs(level: int = logging.INFO) -> None:
    """From now on, print every run, its log lines and its errors; or only what has a level that is higher."""
    stdout: TextIO = sys.stdout
    if hasattr(stdout, "reconfigure"):
        cast("TextIOWrapper", stdout).reconfigure(errors="replace")  # a terminal may lack a character
    for name in ("duly", APP_LOG, "duly.run"):
        logging.getLogger(name).setLevel(level)
    logging.getLogger("duly").addHandler(_TerminalHandler())
    logging.getLogger("duly").propagate = False


class _TerminalHandler(logging.Handler):
    """Prints log records."""

    def __init__(self) -> None:
        super().__init__()
        self._printed = ""
        """The error of the last run, which is logged again under the id that a remote client gets."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._print(record)
        except OSError:
            pass  # the terminal is closed
        except Exception:
            self.handleError(record)

    def _print(self, record: logging.LogRecord) -> None:
        time = click.style(f"{to_datetime(record.created * 1000).astimezone():%H:%M:%S}", dim=True)
        run = getattr(record, "run", None)
        if isinstance(run, Run):
            self._printed = "" if run.error is None else describe(run.error)
            click.echo(f"{time} {_line_of(run)}")
        else:
            level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()} "
            is_of_runs = record.name == LOG.logger.name
            is_complete = not record.exc_info or is_of_runs  # the message has the error already
            text = record.getMessage() if is_complete else self.format(record)
            if is_of_runs and self._printed:
                text = text.removesuffix(self._printed).rstrip()
            name = record.name.removeprefix(f"{APP_LOG}.")
            for line in f"{level}{text}".split("\n"):
                click.echo(f"{time} {click.style('│', dim=True)} {name}: {line}")


def _shortened(args: str) -> str:
    """Return as much of the arguments as fits on a line; an empty text if there are none."""
    if args == "{}":
        return ""
    return args if len(args) <= _ARGS_LENGTH_MAX else f"{args[: _ARGS_LENGTH_MAX - 1]}…"


def _line_of(run: Run) -> str:
    mark = click.style("✓", fg="green") if run.error is None else click.style("✗", fg="red")
    scheduled = click.style(" scheduled", dim=True) if run.is_scheduled else ""
    line = f"{mark} {run.kind:8} {click.style(run.function, bold=True)}{scheduled} {run.milliseconds:.1f} ms"
    if what := " ".join(part for part in (run.job, _shortened(run.args)) if part):
        line += f" {click.style(what, dim=True)}"
    if run.error is None:
        return line
    text = describe(run.error).replace("\n", "\n           ")
    return f"{line}\n           {click.style(text, fg='red')}"
