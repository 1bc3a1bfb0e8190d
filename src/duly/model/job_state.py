"""The states of a scheduled function, and one table of all moves between them.

              schedule                 start                  succeed
    (nothing) ─────────▶  pending  ─────────────▶ inProgress ─────────▶ success
        │                 │  │  │ ▲│               │  │  │
        │ schedule,       │  │  │ └┘ postpone      │  │  │
        │ parent canceled │  │  └─ succeed ──▶ success│  │
        │                 │  └──── fail ─────▶ failed ◀──┘ fail, interrupt
        ▼                 ▼                         │
      canceled ◀────── cancel ◀─────────────────────┘

    success, failed, canceled ── expire ──▶ (nothing)

A mutation is never in progress: the commit that holds its writes moves it from pending to its end, so it happens
exactly once. Only actions start. The state `inProgress` is durable before the first line of the action runs. An action
that was in progress when its process ended is interrupted, and never run again. A move that is not in the table cannot
happen. An action that was canceled while it ran, for example, cannot end in another state.

A function fails for good by an error of the application, wrong arguments or an exceeded limit. After a conflict with
another transaction it runs again, at once and as often as needed. If the store refuses its commit, it is postponed,
each time for longer. An action that may have begun is never begun again.

The clock of a cron is postponed to the next slot again and again. The row of a clock is deleted with its cron. The row
of a run is deleted when the run ends; the log of the cron keeps its outcome (`model/crons.py`).
"""

from __future__ import annotations

from typing import Final

NOTHING: Final = ""
PENDING: Final = "pending"
IN_PROGRESS: Final = "inProgress"
SUCCESS: Final = "success"
FAILED: Final = "failed"
CANCELED: Final = "canceled"

SCHEDULE: Final = "schedule"
SCHEDULE_CANCELED: Final = "schedule, parent canceled"
POSTPONE: Final = "postpone"
START: Final = "start"
SUCCEED: Final = "succeed"
FAIL: Final = "fail"
INTERRUPT: Final = "interrupt"
CANCEL: Final = "cancel"
EXPIRE: Final = "expire"

MOVES: Final[dict[str, dict[str, str]]] = {
    NOTHING: {SCHEDULE: PENDING, SCHEDULE_CANCELED: CANCELED},
    PENDING: {POSTPONE: PENDING, START: IN_PROGRESS, SUCCEED: SUCCESS, FAIL: FAILED, CANCEL: CANCELED},
    IN_PROGRESS: {SUCCEED: SUCCESS, FAIL: FAILED, INTERRUPT: FAILED, CANCEL: CANCELED},
    SUCCESS: {EXPIRE: NOTHING},
    FAILED: {EXPIRE: NOTHING},
    CANCELED: {EXPIRE: NOTHING},
}
"""For each state, the events that can happen and the state after each."""

COMPLETED: Final = frozenset(state for state, moves in MOVES.items() if EXPIRE in moves)


def after(state: str, event: str) -> str:
    """Return the state after an event. Raises KeyError if the event cannot happen in that state."""
    return MOVES[state][event]
