"""Every limit of duly: its name, its number and its reason. Errors name the limit they enforce.

`Limits` has those that an application may set: `App("backend", limits=Limits(documents_read_max=100_000))`. Sizes in
bytes are sizes of the JSON of values, except that each byte of `bytes` counts as one: `size` in values/json.py. Unless
a reason is given, the number is that of the Convex documentation: an application that runs there runs here.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields, replace
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    """What one application may do at once. Every field must be positive."""

    # One execution of a query or a mutation, including its calls of `run_query` and `run_mutation`.
    reads_max: int = 4_096
    """Calls of `get`, and queries begun; more is a loop that should be one query."""
    documents_read_max: int = 32_000
    """Documents read, including those that a filter leaves out. A mutation that reads delays those behind it."""
    bytes_read_max: int = 16 << 20
    """Their size, in bytes (16 MiB)."""
    documents_written_max: int = 16_000
    """Calls of `insert`, `patch`, `replace` and `delete`."""
    bytes_written_max: int = 16 << 20
    """Size of what is written, in bytes (16 MiB)."""
    handler_seconds_max: float = 2.0
    """Real time that a query or a mutation may take, in seconds; then it is stopped, because it delays others. Twice
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
    """Functions that one mutation may schedule; more should be a table and a function that goes through it."""
    scheduled_arguments_bytes_max: int = 8 << 20
    """Arguments of all functions that one mutation schedules, in bytes (8 MiB)."""
    actions_running_max: int = 64
    """Scheduled actions that run at once in one process; the others wait, and do not block mutations."""

    # Clients of a server.
    sockets_max: int = 10_000
    """WebSockets that are open at once in one process; more are refused, and come back later. Each needs a
    file descriptor, and tens of KB."""
    sockets_per_address_max: int = 1_000
    """The same from one address, or from one IPv6 network of 64 bits: the people of a company have one in common."""

    # Nodes that share a store in PostgreSQL.
    node_lost_seconds: float = 15.0
    """How long a node may be silent, in seconds, until it is lost: then its actions have failed, and its commits are
    refused. Longer than the pauses that a process survives, such as a live migration of its machine."""

    # Logging.
    log_lines_max: int = 256
    """Lines that one call may write to `ctx.log`; the rest is left out, and one more line says so."""
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
"""The highest `value_depth_max`: values are processed by recursive functions."""
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
"""Bytes of the key of a document in one index: PostgreSQL holds at most 2,704, and all engines have the same limit."""
FILTER_OPERATORS_MAX: Final = 256
"""Operators in the filters of one query; more should be code that looks at the documents."""
SCAN_ROWS_MAX: Final = 256
"""Rows that a query reads from the store at once: enough that a request is cheap, few enough to keep in memory."""

# Functions.
SCHEDULE_WINDOW_MS: Final = 5 * 366 * 24 * 3600 * 1000
"""How far from now a function may be scheduled, either way: five years, leap days included."""
CALL_DEPTH_MAX: Final = 8
"""Nested calls of functions by functions; more is an endless recursion."""
WARNING_SHARE: Final = 0.8
"""The share of a limit above which the log warns of a function, before it fails."""
WARNING_SECONDS: Final = 60.0
"""Pause between two such warnings of the same function and limit, in seconds: more would say nothing new."""

SCHEMA_STEP_SECONDS: Final = 0.005
"""How long one step of checking documents and building indexes delays the calls of others, in seconds."""
SCHEMA_STEP_ROWS: Final = 50
"""Documents that such a step reads at once. A step may end after each such read."""
APPLY_TRIES_MAX: Final = 5
"""How often a schema is applied from the start, if the store is lost: single steps are not retried."""
SCHEMA_LATE_MAX: Final = 500
"""Documents written during the check that one step checks; the last step checks no more than these."""

