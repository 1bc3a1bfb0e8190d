"""The life of a scheduled function, as one table of moves.

              schedule                 start                  succeed
    (nothing) ─────────▶  pending  ─────────────▶ inProgress ─────────▶ success
        │                 │  │  │ ▲│               │  │  │
        │ schedule,       │  │  │ └┘ postpone      │  │  │
        │ parent canceled │  │  └─ succeed ──▶ success│  │
        │                 │  └──── fail ─────▶ failed ◀──┘ fail, interrupt
        ▼                 ▼                         │
      canceled ◀────── cancel ◀─────────────────────┘

    success, failed, canceled ── expire ──▶ (nothing)

A mutation never is in progress for anyone to see: the commit that holds its writes moves it from pending to its
end, so that it happens exactly once. Only actions start: that they are in progress is durable before their first
line runs, and what was in progress when its process ended is interrupted, never run again. Whatever is not in the
table cannot happen; that includes the end of an action that was canceled while it ran.

Who fails whom: an error of the application, its arguments or its limits fails a function for good. What another
transaction has changed meanwhile makes it run again, at once and as often as it takes. What the store refuses is
postponed, and again later each time. An action that may have begun is never begun again.

The clock of a cron is postponed to its next slot again and again; its row, and that of a run, goes when it has ended or
the cron has: the cron's log tells of it (`model/crons.py`).
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
"""What may happen to a function in a state, and the state it is in afterwards."""

COMPLETED: Final = frozenset(state for state, moves in MOVES.items() if EXPIRE in moves)


def after(state: str, event: str) -> str:
    """The state after an event. KeyError where the event cannot happen in that state."""
    return MOVES[state][event]
