"""The closing count: what was to happen, against what is in the database."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click
from board import Board

from duly import App


async def count_up(app: App, board: Board) -> bool:
    """Print the count. Returns whether all of it is as it should be."""
    stock = await app.query("stocktaking:result")
    overview = await app.query("dashboard:overview")
    emails = Counter((email["to"], email["subject"]) for email in await app.query("emails:outbox"))
    printings = await app.query("catalogue:printings")
    statuses = [order["status"] for order in overview["orders"]]
    first, second = (f"{pay['status']} at attempt {pay['attempts']}" for pay in reversed(overview["payments"]))
    subjects = [subject for _, subject in emails]
    ran_twice = emails.total() - len(emails) + len(printings) - 1
    canceled = "ran" if "Reminder: drink more tea" in subjects else "never ran"
    errors = [f"{function} failed: {error.partition('.')[0]}" for function, error in board.interrupted.items()]
    return all(
        [
            _line("mutations scheduled at once", stock["expected"], 400),
            _line("their effects in the database", stock["counted"], 400),
            _line("effects doubled", stock["doubled"], 0),
            _line("effects lost", stock["missing"], 0),
            _line("actions interrupted", len(errors), 1, *errors),
            _line("actions run twice", ran_twice, 0),
            _line("orders archived on their day 30", statuses.count("archived"), 3),
            _line("trial, after 14 days", overview["users"][0]["plan"], "free"),
            _line("emails about the trial", sum("trial" in subject for subject in subjects), 2),
            _line("other reminder", subjects.count("Reminder: order lemons"), 1),
            _line("canceled reminder", canceled, "never ran"),
            _line("payment with a flaky gateway", first, "succeeded at attempt 3"),
            _line("payment with a bad card", second, "failed at attempt 3"),
        ]
    )


def _line(what: str, found: Any, expected: Any, *notes: str) -> bool:
    right = found == expected
    mark, value = click.style("✓", fg="green"), click.style(f"{found:>24}", bold=True)
    if not right:
        mark, value = click.style("✗", fg="red"), click.style(f"{found:>24}, expected {expected}", fg="red", bold=True)
    click.echo(f"  {mark} {what:<32}{value}")
    for note in notes:
        click.secho(f"      {note}", dim=True)
    return right
