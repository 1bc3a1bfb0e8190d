"""The closing count: what was to happen against what is in the database."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import click
from board import Board

from duly import App

_SHOWN_ERROR_CHARACTERS: Final = 60


async def count_up(app: App, board: Board) -> bool:
    """Print the count. Whether all of it is as it should be."""
    stock = await app.query("stocktaking:result")
    overview = await app.query("dashboard:overview")
    subjects = Counter((email["to"], email["subject"]) for email in await app.query("emails:outbox"))
    printings = await app.query("catalogue:printings")
    twice = sum(times - 1 for times in subjects.values()) + len(printings) - 1
    statuses = [order["status"] for order in overview["orders"]]
    payments = [f"{payment['status']} at attempt {payment['attempts']}" for payment in reversed(overview["payments"])]
    to_ada = [subject for to, subject in subjects if to == "ada@example.com"]

    error = board.interrupted.get("catalogue:print_pages", "")
    results = [
        _line("mutations scheduled at once", stock["expected"], 400),
        _line("their effects in the database", stock["counted"], 400),
        _line("effects doubled", stock["doubled"], 0),
        _line("effects lost", stock["missing"], 0),
        _line("actions interrupted", len(board.interrupted), 1, f"catalogue:print_pages: {_shortened(error)}"),
        _line("actions run twice", twice, 0),
        _line("orders archived after 30 days", statuses.count("archived"), 3),
        _line("trial", overview["users"][0]["plan"], "free", "expired after 14 days"),
        _line("emails about the trial", sum("trial" in subject for subject in to_ada), 2, "a reminder, and the end"),
        _line("canceled reminder", _reminder(board, to_ada), "never ran"),
        _line("first payment", payments[0], "succeeded at attempt 3", "the gateway was busy twice"),
        _line("second payment", payments[1], "failed at attempt 3", "a bad card"),
    ]
    return all(results)


def _line(what: str, found: Any, expected: Any, note: str = "") -> bool:
    right = found == expected
    mark = click.style("✓", fg="green") if right else click.style("✗", fg="red")
    value = click.style(f"{found:>22}", bold=True, fg=None if right else "red")
    text = click.style(note, dim=True) if right else click.style(f"expected {expected}", fg="red")
    click.echo(f"  {mark} {what:<31}{value}  {text}".rstrip())
    return right


def _reminder(board: Board, to_ada: list[str]) -> str:
    return "ran" if any(subject.startswith("Reminder") for subject in to_ada) else "never ran"


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_ERROR_CHARACTERS else f"{text[:_SHOWN_ERROR_CHARACTERS]}…"
