"""The command line: `duly dev`, `duly run`, `duly migrate`."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import tomllib
from contextlib import nullcontext, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import click
import orjson

from duly.app import DEFAULT_STORE, App, sqlite_path
from duly.clock import to_datetime
from duly.errors import DulyError, LoadError, SchemaValidationError
from duly.functions.call_log import APP_LOG
from duly.functions.failure import describe
from duly.functions.registry import Registry
from duly.functions.runner import Run
from duly.server import door
from duly.storage.postgres.address import PREFIXES as POSTGRES
from duly.storage.postgres.address import need_driver, parse
from duly.values.value import dumps, loads

DEFAULT_FOLDER = "backend"


def _setting(name: str, default: str) -> str:
    """A key of [tool.duly] in ./pyproject.toml."""
    file = Path("pyproject.toml")
    tools: dict[str, Any] = tomllib.loads(file.read_text()).get("tool", {}) if file.is_file() else {}
    return str(tools.get("duly", {}).get(name, default))


_store = click.option(
    "--store",
    default=lambda: _setting("store", DEFAULT_STORE),
    metavar="ADDRESS",
    help=f"Where the data is. Default: [tool.duly] store, then {DEFAULT_STORE}",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("duly"), prog_name="duly")
def main() -> None:
    """Functions that run when they should, exactly once."""


@main.command()
@click.argument("folder", default=lambda: _setting("folder", DEFAULT_FOLDER))
@_store
def dev(folder: str, store: str) -> None:
    """Execute the functions in FOLDER, reload them when a file changes, and print each run.

    FOLDER defaults to [tool.duly] folder, then to ./backend. Call functions from another terminal
    with `duly run`.
    """
    if not Path(folder).is_dir():
        raise click.ClickException(f"got the folder {folder!r}, which does not exist; name one: duly dev FOLDER")
    with _errors_as_text(), suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(_dev(folder, store))
    click.echo("stopped")


@main.command()
@click.argument("function")
@click.argument("args", default="{}", metavar="[JSON]")
@click.option("--folder", default=lambda: _setting("folder", DEFAULT_FOLDER), help="Where the functions are.")
@_store
def run(function: str, args: str, folder: str, store: str) -> None:
    """Run FUNCTION, such as orders:create_order, with the arguments in JSON, and print what it returns.

    While `duly dev` runs on the same store, it is the one that runs the function.
    """
    with _errors_as_text():
        arguments = _arguments(args)
        try:
            value = door.call(_file_of(store), function, dumps(arguments))
        except door.NobodyThereError:
            value = asyncio.run(_run(function, arguments, folder, store))
        click.echo(orjson.dumps(loads(dumps(value)), option=orjson.OPT_INDENT_2).decode())


def _arguments(text: str) -> dict[str, Any]:
    try:
        # As from every client: a number with an integral value is an int, 3.0 as well as 3.
        value = json.loads(text, parse_float=_number)
    except ValueError as error:
        raise click.BadParameter(f'got {text!r}, expected JSON such as \'{{"items": ["tea"]}}\': {error}') from None
    if not isinstance(value, dict):
        raise click.BadParameter(f'got {text!r}, expected a JSON object such as \'{{"items": ["tea"]}}\'')
    return cast("dict[str, Any]", value)


def _number(text: str) -> float:
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 2**63 else value


def _file_of(store: str) -> str:
    """The file that one process owns. NobodyThereError where the store is not a file: many processes open it."""
    if store.startswith(POSTGRES):
        raise door.NobodyThereError
    return sqlite_path(store)


async def _run(function: str, args: dict[str, Any], folder: str, store: str) -> Any:
    async with App(folder, store, executor=False) as app:
        return await app.run(function, args)


@main.command()
@click.option("--plan", is_flag=True, help="Only say what would be done.")
@click.option("--folder", help="Apply the schema of this folder too, though a newer one was applied before.")
@_store
def migrate(plan: bool, folder: str | None, store: str) -> None:
    """Bring the tables of duly itself in a PostgreSQL database up to date.

    Every start does so too; this does it beforehand. Nodes of the version before may run meanwhile, and it may be
    interrupted: nothing is left half done.
    """
    if not store.startswith(POSTGRES):
        raise click.ClickException(f"got the store {store!r}; a file is migrated when it is opened")
    with _errors_as_text():
        need_driver()
        from duly.storage.postgres import layout

        for line in layout.plan(parse(store)):
            click.echo(line)
        if not plan:
            layout.bring_up_to_date(parse(store))
            click.echo(f"the store is of format {layout.FORMAT}")
            if folder is not None:
                asyncio.run(_deploy(folder, store))
                click.echo(f"the schema of {folder} is the newest")


async def _deploy(folder: str, store: str) -> None:
    async with App(folder, store, executor=False) as app:
        await app.reload()


class _errors_as_text:
    """Prints an expected error as its message instead of a traceback, and exits with 1."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, door.RemoteError):
            raise click.ClickException(str(error)) from None
        if isinstance(error, Exception) and not isinstance(error, click.ClickException | click.Abort):
            raise click.ClickException(describe(error)) from None


