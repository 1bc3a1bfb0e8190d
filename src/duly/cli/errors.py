"""Expected errors, printed as a line of text."""

from __future__ import annotations

from typing import Any, Final

import click

from duly.run.failure import describe
from duly.server import control_socket

_CLICKS: Final = (click.ClickException, click.Abort, BrokenPipeError)
"""Errors that click handles itself; BrokenPipeError is from a reader such as `head` that has ended."""


class errors_as_text:
    """Prints an expected error as its message instead of a traceback, and exits with 1."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, control_socket.RemoteError):
            raise click.ClickException(str(error)) from None
        if isinstance(error, Exception) and not isinstance(error, _CLICKS):
            raise click.ClickException(describe(error)) from None
