"""The commit log wakes the readers of what changed, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from duly import App, MutationCtx, mutation
from duly.database.changes import Commit, LocalChange
from duly.database.commit_log import CommitLog
from duly.database.indexes.key_range import KeyRange
from duly.database.indexes.row_keys import keys_of
from duly.database.read_set import ReadSet
from duly.limits import LOG_BYTES_MAX, LOG_COMMITS_MAX
from duly.storage.rows import JOBS, Job, Write
from duly.values.index_keys import Cut, encode, encode_id
from duly.values.schema.tables import BY_CREATION_TIME, Index, Table
from tests.support import app_of

NOTES = Table("notes", 100, (Index("by_n", 100, ("n",)),))


def commit(version: int, id: int, old: int | None, new: int | None) -> Commit:
    rows = [None if n is None else f'{{"n":{n}}}' for n in (old, new)]
    write = Write(rows[0], rows[1], keys_of(NOTES, id, rows[0]), keys_of(NOTES, id, rows[1]))
    return Commit(version, [LocalChange(NOTES, {id: write})])


def reads(*ranges: KeyRange, points: tuple[int, ...] = ()) -> ReadSet:
    read = ReadSet()
    read.ranges.extend(ranges)
    read.points.update(("notes", id) for id in points)
    return read


def n_between(lower: int, upper: int) -> KeyRange:
    return KeyRange("notes", "by_n", Cut((lower,), after=False).key(), Cut((upper,), after=True).key())


@pytest.mark.parametrize(
    ("read", "change", "woken"),
    [
        (reads(points=(1,)), commit(1, 1, 5, 6), True),
        (reads(points=(1,)), commit(1, 2, 5, 6), False),
        (reads(n_between(5, 7)), commit(1, 1, None, 6), True),
        (reads(n_between(5, 7)), commit(1, 1, 6, 9), True),
        (reads(n_between(5, 7)), commit(1, 1, 9, 5), True),
        (reads(n_between(5, 7)), commit(1, 1, 7, None), True),
        (reads(n_between(5, 7)), commit(1, 1, 8, 4), False),
        (reads(KeyRange("others", "by_n", b"", b"\xff")), commit(1, 1, 5, 6), False),
        (reads(KeyRange("notes", BY_CREATION_TIME, b"", encode_id(3))), commit(1, 2, None, 6), True),
        (reads(KeyRange("notes", BY_CREATION_TIME, b"", encode_id(3))), commit(1, 3, None, 6), False),
    ],
)
async def test_a_reader_is_woken_when_and_only_when_what_it_read_changed(
    read: ReadSet, change: Commit, woken: bool
) -> None:
    log = CommitLog(0)
    watch = log.watch(read, 0)
    log.append(change)
    assert watch.done() == woken
    # The same for a reader that comes after the commit, with a snapshot from before it.
    assert log.watch(read, 0).done() == woken
    assert not log.watch(read, 1).done()


async def test_a_reader_is_not_woken_by_what_its_snapshot_shows() -> None:
    log = CommitLog(0)
    log.append(commit(1, 1, None, 6))
    log.append(commit(2, 2, None, 9))
    assert [log.watch(reads(n_between(5, 7)), since).done() for since in (0, 1, 2)] == [True, False, False]


async def test_a_reader_whose_snapshot_is_older_than_the_log_is_woken_at_once() -> None:
    log = CommitLog(0)
    for version in range(1, LOG_COMMITS_MAX + 3):
        log.append(commit(version, version, None, 1))
    assert log.watch(reads(points=(10**9,)), 1).done()
    assert not log.watch(reads(points=(10**9,)), 2).done()


async def test_the_log_forgets_large_commits_sooner() -> None:
    log = CommitLog(0)
    for version in range(1, 5):
        log.append(commit(version, version, None, 1)._replace(weight=LOG_BYTES_MAX // 2))
    assert log.watch(reads(points=(9,)), 1).done()
    assert not log.watch(reads(points=(9,)), 2).done()


async def test_scheduled_functions_wake_by_state_and_by_due_time() -> None:
    log = CommitLog(0)
    pending = Job(1, "a:b", "{}", 50.0, 50.0, "pending", "mutation")
    states = ReadSet()
    states.ranges.append(
        KeyRange(
            JOBS.name,
            "by_state_scheduled_time",
            Cut(("success",), after=False).key(),
            Cut(("success",), after=True).key(),
        )
    )
    sooner, later = ReadSet(), ReadSet()
    sooner.ranges.append(KeyRange(JOBS.name, "by_due", encode(0.0), encode(60.0)))
    later.ranges.append(KeyRange(JOBS.name, "by_due", encode(0.0), encode(40.0)))
    watches = [log.watch(read, 0) for read in (states, sooner, later)]
    log.append(Commit(1, [LocalChange(JOBS, {1: Write(None, pending)})]))
    assert [watch.done() for watch in watches] == [False, True, False]
    done = pending._replace(state="success", due=None, completed_time=51.0)
    log.append(Commit(2, [LocalChange(JOBS, {1: Write(pending, done)})]))
    assert [watch.done() for watch in watches] == [True, True, False]


async def test_a_watch_that_is_done_or_canceled_is_forgotten() -> None:
    log = CommitLog(0)
    read = reads(n_between(5, 7), points=(1,))
    log.watch(read, 0).cancel()
    log.watch(read, 0)
    log.append(commit(1, 1, None, 6))
    await asyncio.sleep(0)
    assert (log._watchers.points, log._watchers.ranges) == ({}, {})


async def test_what_was_read_twice_is_forgotten_once() -> None:
    log = CommitLog(0)
    created = KeyRange("notes", BY_CREATION_TIME, b"", b"\xff")
    watch = log.watch(reads(n_between(5, 7), n_between(5, 7), created, points=(1,)), 0)
    log.append(commit(1, 2, None, 6))
    assert watch.done()
    await asyncio.sleep(0)
    assert (log._watchers.points, log._watchers.ranges) == ({}, {})


async def test_a_commit_wakes_the_one_of_a_thousand_that_read_it() -> None:
    log = CommitLog(0)
    watches = [log.watch(reads(n_between(10 * n, 10 * n + 5)), 0) for n in range(1_000)]
    log.append(commit(1, 1, 17, 6_178))
    assert [n for n, watch in enumerate(watches) if watch.done()] == []
    log.append(commit(2, 1, 6_178, 6_173))
    assert [n for n, watch in enumerate(watches) if watch.done()] == [617]


async def test_a_commit_wakes_all_that_read_the_whole_table() -> None:
    log = CommitLog(0)
    whole = [log.watch(reads(KeyRange("notes", "by_n", b"", b"\xff")), 0) for _ in range(1_000)]
    other = log.watch(reads(KeyRange("others", "by_n", b"", b"\xff")), 0)
    log.append(commit(1, 1, 5, 6))
    assert all(watch.done() for watch in whole)
    assert not other.done()


async def test_a_document_that_changes_in_place_wakes_who_reads_it() -> None:
    log = CommitLog(0)
    read, unread = log.watch(reads(n_between(5, 7)), 0), log.watch(reads(n_between(7, 9)), 0)
    key = keys_of(NOTES, 1, '{"n":6}')
    log.append(
        Commit(1, [LocalChange(NOTES, {1: Write("before", "after", key, key)})])
    )  # rows with keys are not decoded
    assert [read.done(), unread.done()] == [True, False]


TWICE = Table("notes", 100, (Index("by_m", 101, ("m",)), Index("by_n", 100, ("n",))))
ROW = '{"n":6,"m":1}'


@pytest.mark.parametrize("keys", [keys_of(TWICE, 1, ROW), ()])
async def test_keys_are_those_of_the_watched_index(
    keys: tuple[bytes, ...],
) -> None:
    log = CommitLog(0)
    six, one = n_between(6, 6), n_between(1, 1)
    spans = (six, one, six._replace(order="by_m"), one._replace(order="by_m"))
    watches = [log.watch(reads(span), 0) for span in spans]
    log.append(Commit(1, [LocalChange(TWICE, {1: Write(None, ROW, (), keys)})]))
    assert [watch.done() for watch in watches] == [True, False, False, True]


async def test_an_index_that_changes_wakes_who_reads_its_table_in_any_order() -> None:
    log = CommitLog(0)
    by_n, created = n_between(5, 7), KeyRange("notes", BY_CREATION_TIME, b"", b"\xff")
    read = [log.watch(reads(span), 0) for span in (by_n, created)]
    unread = [log.watch(reads(by_n._replace(table="others")), 0), log.watch(reads(points=(1,)), 0)]
    log.append(Commit(1, [], reindexed=frozenset(("notes",))))
    assert [watch.done() for watch in read + unread] == [True, True, False, False]


async def test_who_has_read_an_index_that_is_gone_does_not_disturb_later_commits() -> None:
    log = CommitLog(0)
    watch = log.watch(reads(n_between(5, 7)), 0)
    bare = Table("notes", 100)
    log.append(Commit(1, [], reindexed=frozenset(("notes",))))
    log.append(Commit(2, [LocalChange(bare, {1: Write(None, ROW)})]))  # the event loop has not run the reader yet
    assert watch.done()
    assert log.watch(reads(n_between(5, 7)), 0).done()


async def test_everybody_is_woken_at_the_end() -> None:
    log = CommitLog(0)
    watches = [log.watch(read, 0) for read in (reads(n_between(5, 7)), reads(points=(1,)), reads())]
    log.wake_all()
    assert [watch.done() for watch in watches] == [True, True, True]


def test_the_latest_row_is_that_of_the_newest_commit_after_a_version() -> None:
    log = CommitLog(0)
    for version, n in ((1, 5), (2, 6), (3, 7)):
        log.append(commit(version, 1, n - 1, n))
    log.append(commit(4, 2, 0, 1))
    log.append(commit(5, 3, 1, None))
    assert log.latest(NOTES, 1, 0) == log.latest(NOTES, 1, 2) == '{"n":7}'
    assert log.latest(NOTES, 1, 3) is None
    assert log.latest(NOTES, 3, 0) is None


async def test_the_log_counts_the_arguments_of_the_functions_that_succeeded(store_of: Callable[[str], str]) -> None:
    @mutation
    async def take(ctx: MutationCtx, text: str) -> None: ...

    @mutation
    async def schedule(ctx: MutationCtx) -> None:
        await ctx.scheduler.run_after(0, take, {"text": "x" * 100_000})
        await ctx.scheduler.run_after(0, take, {"text": "y" * 100_000})

    async with App(app_of(take, schedule), store_of("sqlite"), executor=False) as app:
        await app.mutation(schedule)
        await app.executor.run_batch()
        last = app.database.commit_log._commits[-1]
        assert {change.table for change in last.changes} == {"_scheduled_functions"}
        assert 200_000 < last.weight < 210_000