# The committer. Group commit trades a little latency for throughput; these limits bound the latency.
BATCH_SECONDS_MAX: Final = 0.008
"""Time of all handlers of one batch, in seconds: how long a call may wait for the others."""
BATCH_SECONDS_ALONE_MAX: Final = 0.030
"""The same while no call waits: in a longer batch, more due functions share one flush."""
DUE_SECONDS_BEHIND_CALLS_MAX: Final = 0.002
"""Time of a batch, in seconds, from which on it runs no more due functions behind a call that somebody waits for: with
100,000 functions due at once, calls took half as long as when they shared BATCH_SECONDS_MAX (measured)."""
BATCH_CALLS_MAX: Final = 512
"""Calls in one batch; a larger batch is not faster (measured)."""
CALLS_AT_ONCE: Final = 64
"""Waiting calls that a batch takes at once, to read the documents of all of them in one request."""
DUE_BATCH_MAX: Final = 2_000
"""Due functions that one batch claims: more than it can run in its time."""
DUE_BATCHES_MORE: Final = 4
"""Follow-up batches that run the rest of a claim on a shared store, each while the one before it is being committed.
More gain little, and calls wait behind them."""
EXCLUSIVE_BATCHES_MIN: Final = 4
"""Exclusive batches after a conflict with another node, before the next optimistic one."""
EXCLUSIVE_BATCHES_MAX: Final = 50
"""The same after repeated conflicts."""
LOG_BYTES_MAX: Final = 2 << 20
"""Size of the recent writes in the commit log, in bytes. They are compared with readers whose snapshot is a little old.

A reader with an older snapshot is run again. More gains nothing: Python's garbage collector visits all of it."""
CATALOGS_MAX: Final = 64
"""Recent catalogs kept in memory: more than change between the begin of a snapshot and its first read."""
HOT_ROWS_BYTES_MAX: Final = 16 << 20
"""Size of the rows that the owner of a SQLite file keeps in memory, in bytes (16 MiB): tens of thousands, while in most
applications fewer are hot. SQLite's own cache has the pages of more."""
LOG_COMMITS_MAX: Final = 4_096
"""Commits in the commit log, however small."""

# Scheduled functions.
BACKOFF_MS_MIN: Final = 500.0
"""Longest first delay of a function that the store has refused, in milliseconds; it doubles with each refusal."""
BACKOFF_MS_MAX: Final = 7_200_000.0
"""Longest delay after any refusal, in milliseconds (2 hours)."""
CRON_INTERVAL_MS_MIN: Final = 1_000.0
"""The shortest interval of a cron, in milliseconds (a second); more often should be a loop in an action."""
CRON_INTERVAL_MS_MAX: Final = float(SCHEDULE_WINDOW_MS)
"""The longest one: no function is scheduled further ahead."""
CRON_IDENTIFIER_LENGTH_MAX: Final = 256
"""Characters of the identifier of a cron: it is the key of an index."""
CRON_LATE_MS: Final = 60_000.0
"""How late a slot of a cron may be and still count as in time, in milliseconds; `missed="skip"` skips later ones."""
CRON_QUEUE_MAX: Final = 100
"""Slots of one cron that wait in its queue; more are skipped: the cron would never catch up."""
CRON_RUNS_MAX: Final = 100
"""Concurrent runs of one cron with `overlap="allow"`; more slots are skipped: if runs take longer than the interval,
their number would grow without end, and the row of the cron lists each of them."""
CRON_LOGS_MAX: Final = 100
"""Rows of `_cron_job_logs` that are kept for each cron."""
CRON_LOG_TEXT_MAX: Final = 1_000
"""Characters of a result, and of all log lines together, that are kept in such a row."""
RETENTION_MS: Final = 604_800_000.0
"""How long the row of a scheduled function is kept after its completion, in milliseconds (7 days)."""
SWEPT_AT_ONCE: Final = 500
"""Expired rows that are deleted in one step: that takes about two milliseconds, in which other calls wait."""
SWEEP_PAUSE_MS: Final = 10.0
"""Pause between two such steps, in milliseconds: other calls get most of the time."""
SWEEP_CHECK_MS: Final = 3_600_000.0
"""Longest time between two looks for expired rows, in milliseconds: the node that looked for them may have left."""
GRACE_SECONDS: Final = 10.0
"""How long running actions may go on when an app is closed, in seconds. A container is given 30 by default, systemd
gives 90."""
CLOSING_NOTICE_SECONDS: Final = 1.0
"""How long a closing app waits for running actions before it logs that it waits, in seconds: most end sooner."""
INTERRUPT_SECONDS: Final = 5.0
"""How long an interrupted action may take to end, in seconds: enough to clean up. An action that ignores it is recorded
as interrupted, too, and does not delay the closing."""

HARNESS_ROUNDS_MAX: Final = 5_000
"""Batches of due functions that a Harness runs at one time: a longer chain of functions has no end."""

