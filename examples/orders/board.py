"""The board in the back room: turns what subscriptions see into one line for each change."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import click
from timelapse import TimelapseClock, day_of

from duly.clock import to_datetime

Overview = dict[str, Any]
"""What dashboard:overview returns."""

_COLOURS: Final = {
    **dict.fromkeys(("pending", "processing", "trial"), "yellow"),
    **dict.fromkeys(("success", "succeeded", "confirmed"), "green"),
    **dict.fromkeys(("archived", "free"), "blue"),
    "inProgress": "cyan",
    "failed": "red",
    "canceled": "magenta",
}
_SETTLED_SECONDS: Final = 0.2
"""Changes of one thing that follow each other faster share a line."""
_WIDTH: Final = 110


@dataclass
class _Line:
    """What is about to be printed of one thing: its states so far, and a note on the last one."""

    name: str
    about: str
    states: list[str]
    note: str
    at: float
    changed: float = field(default_factory=time.monotonic)


class Board:
    """Prints what changes from one view of the shop to the next.

    With `again`, the first view tells what there was before this process; only what ended since then is news.
    """

    def __init__(self, clock: TimelapseClock, *, again: bool) -> None:
        self.interrupted: dict[str, str] = {}
        """The functions that were shown as failed, and their errors."""
        self._clock = clock
        self._again = again
        self._started = clock.now()
        self._names: dict[str, str] = {}
        self._states: dict[str, str] = {}
        self._lines: dict[str, _Line] = {}
        self._counted: int | None = None

    # What there is to see.

    def see(self, overview: Overview) -> None:
        """Take note of everything whose state has changed."""
        old = self._again and not self._states
        self._names.update(_names_of(overview))
        for id, name, about, state, note in _things_in(overview, self._names):
            before = self._states.get(id)
            self._states[id] = state
            if before != state and not old:
                self._change(id, name, about, before, state, note)
        for function in sorted(overview["functions"], key=lambda function: function["_creationTime"]):
            self._see_function(function, old)
        if old:
            self._print(list(self._lines))

    def _see_function(self, function: dict[str, Any], old: bool) -> None:
        id, name, state = function["_id"], function["name"], function["state"]["kind"]
        before = self._states.get(id)
        self._states[id] = state
        if old:
            before = "inProgress" if state == "failed" else "pending"
        if before == state or (old and function.get("completedTime", 0) < self._started):
            return
        note = ""
        if state == "failed":
            note = self.interrupted[name] = function["state"]["error"].splitlines()[0]
        elif state == "pending" and function["scheduledTime"] > self._clock.now():
            note = f"due on day {day_of(function['scheduledTime'])}"
        self._change(id, name, _about(function["args"][0], self._names), before, state, note)

    def see_stock(self, stock: dict[str, int]) -> None:
        """Take note of hundreds of changes in a few lines: the first, each quarter, the last."""
        expected, counted = stock["expected"], stock["counted"]
        if not expected:
            return
        before, self._counted = self._counted, counted
        about = f"× {expected}"
        if before is None and self._again:
            self._say("stocktaking:count_item", about, f"{counted} done, {expected - counted} to go")
        elif before is None:
            self._say("stocktaking:count_item", about, _coloured("pending"), "one mutation for each item")
        elif counted * 4 // expected > before * 4 // expected:
            self._say("stocktaking:count_item", about, f"{counted} done")

    def hear(self, function: str, text: str) -> None:
        """Take note of what a function has logged."""
        self._lines[f"log {len(self._lines)} {text}"] = _Line(function, "", [text], "", self._clock.now())

    def _change(self, id: str, name: str, about: str, before: str | None, state: str, note: str) -> None:
        line = self._lines.get(id)
        if line is None:
            states = [state] if before is None else [before, state]
            self._lines[id] = _Line(name, about, states, note, self._clock.now())
        else:
            line.states.append(state)
            line.note, line.at, line.changed = note, self._clock.now(), time.monotonic()

    # What is printed.

    async def print_settled(self) -> None:
        """Print what has come to rest, in the order in which it began, forever."""
        while True:
            await asyncio.sleep(_SETTLED_SECONDS / 4)
            settled: list[str] = []
            for id, line in self._lines.items():
                if time.monotonic() - line.changed < _SETTLED_SECONDS:
                    break
                settled.append(id)
            self._print(settled)

    def _print(self, ids: list[str]) -> None:
        for id in ids:
            line = self._lines.pop(id)
            self._say(line.name, line.about, " → ".join(map(_coloured, line.states)), line.note, line.at)

    def _say(self, name: str, about: str, text: str, note: str = "", at: float | None = None) -> None:
        at = self._clock.now() if at is None else at
        when = click.style(f"day {day_of(at):>2}  {to_datetime(at):%b %d}", dim=True)
        line = f"{when}  {click.style(f'{name:<24}', bold=':' in name)} {about:<16} {text}"
        room = _WIDTH - len(click.unstyle(line))
        shown = note if len(note) < room else f"{note[: room - 2]}…"
        click.echo(f"{line} {click.style(shown, dim=True)}" if note else line)


class Heard(logging.Handler):
    """Shows on a board what functions log as a warning or worse."""

    def __init__(self, board: Board) -> None:
        super().__init__(logging.WARNING)
        self._board = board

    def emit(self, record: logging.LogRecord) -> None:
        self._board.hear(record.name.removeprefix("duly.app."), record.getMessage())


def _coloured(state: str) -> str:
    return click.style(state, fg=_COLOURS.get(state))


def _names_of(overview: Overview) -> dict[str, str]:
    """What to call the documents, by their ids."""
    names = {user["_id"]: user["name"] for user in overview["users"]}
    names.update((reminder["_id"], reminder["text"]) for reminder in overview["reminders"])
    for kind in ("order", "payment"):
        for number, document in enumerate(reversed(overview[f"{kind}s"]), 1):
            names[document["_id"]] = f"{kind} {number}"
    return names


def _things_in(overview: Overview, names: dict[str, str]) -> Iterator[tuple[str, str, str, str, str]]:
    """Id, name, whom it is about, state and a note, of all that has a state besides functions."""
    for user in overview["users"]:
        yield user["_id"], user["name"], "plan", user["plan"], ""
    for order in reversed(overview["orders"]):
        yield order["_id"], names[order["_id"]], "", order["status"], ", ".join(order["items"])
    for payment in reversed(overview["payments"]):
        tries = f"at attempt {payment['attempts']}" if payment["attempts"] else ""
        yield payment["_id"], names[payment["_id"]], names[payment["order_id"]], payment["status"], tries


def _about(args: dict[str, Any], names: dict[str, str]) -> str:
    """Whom a function is about, as far as its arguments tell."""
    about = [names[value] for value in args.values() if isinstance(value, str) and value in names]
    if "attempt" in args:
        about.append(f"try {args['attempt']}")
    if "to" in args:
        about.append(f"to {args['to'].partition('@')[0]}")
    return ", ".join(about)
