"""Every limit of duly: its name, its number and its reason. Errors name the limit they enforce.

`Limits` holds those that an application may set: `App("backend", limits=Limits(documents_read_max=100_000))`.
Sizes in bytes are those of the JSON of values, in which bytes count as many as they are: `size` in values/json.py.
Unless a reason says otherwise, the number is that of the Convex documentation, so that an application that fits
there fits here.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields, replace
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    """What one application may do at once. Every field must be positive."""

    # One execution of a query or a mutation, with all that it calls by `run_query` and `run_mutation`.
    reads_max: int = 4_096
    """Calls of `get` and queries begun; more is a loop that wants to be one query."""
    documents_read_max: int = 32_000
    """Documents read, those that a filter leaves out included. A mutation that reads holds up those behind it."""
    bytes_read_max: int = 16 << 20
    """Their size, in bytes (16 MiB)."""
    documents_written_max: int = 16_000
    """Calls of `insert`, `patch`, `replace` and `delete`."""
    bytes_written_max: int = 16 << 20
    """Size of what is written, in bytes (16 MiB)."""
    handler_seconds_max: float = 2.0
    """Real time that a query or a mutation may take, in seconds: then it is stopped, for it holds up others. Twice
    the second of the Convex documentation, which does not count the time of reads."""
    action_seconds_max: float = 1_800.0
    """Real time that an action may take, in seconds (30 minutes)."""

    # Values and documents.
    document_bytes_max: int = 1 << 20
    """Stored size of a document, in bytes (1 MiB)."""
    value_depth_max: int = 16
    """Levels of nesting of a document or of arguments; deeper values are nearly always a bug (a cycle)."""
    object_fields_max: int = 1_024
    """Fields of one object."""
    array_length_max: int = 8_192
    """Elements of one array; a longer list is a table."""
    arguments_bytes_max: int = 16 << 20
    """Size of a call's arguments, in bytes (16 MiB)."""
    result_bytes_max: int = 16 << 20
    """Size of what a function returns, in bytes (16 MiB)."""

    # Scheduling.
    scheduled_functions_max: int = 1_000
    """Functions that one mutation may schedule; more is a table with a function that walks it."""
    scheduled_arguments_bytes_max: int = 8 << 20
    """Arguments of all functions that one mutation schedules, in bytes (8 MiB)."""
    actions_running_max: int = 64
    """Scheduled actions that run at once in one process; the others wait without blocking mutations."""

    # Nodes that share a store in PostgreSQL.
    node_lost_seconds: float = 15.0
    """How long a node may be silent, in seconds, until it is lost: then the actions it ran have failed, and what it
    still tries to commit is refused. Longer than a pause that a process survives, such as that of a moved machine."""

    # Logging.
    log_lines_max: int = 256
    """Lines that one call may write to `ctx.log`; the rest is left out, which one more line says."""
    log_line_length_max: int = 4_096
    """Characters of such a line."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            whole = field.type == "int"
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not value > 0:
                raise ValueError(
                    f"got {value!r} for {field.name}, expected a number above 0{', a whole one' if whole else ''}"
                )
        if self.value_depth_max > VALUE_DEPTH_CEILING:
            raise ValueError(
                f"got {self.value_depth_max} for value_depth_max, expected at most {VALUE_DEPTH_CEILING}"
                " (VALUE_DEPTH_CEILING)"
            )


# Values.
VALUE_DEPTH_CEILING: Final = 64
"""What `value_depth_max` may be set to: values are walked by functions that call themselves."""
FIELD_NAME_LENGTH_MAX: Final = 1_024
"""Characters of a field name."""
IDENTIFIER_LENGTH_MAX: Final = 64
"""Characters of a table, index or function name."""
ERROR_TEXT_LENGTH_MAX: Final = 4_096
"""Characters of a failed function's error that are kept in its row."""

# Tables and queries.
TABLES_MAX: Final = 10_000
"""Tables of one store."""
INDEXES_MAX: Final = 32
"""Indexes of one table: each costs every write."""
INDEX_FIELDS_MAX: Final = 16
"""Fields of one index."""
INDEX_KEY_BYTES_MAX: Final = 2_600
"""Bytes of what a document is sorted by in one index: PostgreSQL holds 2,704 at most, and what fits one engine is to
fit the others."""
FILTER_OPERATORS_MAX: Final = 256
"""Operators in the filters of one query; more is a function that looks at the documents itself."""
SCAN_ROWS_MAX: Final = 256
"""Rows that a query takes from the store at once: enough to make a request cheap, few enough to be held."""

# Functions.
SCHEDULE_WINDOW_MS: Final = 5 * 366 * 24 * 3600 * 1000
"""How far from now a function may be scheduled, either way: five years, leap days included."""
CALL_DEPTH_MAX: Final = 8
"""Calls of functions by functions, each within the one before; more is an endless recursion."""
WARNING_SHARE: Final = 0.8
"""A function that uses more than this share of a limit is warned of, before it fails."""
WARNING_SECONDS: Final = 60.0
"""From one such warning of a function to the next of the same limit, in seconds: others would tell nothing new."""