# Nodes that share a store in PostgreSQL.
NODE_HEARTBEAT_SECONDS: Final = 0.3
"""How often a node sends its heartbeat, in seconds, and checks for commits of which no notification arrived."""
NODE_FRESH_SECONDS: Final = 1.0
"""How long a node keeps its partition of the pending functions after a heartbeat, in seconds: three may be missed."""
NODE_LOG_COMMITS_MAX: Final = 1_024
"""Commits in the log of the store; a node that is further behind drops its whole cache."""
REMOTE_COMMITS_MAX: Final = 64
"""Commits of other nodes that a node reads at once; if there are more, it is cheaper to drop the cache."""
POSTPONED_MS: Final = 1_000.0
"""How long a due function is postponed if only a newer version of the application has it, in milliseconds. Each second
it moves to the partition of another node."""
STORE_LOST_SECONDS_MAX: Final = 20.0
"""How long a call waits for a store that does not answer, in seconds, before it fails: a restart takes less."""
STORE_LOST_CLOSING_SECONDS_MAX: Final = 10.0
"""The same while the app is being closed, in seconds: the process may be killed soon after."""
CONNECT_SECONDS: Final = 2.0
"""How long a connection to the server may take, in seconds: a server that is up answers in milliseconds."""
ANSWER_SECONDS: Final = 5.0
"""How long a statement may take, in seconds: it may have to wait for the lock that a stalled node holds."""
NODE_ANSWER_SECONDS: Final = 2.0
"""The same for a heartbeat, which waits for no lock: a lost connection must be noticed in time."""
LOCK_IDLE_MS: Final = 1_000
"""How long the holder of the lock may be idle, in milliseconds, until PostgreSQL ends its session: all others wait."""
MIGRATION_SECONDS: Final = 600.0
"""How long a statement of a migration may take, in seconds: it may rewrite a table."""
STORE_PAUSE_SECONDS: Final = 0.1
"""Pause between two attempts to reach the store, in seconds."""
CLOCK_TOLERANCE_MS: Final = 5.0
"""How far the clock of a node may differ from the server's clock, in milliseconds, before it is corrected."""
CLOCK_AHEAD_MS_MAX: Final = 10.0 * 366 * 24 * 3600 * 1000
"""How far a clock may be ahead of the newest time in a store, in milliseconds (ten years). A store may lie idle for
years; but ids made by a wrong clock would stay ahead of all others for as long."""
CLOCK_BACK_MS: Final = 60_000.0
"""How far a clock must be set back, in milliseconds (a minute), for the crons to be moved back too: smaller corrections
are common."""
DOCUMENT_CACHE_BYTES_MAX: Final = 64 << 20
"""Size of the documents that a node caches, in bytes (64 MiB), to read them without the store."""

# Processes and threads.
OWNER_WAIT_SECONDS: Final = 5.0
"""How long an app waits for the process that owns its file, in seconds, by default: in a restart, the old process may
not have been signalled yet."""
OWNER_OVERTIME_SECONDS: Final = 5.0
"""How long to wait for an owner beyond the time it announced for its closing, in seconds: it commits what is queued."""
OWNER_POLL_SECONDS: Final = 0.05
"""Pause between two attempts to own a file that another process owns, in seconds."""
STORE_CHECK_MS: Final = 1_000.0
"""How often to check that the file of a store still exists, in milliseconds: there is no notification."""
CALL_NOTICE_SECONDS: Final = 3.0
"""How long `duly run` waits for the owner of a store before it says so, in seconds: most calls take less."""
LOOP_BLOCKED_SECONDS: Final = 0.5
"""The event-loop lag at which the loop counts as blocked, in seconds: a shorter one is hardly noticed."""
BLOCKING_ACTIONS_MAX: Final = 512
"""Threads for actions that are plain functions: as many as 64 scheduled actions can occupy with calls 8 levels deep. So
threads never wait for each other in a circle."""
READERS_MAX: Final = 4
"""Threads that run queries, each with its own snapshot. A few suffice to overlap reads: Python runs one at a time."""
TIMER_CHECK_SECONDS: Final = 1.0
"""How often a sleep checks the wall clock, in seconds, to notice a clock that was set."""

