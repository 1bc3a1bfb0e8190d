"""The life of a scheduled function, as one table of moves.

              schedule                 start                  succeed
    (nothing) ─────────▶  pending  ─────────────▶ inProgress ─────────▶ success
        │                 │  │  │                  │  │  │
        │ schedule,       │  │  └─ succeed ──▶ success│  │
        │ parent canceled │  └──── fail ─────▶ failed ◀──┘ fail, interrupt
        ▼                 ▼                         │
      canceled ◀────── cancel ◀─────────────────────┘

A mutation never is in progress for anyone to see: the commit that holds its writes moves it from pending to its
end, so that it happens exactly once. Only actions start: that they are in progress is durable before their first
line runs, and what was in progress when its process ended is interrupted, never run again. Whatever is not in the
table cannot happen; that includes the end of an action that was canceled while it ran.
"""

from __future__ import annotations

from typing import Final

PENDING: Final = "pending"
IN_PROGRESS: Final = "inProgress"
SUCCESS: Final = "success"
FAILED: Final = "failed"
CANCELED: Final = "canceled"

START: Final = "start"
SUCCEED: Final = "succeed"
FAIL: Final = "fail"
INTERRUPT: Final = "interrupt"
CANCEL: Final = "cancel"

MOVES: Final[dict[str, dict[str, str]]] = {
    PENDING: {START: IN_PROGRESS, SUCCEED: SUCCESS, FAIL: FAILED, CANCEL: CANCELED},
    IN_PROGRESS: {SUCCEED: SUCCESS, FAIL: FAILED, INTERRUPT: FAILED, CANCEL: CANCELED},
    SUCCESS: {},
    FAILED: {},
    CANCELED: {},
}
"""What may happen to a function in a state, and the state it is in afterwards."""

COMPLETED: Final = frozenset(state for state, moves in MOVES.items() if not moves)


def after(state: str, event: str) -> str:
    """The state after an event. KeyError where the event cannot happen in that state."""
    return MOVES[state][event]
