"""A month in a tea shop in a quarter of a minute, with a `kill -9` in the middle: `make demo`.

This process starts the shop as a child process: the application in `backend`, on a SQLite file in a temporary folder,
with a clock that runs fast. The child dies in the middle of a transaction, is started again, and finishes by itself
what was scheduled. At the end everything is counted.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
from board import Board, Heard, Overview
from closing import count_up
from timelapse import DAY_MS, DAYS_PER_SECOND, OPENING, TimelapseClock

from duly import App, faults

HERE: Final = Path(__file__).parent
ORDERS: Final = (
    # What, for whom, and the card and the pence to charge.
    (["black tea", "honey"], "ada@example.com", ("4242", 450)),
    (["green tea"], "grace@example.com", ("0000", 300)),
    (["a teapot"], "alan@example.com", None),
)
ITEMS_IN_STOCK: Final = [f"tea no. {number}" for number in range(1, 401)]
KILLED_AT_ITEM: Final = 250
LIMIT_SECONDS: Final = 80.0
"""How long a process waits for what ought to happen, on however slow a machine."""


# The parent.


def main() -> int:
    headline("A month in a tea shop")
    click.echo(f"One second is {DAYS_PER_SECOND:g} days. Each line is a change as a subscription sees it.\n")
    with tempfile.TemporaryDirectory(prefix="duly-demo-", ignore_cleanup_errors=True) as folder:
        with start_shop("open", folder) as shop:
            if shop.wait() != -signal.SIGKILL:
                return problem(f"the shop ended with exit code {shop.returncode}, expected it to be killed")
        click.secho(f"\nkill -9: process {shop.pid} is gone, in the middle of a transaction.", fg="red", bold=True)
        with start_shop("reopen", folder) as shop:
            click.secho(f"Process {shop.pid} opens the same file and goes on.\n", bold=True)
            if shop.wait() != 0:
                return problem("something was lost, done twice, or did not happen; see above")
    say_what_next()
    return 0


def start_shop(act: str, folder: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, act, folder])


def headline(text: str) -> None:
    click.secho(f"\n{text}\n{'─' * len(text)}", bold=True)


def problem(text: str) -> int:
    click.secho(f"\nFAILED: {text}.", fg="red", bold=True)
    return 1


def say_what_next() -> None:
    headline("What to try next")
    order = """.venv/bin/duly run orders:create_order '{"items": ["tea"]}' --folder examples/orders/backend"""
    command = partial(click.style, fg="cyan")
    click.echo(f"  {command('make dev')} runs this shop in real time; from another terminal, order something:")
    click.echo(f"  {command(order)}")
    click.echo(f"  {command('examples/orders/backend/orders.py')} shows how little there is to write")
    click.echo(f"  {command('make bench')} measures, {command('make crash')} kills it again and again, and counts")


# The child. It is started twice: it opens the shop and is killed; it opens the shop again and finishes.


@asynccontextmanager
async def shop_in(folder: str, *, again: bool) -> AsyncIterator[tuple[App, TimelapseClock, Board]]:
    """The application at work, and a board that shows what it does."""
    clock = TimelapseClock(Path(folder, "clock"))
    board = Board(clock, again=again)
    logging.getLogger("duly.app").addHandler(Heard(board))
    async with App(HERE / "backend", f"sqlite:///{folder}/shop.db", clock=clock) as app:
        work = (show(app, board), show_stock(app, board), board.print_settled())
        tasks = [asyncio.create_task(each) for each in work]
        try:
            yield app, clock, board
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def show(app: App, board: Board) -> None:
    async for overview in app.subscribe("dashboard:overview"):
        board.see(overview)


async def show_stock(app: App, board: Board) -> None:
    async for stock in app.subscribe("stocktaking:result"):
        board.see_stock(stock)


async def open_shop(folder: str) -> int:
    async with shop_in(folder, again=False) as (app, clock, _):
        await run_the_first_days(app, clock)
        await until(app, "dashboard:overview", ready_for_stocktaking)
        await clock.sleep_until_day(6)
        # This process is to die when one more handler has returned and nothing of its transaction is stored.
        faults.arm("job.ran", lambda: os.kill(os.getpid(), signal.SIGKILL), KILLED_AT_ITEM)
        await app.mutation("stocktaking:begin", {"items": ITEMS_IN_STOCK, "minutes_each": 10})
        await asyncio.sleep(LIMIT_SECONDS)
        return problem(f"{LIMIT_SECONDS:.0f} seconds have passed, expected to be dead by now")


async def run_the_first_days(app: App, clock: TimelapseClock) -> None:
    ada = await app.mutation("billing:sign_up", {"name": "Ada", "email": "ada@example.com"})
    await app.mutation("billing:start_trial", {"user_id": ada})
    lemons = {"email": "ada@example.com", "text": "order lemons", "remind_at": OPENING + 22 * DAY_MS}
    await app.mutation("reminders:schedule_reminder", lemons)
    tea = {"email": "ada@example.com", "text": "drink more tea", "remind_at": OPENING + 25 * DAY_MS}
    to_cancel = await app.mutation("reminders:schedule_reminder", tea)
    for day, (items, customer, card) in enumerate(ORDERS):
        await clock.sleep_until_day(day)
        order_id = await app.mutation("orders:create_order", {"items": items, "customer": customer})
        if card is not None:
            number, pence = card
            await app.mutation("payments:pay", {"order_id": order_id, "card": number, "pence": pence})
    await clock.sleep_until_day(3)
    await app.mutation("reminders:cancel_reminder", {"reminder_id": to_cancel})
    await clock.sleep_until_day(4)
    await app.mutation("catalogue:order_printing", {"pages": 1_000})


def ready_for_stocktaking(overview: Overview) -> bool:
    """Whether the first days are over and done with, and the catalogue is being printed."""
    running = [function["name"] for function in overview["functions"] if function["state"]["kind"] == "inProgress"]
    return (
        running == ["catalogue:print_pages"]
        and all(order["status"] == "confirmed" for order in overview["orders"])
        and all(payment["status"] != "processing" for payment in overview["payments"])
    )


async def until(app: App, query: str, condition: Callable[[Any], bool]) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        async for value in app.subscribe(query):
            if condition(value):
                return


async def reopen_shop(folder: str) -> int:
    async with shop_in(folder, again=True) as (app, _, board):
        await until(app, "dashboard:at_rest", bool)
        await asyncio.sleep(0.5)  # the board shows the last changes
        headline("Closing count")
        if not await count_up(app, board):
            return 1
        click.secho("\n  Nothing was lost and nothing was done twice.", fg="green", bold=True)
        return 0


def child(act: str, folder: str) -> int:
    try:
        return asyncio.run({"open": open_shop, "reopen": reopen_shop}[act](folder))
    except TimeoutError:
        return problem(f"{LIMIT_SECONDS:.0f} seconds have passed, expected what is scheduled to be done by now")


if __name__ == "__main__":
    try:
        sys.exit(child(*sys.argv[1:]) if sys.argv[1:] else main())
    except KeyboardInterrupt:
        sys.exit(130)