# Clients that connect to a server.
SOCKET_QUERIES_MAX: Final = 2_000
"""Queries that one connection may watch: a page with more should ask for lists, not for their elements."""
BATCH_QUERIES_MAX: Final = 1_000
"""Queries of one request to `/api/query_batch`, which hold one snapshot until the last of them has run."""
SOCKET_CALLS_MAX: Final = 1_000
"""Mutations and actions of one connection that have not ended: each is kept in memory until it has. Also messages that
wait until a token is checked."""
SOCKET_CALLS_LENGTH_MAX: Final = 32 << 20
"""Characters of the messages of these calls (33 million), from which on the connection is not read until some have
ended: a few of the largest. A client that is not read for two minutes is disconnected."""
MUTATIONS_AHEAD_MAX: Final = 16
"""Mutations of one client that run before a Transition shows it their effects. Some, so that they need not wait for its
queries; not many, because none can be shown while another runs."""
MESSAGE_BYTES_MAX: Final = (16 << 20) + (1 << 20)
"""Size of a message or a request of a client, in bytes: the largest arguments, and a MiB for what is around them."""
SOCKET_MESSAGES_PER_SECOND_MAX: Final = 500.0
"""Messages of one connection that are read in a second, on average: faster than any page, and as fast as a program that
waits for each mutation. Those beyond it are not read until then. They are not refused: a client would reconnect, send
all of them again, and end up in the same place."""
SOCKET_MESSAGES_AT_ONCE_MAX: Final = 1_000
"""Messages that are read at once after a pause: all calls that a client may have begun, when it reconnects."""
SOCKET_FRAGMENTS_MAX: Final = 16_384
"""Fragments of one message: of the largest one, each has a KiB. Browsers send larger ones."""
CONNECT_MESSAGE_SECONDS: Final = 60.0
"""How long a connection may be open before its first message, in seconds: JavaScript clients fetch a token first."""
REQUEST_HEAD_SECONDS: Final = 20.0
"""How long the head of an HTTP request may take to arrive, in seconds: each has a few KB."""
REQUEST_BODY_SECONDS: Final = 60.0
"""How long its body may take, in seconds: the largest one at 3 Mbit/s."""
HTTP_ACTION_BYTES_MAX: Final = 20 << 20
"""Size of the body of a request to an HTTP action, in bytes (20 MiB): handlers read it into memory."""
FRAME_BYTES_MAX: Final = 8 << 20
"""Size of a WebSocket frame to a client, in bytes (8 MiB): the Python client takes up to 16 MiB."""
SHORT_MESSAGE_BYTES: Final = 4 << 10
"""Size up to which a message counts as short, in bytes (4 KiB): most calls are shorter."""
SHORT_MESSAGES_AHEAD_MAX: Final = 8
"""Short messages of one connection that wait while it is read on; others, and more, wait in the client."""
PING_SECONDS: Final = 15.0
"""Silence after which a client gets a message, in seconds. JavaScript clients take a server for dead after 60 s."""
READER_SLOW_SECONDS: Final = 30.0
"""How long a client may take nothing of what it is sent, in seconds, until it is disconnected: that uses memory."""
LIVENESS_CHECK_SECONDS: Final = 1.0
"""How often all connections are looked at, in seconds: for the two limits above, which are many times longer, and for
tokens that have expired. Whatever arrives is not done under such a token, however soon it comes."""
READY_LAG_MS: Final = 30_000.0
"""How late due functions may be, in milliseconds, while a server calls itself ready: more than a restart takes."""
READY_SECONDS: Final = 2.0
"""How long the store may take to say so, in seconds: who asks whether a server is ready waits a few seconds only."""
TORN_MAX: Final = 3
"""How often in a row the results of a client may hold at no common time, because its queries are woken in turns, until
all of them run on one snapshot: that costs runs which nothing else needs."""
CATCH_UP_SECONDS: Final = 5.0
"""How long a client waits for this server to know what it has seen on another one, in seconds."""
REQUEST_RETENTION_MS: Final = 14 * 24 * 3600 * 1000.0
"""How long it is known which mutations a client has sent, in milliseconds (14 days): a laptop may be shut for long."""

# Tokens of users, and the keys of the identity providers that sign them.
TOKEN_LENGTH_MAX: Final = 16_384
"""Characters of a token (16 KiB): most servers take no longer header, and tokens of users in many groups have half."""
TOKEN_LEEWAY_MS: Final = 5_000.0
"""How far the clock of an identity provider may differ, in milliseconds: its tokens count so much earlier and later."""
RSA_BITS_MIN: Final = 2_048
"""Bits of an RSA key (RFC 7518): shorter ones can be broken."""
KEYS_AGE_MS_MAX: Final = 3_600_000.0
"""How old keys may be, in milliseconds (an hour), until they are fetched again: then a withdrawn key is refused."""
KEYS_PAUSE_MS: Final = 60_000.0
"""Pause between two fetches of the same keys, in milliseconds (a minute): anybody can invent tokens of unknown keys."""
KEYS_RETRY_MS: Final = 5_000.0
"""The same while there are no keys at all, in milliseconds: no user can log in until they are there."""
KEYS_SECONDS_MAX: Final = 5.0
"""How long an identity provider may take to answer, in seconds: a user waits for it."""
KEYS_BYTES_MAX: Final = 1 << 20
"""Size of an answer of an identity provider, in bytes (1 MiB): a hundred keys have a tenth."""

DEFAULTS: Final = Limits()
"""The limits of an application that sets none."""


OF_ANY_SIZE: Final = Limits(
    value_depth_max=VALUE_DEPTH_CEILING, object_fields_max=sys.maxsize, array_length_max=sys.maxsize
)
"""For values that are only compared, or were checked by the limits of the application before."""


def unlimited(limits: Limits) -> Limits:
    """Return the limits of a trusted caller, which may read and write any amount."""
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