# duly dev


async def _dev(folder: str, store: str) -> None:
    _print_runs()
    _end_on_sigterm()
    app = App(folder, store, development=True)
    changes = _Changes(folder)
    await asyncio.sleep(0)  # from here on a change is noticed
    try:
        while not await _opened(app):
            await changes.next()
        async with nullcontext() if store.startswith(POSTGRES) else door.open_door(app, sqlite_path(store)):
            click.echo(f"duly {version('duly')} runs {_counted(app.runner.registry)} of {folder} on {_shown(store)}")
            click.echo(click.style("Call one from another terminal with `duly run`; Ctrl-C ends this.", dim=True))
            while True:
                await changes.next()
                await _reload(app)
    finally:
        changes.close()
        await app.close()


def _shown(store: str) -> str:
    """An address that may be seen: without its password."""
    return parse(store).shown if store.startswith(POSTGRES) else store


def _end_on_sigterm() -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


async def _opened(app: App) -> bool:
    try:
        await app.__aenter__()
    except (LoadError, SchemaValidationError) as error:
        _print_error("cannot start; waiting for a change", error)
        return False
    return True


class _Changes:
    """Changes of the Python files of a folder, none of them missed while others are looked at."""

    def __init__(self, folder: str) -> None:
        # Here: it costs the other commands their start.
        from watchfiles import PythonFilter, awatch  # pyright: ignore[reportUnknownVariableType]

        self._changes = awatch(folder, watch_filter=PythonFilter(), debounce=200)
        self._next = asyncio.ensure_future(anext(self._changes))

    async def next(self) -> None:
        await self._next
        self._next = asyncio.ensure_future(anext(self._changes))

    def close(self) -> None:
        self._next.cancel()


async def _reload(app: App) -> None:
    try:
        registry = await app.reload()
    except DulyError as error:
        _print_error("not reloaded, the last good code goes on", error)
    else:
        click.echo(click.style(f"reloaded {_counted(registry)}", fg="cyan"))


def _counted(registry: Registry) -> str:
    count = len(registry.functions)
    return "1 function" if count == 1 else f"{count} functions"


def _print_error(what: str, error: Exception) -> None:
    click.echo(click.style(f"{what}:", fg="red", bold=True), err=True)
    click.echo(click.style(f"  {error}", fg="red"), err=True)


class _Terminal(logging.Handler):
    """Prints runs and log lines, one below the other."""

    def emit(self, record: logging.LogRecord) -> None:
        time = click.style(f"{to_datetime(record.created * 1000).astimezone():%H:%M:%S}", dim=True)
        run = getattr(record, "run", None)
        if isinstance(run, Run):
            click.echo(f"{time} {_line_of(run)}")
        else:
            level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()} "
            text = record.getMessage() if not record.exc_info else self.format(record)
            click.echo(f"{time} {click.style('│', dim=True)} {record.name}: {level}{text}")


def _line_of(run: Run) -> str:
    mark = click.style("✓", fg="green") if run.error is None else click.style("✗", fg="red")
    scheduled = click.style(" scheduled", dim=True) if run.job is not None else ""
    line = f"{mark} {run.kind:8} {click.style(run.function, bold=True)}{scheduled} {run.milliseconds:.1f} ms"
    if run.error is None:
        return line
    text = describe(run.error).replace("\n", "\n           ")
    return f"{line}\n           {click.style(text, fg='red')}"


def _print_runs() -> None:
    for name in ("duly", APP_LOG, "duly.run"):
        logging.getLogger(name).setLevel(logging.INFO)
    logging.getLogger("duly").addHandler(_Terminal())
    logging.getLogger("duly").propagate = False