SCHEMA_STEP_SECONDS: Final = 0.005
"""How long one step of checking documents and building indexes holds up the calls of others, in seconds."""
SCHEMA_STEP_ROWS: Final = 50
"""Documents that such a step reads at once. It ends between two readings, whatever the size of the documents."""
APPLY_TRIES_MAX: Final = 5
"""How often a schema is applied from the start where the store is lost on the way: its steps are not run again."""
SCHEMA_LATE_MAX: Final = 500
"""Documents written while others were checked that are checked in one step; as few are checked in the last one."""

# The committer. Group commit trades a little latency for throughput: these bound the trade.
BATCH_SECONDS_MAX: Final = 0.008
"""Time of handlers in one batch: what a caller may wait for its neighbours, in seconds."""
BATCH_SECONDS_ALONE_MAX: Final = 0.030
"""The same while no call waits: a longer batch of due functions shares its flush among more of them."""
BATCH_CALLS_MAX: Final = 512
"""Calls in one batch; beyond, a larger batch no longer gains (measured)."""
CALLS_AT_ONCE: Final = 64
"""Calls that a batch takes at once if they wait, so that what they read may be read together."""
DUE_BATCH_MAX: Final = 2_000
"""Due functions that one batch takes from the store: more than it can run in its time."""
DUE_BATCHES_MORE: Final = 4
"""Batches that run what one has taken from a store on a server, beside that one: each while the one before it is
committed. More gain little, and calls wait behind them."""
EXCLUSIVE_BATCHES_MIN: Final = 4
"""Exclusive batches after a conflict with another node, before one is tried again that is not."""
EXCLUSIVE_BATCHES_MAX: Final = 50
"""The same where each of those has met a conflict again."""
LOG_BYTES_MAX: Final = 2 << 20
"""What recent commits wrote that is kept in memory, in bytes, to wake readers whose snapshot is a little old.

A reader older than that is simply run again. More is no gain: Python's garbage collector visits all of it."""
CATALOGS_MAX: Final = 64
"""Recent states of the tables kept in memory: more than change between the begin of a snapshot and the look at them."""
LOG_COMMITS_MAX: Final = 4_096
"""Recent commits kept in memory, however small."""

# Scheduled functions.
BACKOFF_MS_MIN: Final = 500.0
"""How long a function that the store has refused waits at most the first time, in milliseconds; then twice as long."""
BACKOFF_MS_MAX: Final = 7_200_000.0
"""How long at most at all (2 hours)."""
CRON_INTERVAL_MS_MIN: Final = 1_000.0
"""The shortest interval of a cron, in milliseconds (a second): what is to run more often is a loop in an action."""
CRON_INTERVAL_MS_MAX: Final = float(SCHEDULE_WINDOW_MS)
"""The longest: no function is scheduled further ahead."""
CRON_IDENTIFIER_LENGTH_MAX: Final = 256
"""Characters of a cron's identifier: it is a sentence, not a text, and stands in an index."""
CRON_LATE_MS: Final = 60_000.0
"""How late a slot of a cron may be and count as in time, in milliseconds; `missed="skip"` skips later ones."""
CRON_QUEUE_MAX: Final = 100
"""Slots of one cron that wait for their turn; more are skipped, for they would never catch up."""
CRON_RUNS_MAX: Final = 100
"""Runs of one cron with `overlap="allow"` that are on at once; more slots are skipped: where runs take longer than they
are apart, there would be ever more, and the row of the cron names each."""
CRON_LOGS_MAX: Final = 100
"""Rows of `_cron_job_logs` that are kept of each cron."""
CRON_LOG_TEXT_MAX: Final = 1_000
"""Characters of a result, and of all log lines together, that are kept in such a row."""
RETENTION_MS: Final = 604_800_000.0
"""How long the row of a scheduled function stays after its completion, in milliseconds (7 days)."""
SWEPT_AT_ONCE: Final = 500
"""Expired rows that are deleted in one step: about two milliseconds in which others wait."""
SWEEP_PAUSE_MS: Final = 10.0
"""From one such step to the next, in milliseconds: others have most of the time."""
SWEEP_CHECK_MS: Final = 3_600_000.0
"""How often at least to look for expired rows, in milliseconds: the node that did so may have left."""
GRACE_SECONDS: Final = 10.0
"""How long running actions may go on when an app is closed, in seconds. A container is given 30 by default, systemd
gives 90."""
CLOSING_NOTICE_SECONDS: Final = 1.0
"""How long an app that is closed waits for running actions before it says so, in seconds: most end sooner."""
INTERRUPT_SECONDS: Final = 5.0
"""How long an action may take to end once it is interrupted, in seconds: enough to clean up. One that ignores it is
recorded as interrupted nevertheless, and holds up no closing."""

HARNESS_ROUNDS_MAX: Final = 5_000
"""Batches of due functions that a Harness runs at one moment: a chain of functions this long has no end."""

