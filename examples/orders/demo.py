"""A month in a tea shop, in a quarter of a minute, with a `kill -9` in the middle: `make demo`.

The parent process starts the shop as a child: the application in `backend`, on a SQLite file in a temporary folder,
with a clock that runs fast. The child ends in the middle of a transaction, is started again, and finishes by itself
what was scheduled. At the end everything is counted.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import asynccontextmanager, suppress
from collections.abc import AsyncIterator, Awaitable, Callable
import logging
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
from board import Board, Overview, WarningsOn
from timelapse import DAY_MS, DAYS_PER_SECOND, OPENING, TimelapseClock, day_of

from duly import App, faults

HERE: Final = Path(__file__).parent
ITEMS: Final = [f"tea no. {number}" for number in range(1, 401)]
KILLED_AT_ITEM: Final = 250
ORDERS: Final = (
    (["black tea", "honey"], "ada@example.com"),
    (["green tea"], "grace@example.com"),
    (["a teapot"], "alan@example.com"),
)
LIMIT_SECONDS: Final = 60.0
"""How long a process waits for what ought to happen, on however slow a machine."""


# The parent.


def main() -> int:
    headline("A month in a tea shop")
    click.echo(f"One second is {DAYS_PER_SECOND} days. Each line is a change as a subscription to the database sees it:")
    click.echo("functions as they go from pending to their end, orders, payments and plans as they change.\n")
    with tempfile.TemporaryDirectory(prefix="duly-demo-") as folder:
        opened = time.time()
        shop = start_shop("open", folder, opened)
        if shop.wait() != -signal.SIGKILL:
            return problem(f"the shop ended with {shop.returncode}, expected it to be killed")
        click.echo()
        click.secho(f"kill -9: process {shop.pid} is gone, in the middle of a transaction.", fg="red", bold=True)
        shop = start_shop("reopen", folder, opened)
        click.secho(f"Process {shop.pid} opens the same file and goes on.\n", bold=True)
        if shop.wait() != 0:
            return problem("the shop did not come to its end as it should, see above")
    what_next()
    return 0


def start_shop(act: str, folder: str, opened: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, act, folder, repr(opened)])


def headline(text: str) -> None:
    click.secho(f"\n{text}\n{'─' * len(text)}", bold=True)


def problem(text: str) -> int:
    click.secho(f"\nSomething is wrong: {text}.", fg="red", bold=True)
    return 1


def what_next() -> None:
    headline("What to try next")
    order = """'{"items": ["tea"]}'"""
    for command, meaning in (
        ("make dev", "serve this shop, and in another terminal order something:"),
        (f".venv/bin/duly run orders:create_order {order} --folder examples/orders/backend", ""),
        ("open examples/orders/backend/orders.py", "read how little it takes"),
        ("make bench", "measure it"),
        ("make crash", "kill it a few hundred times, and count"),
    ):
        click.echo(f"  {click.style(f'{command:<40}', fg='cyan')} {meaning}".rstrip())


# The child. It is started twice: it opens the shop and is killed, it opens it again and finishes.


@asynccontextmanager
async def shop(folder: str, opened: float, again: bool) -> AsyncIterator[tuple[App, TimelapseClock, Board]]:
    """The application at work, with a board that shows what it does."""
    clock = TimelapseClock(opened)
    board = Board(clock, again)
    logging.getLogger("duly.app").addHandler(WarningsOn(board))
    async with App(HERE / "backend", f"sqlite:///{folder}/shop.db", clock=clock) as app:
        tasks = [asyncio.create_task(watch(app, board)), asyncio.create_task(board.print_settled())]
        try:
            yield app, clock, board
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def watch(app: App, board: Board) -> None:
    async for overview in app.subscribe("dashboard:overview"):
        board.see(overview)


async def open_shop(folder: str, opened: float) -> None:
    async with shop(folder, opened, again=False) as (app, clock, _):
        ada = await app.mutation("billing:sign_up", {"name": "Ada", "email": "ada@example.com"})
        await app.mutation("billing:start_trial", {"user_id": ada})
        reminder = {"email": "ada@example.com", "text": "drink more tea", "remind_at": OPENING + 20 * DAY_MS}
        reminder_id = await app.mutation("reminders:schedule_reminder", reminder)
        for day, (items, customer) in enumerate(ORDERS):
            await clock.sleep_until_day(day)
            order_id = await app.mutation("orders:create_order", {"items": items, "customer": customer})
            if day == 0:
                payment = {"order_id": order_id, "pence": 450, "card": "4242"}
            else:
                payment = {"order_id": order_id, "pence": 300, "card": "0000"}
            if day < 2:
                await app.mutation("payments:pay", payment)
        await clock.sleep_until_day(3)
        await app.mutation("reminders:cancel_reminder", {"reminder_id": reminder_id})
        await clock.sleep_until_day(4)
        await app.mutation("catalogue:order_printing", {"pages": 1_000})
        await until(app, ready_for_stocktaking)
        await clock.sleep_until_day(6)

        # Dies when the handler of one more count has returned and nothing of its transaction is stored.
        faults.arm("job.ran", lambda: os.kill(os.getpid(), signal.SIGKILL), KILLED_AT_ITEM)
        await app.mutation("stocktaking:begin", {"items": ITEMS, "minutes_each": 10})
        await asyncio.sleep(LIMIT_SECONDS)


def ready_for_stocktaking(overview: Overview) -> bool:
    """Whether all of the first days is done, and the catalogue is being printed."""
    now_running = [function["name"] for function in overview["functions"] if function["state"]["kind"] == "inProgress"]
    return (
        now_running == ["catalogue:print_pages"]
        and all(order["status"] == "confirmed" for order in overview["orders"])
        and all(payment["status"] != "processing" for payment in overview["payments"])
    )


async def until(app: App, condition: Callable[[Overview], bool]) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        async for overview in app.subscribe("dashboard:overview"):
            if condition(overview):
                return


async def reopen_shop(folder: str, opened: float) -> int:
    async with shop(folder, opened, again=True) as (app, clock, board):
        await at_rest(app)
        await asyncio.sleep(0.5)  # the board shows the last changes
        board.flush()
        return closing(await Found.out(app, board), day_of(clock.now()))
