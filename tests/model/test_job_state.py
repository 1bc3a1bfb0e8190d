"""The table of moves is complete, and nothing outside it happens."""

from __future__ import annotations

import pytest

from duly.model.job_state import COMPLETED, MOVES, after

EVENTS = (
    "schedule",
    "schedule, parent canceled",
    "postpone",
    "start",
    "succeed",
    "fail",
    "interrupt",
    "cancel",
    "expire",
)


@pytest.mark.parametrize(
    ("state", "moves"),
    [
        ("", {"schedule": "pending", "schedule, parent canceled": "canceled"}),
        (
            "pending",
            {
                "postpone": "pending",
                "start": "inProgress",
                "succeed": "success",
                "fail": "failed",
                "cancel": "canceled",
            },
        ),
        ("inProgress", {"succeed": "success", "fail": "failed", "interrupt": "failed", "cancel": "canceled"}),
        ("success", {"expire": ""}),
        ("failed", {"expire": ""}),
        ("canceled", {"expire": ""}),
    ],
)
def test_a_state_knows_what_may_happen_in_it(state: str, moves: dict[str, str]) -> None:
    for event in EVENTS:
        if event in moves:
            assert after(state, event) == moves[event]
        else:
            with pytest.raises(KeyError):
                after(state, event)


def test_a_function_is_completed_when_nothing_but_its_expiry_can_happen() -> None:
    assert {"success", "failed", "canceled"} == COMPLETED
    assert {state for moves in MOVES.values() for state in moves.values()} == set(MOVES)
