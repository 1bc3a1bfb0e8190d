"""Every limit of duly: its name, its number and its reason. Errors name the limit they enforce.

Unless a reason says otherwise, the number is that of the Convex documentation, so that an application that
fits there fits here.
"""

from typing import Final

# Values and documents.
VALUE_DEPTH_MAX: Final = 16
"""Levels of nesting of a document or of arguments; deeper values are nearly always a bug (a cycle)."""
OBJECT_FIELDS_MAX: Final = 1_024
"""Fields of one object."""
ARRAY_LENGTH_MAX: Final = 8_192
"""Elements of one array; a longer list is a table."""
FIELD_NAME_LENGTH_MAX: Final = 1_024
"""Characters of a field name."""
IDENTIFIER_LENGTH_MAX: Final = 64
"""Characters of a table, index or function name."""
DOCUMENT_BYTES_MAX: Final = 1 << 20
"""Stored size of a document, in bytes (1 MiB)."""
ARGUMENTS_BYTES_MAX: Final = 16 << 20
"""Size of a call's arguments, in bytes (16 MiB)."""
RESULT_BYTES_MAX: Final = 16 << 20
"""Size of what a function returns, in bytes (16 MiB)."""

# Scheduling.
SCHEDULED_FUNCTIONS_MAX: Final = 1_000
"""Functions that one mutation may schedule; more is a table with a function that walks it."""
SCHEDULED_ARGUMENTS_BYTES_MAX: Final = 8 << 20
"""Arguments of all functions that one mutation schedules, in bytes (8 MiB)."""
SCHEDULE_WINDOW_MS: Final = 5 * 366 * 24 * 3600 * 1000
"""How far from now a function may be scheduled, either way: five years, leap days included."""
ERROR_TEXT_LENGTH_MAX: Final = 4_096
"""Characters of a failed function's error that are kept in its row."""
ACTIONS_RUNNING_MAX: Final = 64
"""Scheduled actions that run at once in one process; the others wait without blocking mutations."""
CALL_DEPTH_MAX: Final = 8
"""Levels of functions that call functions; deeper is an endless recursion."""

# The committer. Group commit trades a little latency for throughput: these bound the trade.
BATCH_SECONDS_MAX: Final = 0.008
"""Time of handlers in one batch: what a caller may wait for its neighbours, in seconds."""
BATCH_SECONDS_ALONE_MAX: Final = 0.030
"""The same while no call waits: a longer batch of due functions shares its flush among more of them."""
BATCH_CALLS_MAX: Final = 512
"""Calls in one batch; beyond, a larger batch no longer gains (measured)."""
DUE_BATCH_MAX: Final = 2_000
"""Due functions that one batch takes from the store: more than it can run in its time."""
LOG_BYTES_MAX: Final = 2 << 20
"""What recent commits wrote that is kept in memory, in bytes, to wake readers whose snapshot is a little old.

A reader older than that is simply run again. More is no gain: Python's garbage collector visits all of it."""
LOG_COMMITS_MAX: Final = 4_096
"""Recent commits kept in memory, however small."""

# Processes and threads.
BLOCKING_ACTIONS_MAX: Final = ACTIONS_RUNNING_MAX * CALL_DEPTH_MAX
"""Threads for actions that are plain functions: as many as scheduled ones can occupy by calling each other, so
that none waits for a thread that waits for it."""
READERS_MAX: Final = 4
"""Threads that run queries, each with its own snapshot. A few overlap reads; Python runs one at a time."""
TIMER_CHECK_SECONDS: Final = 1.0
"""How often a sleeper looks at the wall clock again, so that a clock that jumps is noticed, in seconds."""
