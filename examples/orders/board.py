"""The board in the back room: turns what a subscription sees into one line for each change."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import click
from timelapse import OPENING, TimelapseClock, day_of

from duly.clock import to_datetime

Overview = dict[str, Any]
"""What dashboard:overview returns."""

_COLOURS: Final = {
    "pending": "yellow",
    "processing": "yellow",
    "trial": "yellow",
    "inProgress": "cyan",
    "success": "green",
    "succeeded": "green",
    "confirmed": "green",
    "archived": "blue",
    "free": "blue",
    "failed": "red",
    "canceled": "magenta",
}
_SETTLED_SECONDS: Final = 0.2  # changes that follow each other faster share a line
_WIDTH: Final = 110


@dataclass
class _Line:
    """A thing whose state is changing: its states so far, and what to say about it."""

    name: str
    about: str
    states: list[str]
    at: float
    note: str = ""
    seen: float = field(default_factory=time.monotonic)


class Board:
    """Prints what changes from one overview to the next."""

    def __init__(self, clock: TimelapseClock, again: bool) -> None:
        self.interrupted: dict[str, str] = {}
        """The actions that were shown as interrupted, and their errors."""
        self.canceled: set[str] = set()
        """The scheduled functions that were shown as canceled."""
        self._clock = clock
        self._again = again
        self._since = clock.now()
        self._states: dict[str, str] = {}
        self._lines: dict[str, _Line] = {}
        self._counted: int | None = None

    async def print_settled(self) -> None:
        """Print the lines that have come to rest, forever."""
        while True:
            await asyncio.sleep(_SETTLED_SECONDS / 4)
            self.flush(time.monotonic() - _SETTLED_SECONDS)

    def flush(self, until: float | None = None) -> None:
        """Print the lines that have not changed since, in the order of their first change."""
        for key, line in tuple(self._lines.items()):
            if until is None or line.seen <= until:
                del self._lines[key]
                chain = " → ".join(click.style(state, fg=_COLOURS.get(state)) for state in line.states)
                self.say(line.name, line.about, chain, line.note, line.at)

    def say(self, name: str, about: str, text: str, note: str = "", at: float | None = None) -> None:
        """Print one line: the day, the date, what, about whom, what happened."""
        at = self._clock.now() if at is None else at
        when = f"day {day_of(at):>2}  {to_datetime(at):%b %d}"
        room = _WIDTH - 54 - len(click.unstyle(text))
        if note:
            note = f"  {note}" if len(note) <= room else f"  {note[: room - 1]}…"
        styled = click.style(f"{name:<25}", bold=":" in name)
        click.echo(f"{click.style(when, dim=True)}  {styled} {about:<14} {text}{click.style(note, dim=True)}")

    def see(self, overview: Overview) -> None:
        """Note what has changed since the last overview."""
        first = not self._states
        names = _names_of(overview)
        for key, name, about, state, note in _things_in(overview, names):
            before = self._states.get(key)
            if before == state:
                continue
            self._states[key] = state
            if not (first and self._again):
                self._change(key, name, about, before, state, note)
        for function in overview["functions"]:
            self._see_function(function, names, old=first and self._again)
        self._see_stock(overview["stock"])

    def _see_function(self, function: dict[str, Any], names: dict[str, str], old: bool) -> None:
        key, name, state = function["_id"], function["name"], function["state"]
        kind, before, note = state["kind"], self._states.get(function["_id"]), ""
        if before == kind:
            return
        self._states[key] = kind
        if old:
            # This board is new, the function is not: only what ended since the start is news.
            if function.get("completedTime", 0) < self._since:
                return
            before = "inProgress" if kind == "failed" else "pending"
        if kind == "failed":
            note = self.interrupted[name] = state["error"].splitlines()[0]
        elif kind == "canceled":
            self.canceled.add(name)
        elif kind == "pending" and function["scheduledTime"] > self._clock.now():
            note = f"due on day {day_of(function['scheduledTime'])}"
        self._change(key, name, _about(function["args"][0], names), before, kind, note)

    def _change(self, key: str, name: str, about: str, before: str | None, state: str, note: str) -> None:
        line = self._lines.get(key)
        if line is None:
            states = [state] if before is None else [before, state]
            self._lines[key] = _Line(name, about, states, self._clock.now(), note)
        else:
            line.states.append(state)
            line.note, line.at, line.seen = note, self._clock.now(), time.monotonic()

    def _see_stock(self, stock: dict[str, int]) -> None:
        """Hundreds of changes in a few lines: one at the start, one for each quarter, one at the end."""
        expected, counted = stock["expected"], stock["counted"]
        if not expected:
            return
        before, self._counted = self._counted, counted
        bulk = ("stocktaking:count_item", f"× {expected}")
        if before is None and self._again:
            self.say(*bulk, f"{counted} are counted, {expected - counted} still to be")
        elif before is None:
            self.say(*bulk, click.style("pending", fg="yellow"), "one scheduled mutation for each item in stock")
        elif counted * 4 // expected > before * 4 // expected:
            colour = "green" if counted == expected else None
            self.say(*bulk, click.style(f"{counted:>3} counted", fg=colour))


class WarningsOn(logging.Handler):
    """Shows what functions log, on a board."""

    def __init__(self, board: Board) -> None:
        super().__init__(logging.WARNING)
        self._board = board

    def emit(self, record: logging.LogRecord) -> None:
        self._board.say(record.name, "", click.style(record.getMessage(), fg="yellow"))


def _names_of(overview: Overview) -> dict[str, str]:
    """What to call the documents, by their ids."""
    names = {user["_id"]: user["name"] for user in overview["users"]}
    for kind in ("order", "payment"):
        for number, document in enumerate(reversed(overview[f"{kind}s"]), 1):
            names[document["_id"]] = f"{kind} {number}"
    return names


def _things_in(overview: Overview, names: dict[str, str]) -> Iterator[tuple[str, str, str, str, str]]:
    """Key, name, whom it is about, state and a note of everything that has a state, besides functions."""
    for order in reversed(overview["orders"]):
        yield order["_id"], names[order["_id"]], "", order["status"], ", ".join(order["items"])
    for payment in reversed(overview["payments"]):
        tries = f" at attempt {payment['attempts']}" if payment["attempts"] else ""
        note = f"£{payment['pence'] / 100:.2f}{tries}"
        yield payment["_id"], names[payment["_id"]], names[payment["order_id"]], payment["status"], note
    for user in overview["users"]:
        yield user["_id"], user["name"], "plan", user["plan"], ""


def _about(args: dict[str, Any], names: dict[str, str]) -> str:
    """Whom a function is about, as far as its arguments tell."""
    known = [names[value] for value in args.values() if isinstance(value, str) and value in names]
    if "attempt" in args:
        known.append(f"try {args['attempt']}")
    if "to" in args:
        known.append(args["to"].partition("@")[0])
    return ", ".join(known)


__all__ = ["OPENING", "Board", "WarningsOn"]