# Nodes that share a store in PostgreSQL.
NODE_HEARTBEAT_SECONDS: Final = 0.3
"""How often a node says that it lives, in seconds, and looks whether there are commits it was not told of."""
NODE_FRESH_SECONDS: Final = 1.0
"""How long after that it has its part of the pending functions, in seconds: three beats may fail to come."""
NODE_LOG_COMMITS_MAX: Final = 1_024
"""Commits that the store remembers for other nodes; who lags further behind forgets all it has in memory."""
REMOTE_COMMITS_MAX: Final = 64
"""Commits of others that a node reads at once; where there are more, forgetting is cheaper."""
POSTPONED_MS: Final = 1_000.0
"""How long a due function waits that only a newer version of the application knows, in milliseconds. Each second
another node has it in its part."""
STORE_LOST_SECONDS_MAX: Final = 20.0
"""How long a call waits for a store that gives no answer, in seconds, before it fails: a restart takes less."""
STORE_LOST_CLOSING_SECONDS_MAX: Final = 10.0
"""How long calls still wait for it once the app is being closed, in seconds: whoever ends it has not much longer."""
CONNECT_SECONDS: Final = 2.0
"""How long a connection to the server may take, in seconds: one that is alive answers in milliseconds."""
ANSWER_SECONDS: Final = 5.0
"""How long a statement may take, in seconds: it may have to wait for the lock that a stalled node holds."""
NODE_ANSWER_SECONDS: Final = 2.0
"""The same for saying that a node lives, which waits for nobody: what is lost must be noticed in time."""
LOCK_IDLE_MS: Final = 1_000
"""How long who holds the lock may say nothing, in milliseconds, until PostgreSQL ends its session: all others wait."""
MIGRATION_SECONDS: Final = 600.0
"""How long a statement that migrates the store may take, in seconds: it may rewrite a table."""
STORE_PAUSE_SECONDS: Final = 0.1
"""From one attempt to reach it to the next, in seconds."""
CLOCK_TOLERANCE_MS: Final = 5.0
"""How far the clock of a node may be off that of the store's server before it is set right."""
CLOCK_AHEAD_MS_MAX: Final = 10.0 * 366 * 24 * 3600 * 1000
"""How far a clock may be ahead of all that a store knows of, in milliseconds (ten years): a store may lie idle for
years, but what a clock that is wrong has stamped stays ahead of everything for as long."""
CLOCK_BACK_MS: Final = 60_000.0
"""How far a clock goes back, in milliseconds (a minute), until what was planned by it is looked at again: they are set
right by less now and then."""
DOCUMENT_CACHE_BYTES_MAX: Final = 64 << 20
"""Documents that a node keeps in memory, in bytes (64 MiB), to read them without asking the store."""

# Processes and threads.
OWNER_WAIT_SECONDS: Final = 5.0
"""How long an app waits for the process that owns its file, in seconds, unless it says otherwise: the old process of a
restart may not have been told to end yet."""
OWNER_OVERTIME_SECONDS: Final = 5.0
"""How much longer than it has said an owner that is closing is waited for, in seconds: it commits what is queued."""
OWNER_POLL_SECONDS: Final = 0.05
"""How often to try to own a file that is owned, in seconds."""
STORE_CHECK_MS: Final = 1_000.0
"""How often to look whether the file of a store is still there, in milliseconds: nobody tells of that."""
CALL_NOTICE_SECONDS: Final = 3.0
"""How long `duly run` waits for the owner of a store before it says that it waits, in seconds: most calls take less."""
LOOP_BLOCKED_SECONDS: Final = 0.5
"""How long the event loop may not answer until it counts as held up, in seconds: what is shorter, nobody feels."""
BLOCKING_ACTIONS_MAX: Final = 512
"""Threads for actions that are plain functions: as many as 64 scheduled ones can occupy by calling each other 8
levels deep, so that none waits for a thread that waits for it."""
READERS_MAX: Final = 4
"""Threads that run queries, each with its own snapshot. A few overlap reads; Python runs one at a time."""
TIMER_CHECK_SECONDS: Final = 1.0
"""How often a sleeper looks at the wall clock again, so that a clock that jumps is noticed, in seconds."""

DEFAULTS: Final = Limits()
"""The limits of an application that sets none."""


OF_ANY_SIZE: Final = Limits(
    value_depth_max=VALUE_DEPTH_CEILING, object_fields_max=sys.maxsize, array_length_max=sys.maxsize
)
"""For values that are only compared, or have been found small enough by the limits of the application."""


def unlimited(limits: Limits) -> Limits:
    """The same for one who is trusted to read and write as much as it takes."""
    return replace(
        limits,
        reads_max=sys.maxsize,
        documents_read_max=sys.maxsize,
        bytes_read_max=sys.maxsize,
        documents_written_max=sys.maxsize,
        bytes_written_max=sys.maxsize,
        scheduled_functions_max=sys.maxsize,
        scheduled_arguments_bytes_max=sys.maxsize,
    )
