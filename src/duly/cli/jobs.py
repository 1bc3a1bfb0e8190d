"""`duly jobs`: list, show, cancel and retry scheduled functions; pause and resume the executor."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from functools import partial
from typing import Final

import click

from duly.cli import options
from duly.cli.commands import Commands
from duly.cli.errors import errors_as_text
from duly.cli.open_store import open_store
from duly.cli.printing import job_text, pause_note
from duly.cli.printing.job_text import Relatives
from duly.cli.printing.times import local_and_utc, relative, time
from duly.database.database import Database
from duly.database.transaction import Transaction
from duly.declare.references import canonical
from duly.errors import InvalidIdError
from duly.model import executor_pause, job_admin
from duly.model import jobs as model
from duly.model.job_admin import ROWS_AT_ONCE, Selection
from duly.model.job_state import CANCELED, FAILED, IN_PROGRESS, PENDING, SUCCESS
from duly.storage.rows import JOBS, Job

_STATES: Final = {state.lower(): state for state in (PENDING, IN_PROGRESS, SUCCESS, FAILED, CANCELED)}
_COUNTED_MAX: Final = 100_000  # a larger number is printed as "more than"


@click.group(cls=Commands)
def jobs() -> None:
    """List and show scheduled functions, cancel and retry them, pause and resume the executor.

    These commands need no functions, and run none. A store in PostgreSQL may be in use meanwhile. A SQLite file has one
    owner at a time: if another process owns it, these commands say which.
    """


def _state(text: str) -> str:
    state = _STATES.get(text.replace("-", "").lower())
    if state is None:
        raise click.BadParameter(f"got {text!r}, expected one of {', '.join(_STATES.values())}")
    return state


_function: Final = click.option(
    "--function", type=canonical, metavar="NAME", help="Those of this function, such as orders:archive."
)
_due_before: Final = click.option(
    "--due-before",
    type=time,
    metavar="TIME",
    help="Those scheduled for a time before this: 2030-01-31T09:00 (local), 2030-01-31T09:00Z, now, 1h (from now).",
)
_yes: Final = click.option("--yes", is_flag=True, help="Do not ask.")


# list


@jobs.command("list")
@click.option("--state", type=_state, metavar="STATE", help="pending, inProgress, success, failed or canceled.")
@_function
@_due_before
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="How many.")
@click.option("--all", "everything", is_flag=True, help="All of them, however many.")
@click.option("--json", "as_json", is_flag=True, help="An array of documents, one a line, as functions see them.")
@options.store
def list_(
    state: str | None,
    function: str | None,
    due_before: float | None,
    limit: int,
    everything: bool,
    as_json: bool,
    store: str,
) -> None:
    """List scheduled functions.

    Without --state and --function, the newest come first. With one of them, the order is by scheduled time: the
    earliest first if they are pending or in progress, else the latest first. --due-before without --state lists pending
    ones.
    """
    state = PENDING if state is None and due_before is not None else state
    selection = Selection(state, function, due_before, descending=state not in (PENDING, IN_PROGRESS))
    with errors_as_text():
        asyncio.run(_list(store, selection, None if everything else limit, as_json))


async def _list(store: str, selection: Selection, limit: int | None, as_json: bool) -> None:
    async with open_store(store) as database:
        paused, now = await job_admin.read(database, pause_note.pause_and_time)
        if paused is not None and not as_json:
            click.echo(pause_note.note(paused, now), err=True)
        printed, page, is_more = 0, list[Job](), False
        wanted = ROWS_AT_ONCE if limit is None else limit + 1
        if as_json:
            click.echo("[", nl=False)
        async with aclosing(job_admin.select_all(database, selection, wanted)) as found:
            async for job in found:
                if is_more := printed + len(page) == limit:
                    break
                page.append(job)
                if len(page) == ROWS_AT_ONCE:
                    printed += _print(page, printed, as_json, database, now)
        printed += _print(page, printed, as_json, database, now)
        if as_json:
            click.echo("\n]" if printed else "]")
        elif not printed:
            click.echo("no scheduled functions", err=True)
        if is_more:
            click.echo(f"… and more: these are the first {limit}; --limit N or --all shows others", err=True)


def _print(page: list[Job], printed: int, as_json: bool, database: Database, now: float) -> int:
    """Print a page after `printed` other jobs, and clear it. Return the number of its jobs."""
    if as_json:
        for position, job in enumerate(page, printed):
            click.echo(f"{',' if position else ''}\n{job_text.as_json(job, database.ids)}", nl=False)
    elif page:
        title, *lines = job_text.table(page, database.ids, now)
        click.echo("\n".join(lines if printed else [title, *lines]))
    count = len(page)
    page.clear()
    return count


# show


@jobs.command()
@click.argument("id")
@click.option("--json", "as_json", is_flag=True, help="Its document only, as functions see it.")
@options.store
def show(id: str, as_json: bool, store: str) -> None:
    """Show all details of the scheduled function ID, what scheduled it and what it scheduled."""
    with errors_as_text():
        asyncio.run(_show(store, id, as_json))


async def _show(store: str, id: str, as_json: bool) -> None:
    async with open_store(store) as database:
        number = _number(database, id)
        job, relatives = await job_admin.read(database, partial(_with_relatives, number=number))
        paused, now = await job_admin.read(database, pause_note.pause_and_time)
        if job is None:
            raise InvalidIdError(f"got {id}, expected one that exists: seven days after its end a function has expired")
        if as_json:
            click.echo(job_text.as_json(job, database.ids))
            return
        for line in job_text.details(job, relatives, database.ids, now, paused):
            click.echo(line)


async def _with_relatives(transaction: Transaction, number: int) -> tuple[Job | None, Relatives]:
    async def get(id: int | None) -> Job | None:
        row = None if id is None else await transaction.get(JOBS, id)
        return row if isinstance(row, Job) else None

    job = await get(number)
    if job is None:
        return None, Relatives(None, ([], True), None, ([], True))
    children, retries = await job_admin.children(transaction, job), await job_admin.retries(transaction, job)
    return job, Relatives(await get(job.parent), children, await get(job.retry_of), retries)


def _number(database: Database, id: str) -> int:
    """Return the number in the id of a scheduled function."""
    decoded = database.ids.decode(id)
    if decoded is None:
        raise InvalidIdError(f"got {id!r:.80}, which is no id of this store, expected that of a scheduled function")
    if decoded[0] != JOBS.number:
        table = database.table_of(id)
        raise InvalidIdError(f"got the id of a document of {table!r}, expected that of a scheduled function")
    return decoded[1]


# cancel


@jobs.command()
@click.argument("id", required=False)
@_function
@click.option("--state", type=_state, metavar="STATE", help="pending or inProgress. Default: both.")
@_due_before
@_yes
@options.store
def cancel(
    id: str | None, function: str | None, state: str | None, due_before: float | None, yes: bool, store: str
) -> None:
    """Cancel the scheduled function ID, or all that match the options.

    A pending one will not run. An action in progress goes on, but its result is dropped, and what it schedules from
    then on is canceled, too. Functions that are scheduled after the command has begun are left alone.
    """
    has_filter = function is not None or state is not None or due_before is not None
    if (id is not None) == has_filter:
        raise click.UsageError("got no ID and no option that says which, or both; expected one of them")
    if state not in (None, *job_admin.CANCELABLE):
        raise click.UsageError(f"got the state {state}, expected pending or inProgress: the others have completed")
    with errors_as_text():
        if id is not None:
            asyncio.run(_cancel_one(store, id))
            return
        states = job_admin.CANCELABLE if state is None else (state,)
        counts, newest = asyncio.run(_count(store, [Selection(one, function, due_before) for one in states]))
        if not any(counts):
            click.echo("none to cancel")
            return
        if not yes:  # the store is closed while the question is open
            click.confirm(f"cancel {_counted(counts, states)}?", abort=True)
        selections = [Selection(one, function, due_before, newest=newest) for one in states]
        canceled = asyncio.run(_cancel(store, selections))
        click.echo(f"canceled {canceled:,}")
        if max(counts) <= _COUNTED_MAX and canceled < sum(counts):
            went = "had completed" if state is None else "had started or completed"
            click.echo(f"{sum(counts) - canceled:,} {went} meanwhile")


async def _cancel_one(store: str, id: str) -> None:
    async with open_store(store) as database:
        await job_admin.commit(database, partial(model.cancel, id=_number(database, id), own=None))
        click.echo(f"canceled {id}")


async def _count(store: str, selections: Sequence[Selection]) -> tuple[list[int], int]:
    """Count each selection, up to one more than is printed. Return also the id of the newest function."""
    async with open_store(store) as database:
        newest = await job_admin.read(database, job_admin.newest)
        return [await job_admin.count(database, one, _COUNTED_MAX + 1) for one in selections], newest


def _counted(counts: Sequence[int], states: Sequence[str]) -> str:
    parts = [f"{_figure(count)} {state}" for count, state in zip(counts, states, strict=True) if count]
    return f"{_functions(sum(counts))} ({', '.join(parts)})"


def _functions(count: int) -> str:
    return f"{_figure(count)} scheduled function{'' if count == 1 else 's'}"


def _figure(count: int) -> str:
    return f"{count:,}" if count <= _COUNTED_MAX else f"more than {_COUNTED_MAX:,}"


async def _cancel(store: str, selections: Sequence[Selection]) -> int:
    async with open_store(store) as database:
        return sum([await job_admin.cancel_selected(database, one) for one in selections])


# retry


@jobs.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@_function
@click.option("--failed-after", type=time, metavar="TIME", help="Those that failed then or later: -1h is an hour ago.")
@_yes
@options.store
def retry(ids: tuple[str, ...], function: str | None, failed_after: float | None, yes: bool, store: str) -> None:
    """Schedule each failed function ID again, to run now; or all failed runs of one function.

    The same function runs once more with the same arguments. Its `retryOf` is the failed one, which stays as it is.
    With --function, failed ones that were scheduled again before are left out.
    """
    if bool(ids) == (function is not None) or (ids and failed_after is not None):
        raise click.UsageError("got neither an ID nor --function, or both; expected one of them")
    with errors_as_text():
        if function is None:
            asyncio.run(_retry_these(store, list(dict.fromkeys(ids))))  # without duplicates
            return
        failed = asyncio.run(_failed(store, Selection(FAILED, function, completed_after=failed_after)))
        if not failed:
            click.echo("none to retry")
            return
        if not yes:
            interrupted = sum(job.error == model.INTERRUPTED for job in failed)
            warning = f" {interrupted:,} of them were interrupted and may have done their work." if interrupted else ""
            click.confirm(f"{_functions(len(failed))} failed.{warning} Schedule them again?", abort=True)
        asyncio.run(_retry(store, [job.id for job in failed]))
        click.echo(f"scheduled {len(failed):,} again")


async def _retry_these(store: str, ids: Sequence[str]) -> None:
    async with open_store(store) as database:
        numbers = [_number(database, id) for id in ids]
        for id, new in zip(ids, await job_admin.commit(database, partial(_retry_all, ids=numbers)), strict=True):
            click.echo(f"{id} is scheduled again as {database.ids.encode(JOBS.number, new)}")
        await pause_note.print_if_paused(database)


async def _retry_all(transaction: Transaction, ids: Sequence[int]) -> list[int]:
    """Retry all or none, so that the same command can be repeated after an error."""
    return [await model.retry(transaction, id) for id in ids]


async def _failed(store: str, selection: Selection) -> list[Job]:
    async with open_store(store) as database:
        return await job_admin.unretried(database, selection)


async def _retry(store: str, ids: Sequence[int]) -> None:
    async with open_store(store) as database:
        for first in range(0, len(ids), ROWS_AT_ONCE):
            some = ids[first : first + ROWS_AT_ONCE]
            await job_admin.commit(database, partial(_retry_all, ids=some))
        await pause_note.print_if_paused(database)


# pause and resume


@jobs.command()
@options.store
def pause(store: str) -> None:
    """Start no scheduled function, in any process, until `duly jobs resume`. What runs goes on."""
    with errors_as_text():
        asyncio.run(_pause(store))


async def _pause(store: str) -> None:
    async with open_store(store) as database:
        if await job_admin.commit(database, executor_pause.pause):
            click.echo("paused: nothing starts until duly jobs resume, and what runs goes on")
        else:
            paused, now = await job_admin.read(database, pause_note.pause_and_time)
            since = "" if paused is None else f" since {local_and_utc(paused)} ({relative(paused, now)})"
            click.echo(f"it was paused already{since}")


@jobs.command()
@options.store
def resume(store: str) -> None:
    """Start scheduled functions again: first those that became due meanwhile, in their order."""
    with errors_as_text():
        asyncio.run(_resume(store))


async def _resume(store: str) -> None:
    async with open_store(store) as database:
        was_paused = await job_admin.commit(database, executor_pause.resume)
        click.echo("resumed: what is due starts" if was_paused else "it was not paused")
