"""The options that `duly dev` and `duly serve` have in common: where to listen, for whom, and how to log."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import click

from duly.cli import json_log
from duly.cli.printing import terminal
from duly.server.origins import check_origin

DEFAULT_PORT: Final = 3210
TEXT: Final = "text"
JSON: Final = "json"


class ServerOptions(NamedTuple):
    host: str
    port: int | None
    """None stands for the first free one from DEFAULT_PORT on."""
    proxy_headers: bool
    forwarded_allow_ips: str | None
    ssl_certfile: str | None
    ssl_keyfile: str | None
    allow_origin: tuple[str, ...]
    """Empty: those of the environment variable, else any."""
    log_format: str
    log_level: str


def server_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command, which gets them as the keyword `server`."""

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        server = ServerOptions(**{name: given.pop(name) for name in ServerOptions._fields})
        if server.ssl_keyfile and not server.ssl_certfile:
            raise click.UsageError("got --ssl-keyfile, which needs --ssl-certfile")
        if server.forwarded_allow_ips and not server.proxy_headers:
            raise click.UsageError("got --forwarded-allow-ips, which needs --proxy-headers")
        command(**given, server=server)

    for option in reversed(_OPTIONS):
        with_options = option(with_options)
    return with_options


def print_log(server: ServerOptions) -> None:
    """Print every run and all log records from now on, or those from a level on."""
    level = logging.getLevelNamesMapping()[server.log_level.upper()]
    if server.log_format == JSON:
        json_log.print_json(level)
    else:
        terminal.print_runs(level)


def _checked_origins(context: click.Context, parameter: click.Parameter, origins: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(map(check_origin, origins))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


_OPTIONS: Final = (
    click.option(
        "--host",
        default="127.0.0.1",
        help="The address to listen on; 0.0.0.0 lets other machines in. Default: 127.0.0.1",
    ),
    click.option(
        "--port", type=click.IntRange(0, 65_535), help=f"The port to listen on; 0 takes any. Default: {DEFAULT_PORT}"
    ),
    click.option(
        "--proxy-headers/--no-proxy-headers",
        help="Take the address and the scheme of a client from X-Forwarded-For and X-Forwarded-Proto. Default: no",
    ),
    click.option(
        "--forwarded-allow-ips",
        metavar="LIST",
        help="The addresses and networks of proxies whose headers count, or *. Default: $FORWARDED_ALLOW_IPS, then"
        " this machine",
    ),
    click.option("--ssl-certfile", metavar="FILE", help="Serve HTTPS with this certificate and its chain, as PEM"),
    click.option("--ssl-keyfile", metavar="FILE", help="The key of the certificate, if it is in another file"),
    click.option(
        "--allow-origin",
        multiple=True,
        metavar="ORIGIN",
        callback=_checked_origins,
        help="An origin whose pages may call, such as https://shop.example; may be repeated. Default:"
        " $DULY_ALLOW_ORIGINS, then any",
    ),
    click.option(
        "--log-format",
        type=click.Choice([TEXT, JSON]),
        default=TEXT,
        help="Print runs and log records as text on the standard output, or as lines of JSON on the standard error."
        " Default: text",
    ),
    click.option(
        "--log-level",
        type=click.Choice(["info", "warning", "error"]),
        default="info",
        help="Print what is at least so important: info has every run, warning has scheduled functions that failed and"
        " all problems. Default: info",
    ),
)
