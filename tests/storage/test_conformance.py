"""What every storage engine does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from duly.app import engine_of
from duly.errors import StoreError
from duly.storage.engine import Changeset, Engine
from duly.storage.requests import Claim, Claimed, CountJobs, Get, JobCounts, ListCompleted, Scan
from duly.storage.rows import ACTION, JOBS, MUTATION, SYSTEM_TABLES, Job, Write, succeeded_row
from duly.values.index_keys import EVERYTHING, FIRST, LAST, Cut, Interval, encode, encode_id
from duly.values.schema.tables import Index, Table
from tests.conftest import ENGINES

BY_N = Index("by_n", 100, ("n",))
NOTES = Table("notes", 100, (BY_N,))


@pytest.fixture(params=ENGINES)
def new_engine(request: pytest.FixtureRequest, store_of: Callable[[str], str]) -> Callable[[], Engine]:
    store = store_of(request.param)
    return lambda: engine_of(store)


@pytest.fixture
def engine(new_engine: Callable[[], Engine]) -> Iterator[Engine]:
    engine = new_engine()
    engine.open()
    yield engine
    engine.close()


def key(n: int, id: int) -> bytes:
    return encode(n) + encode_id(id)


def insert(id: int, n: int) -> Write:
    return Write(None, f'{{"n":{n}}}', (), (key(n, id),))


def commit(engine: Engine, *written: tuple[Table, dict[int, Write]], last_id: int = 0) -> int:
    return engine.commit(Changeset(written, last_id))


def with_notes(engine: Engine, *numbers: int) -> None:
    engine.begin(exclusive=True)
    engine.create_table(Table("notes", 100))
    engine.create_index(Table("notes", 100), BY_N)
    commit(engine, (NOTES, {id: insert(id, n) for id, n in enumerate(numbers, 1)}), last_id=len(numbers))


SYSTEM = tuple(SYSTEM_TABLES.values())


def scan(
    engine: Engine, order: Index | None, interval: Interval, descending: bool = False, limit: int = 100
) -> list[int]:
    with engine.snapshot() as view:
        return [id for id, _ in view.answer(Scan(NOTES, order, interval, descending, limit))]


def job(
    id: int, due: float | None, queue: str = MUTATION, state: str = "pending", name: str = "a:b", **more: Any
) -> Job:
    return Job(id, name, "{}", due if due is not None else 0.0, due, state, queue, **more)


def with_jobs(engine: Engine, *jobs: Job) -> None:
    engine.begin()
    commit(engine, (JOBS, {job.id: Write(None, job) for job in jobs}), last_id=10)


def test_a_new_store_is_empty_and_its_secret_stays(new_engine: Callable[[], Engine]) -> None:
    engine = new_engine()
    first = engine.open()
    engine.close()
    second = engine.open()
    engine.close()
    assert (first.version, first.last_id, first.tables) == (0, 0, SYSTEM)
    assert second.secret == first.secret


def test_each_opening_has_a_larger_epoch_and_those_before_are_lost(new_engine: Callable[[], Engine]) -> None:
    first, second = new_engine(), new_engine()
    first.open()
    first.close()
    second.open()
    assert second.epoch > first.epoch
    assert second.is_lost(first.epoch)
    assert not second.is_lost(second.epoch)
    second.close()


def test_what_is_committed_is_there_after_reopening(new_engine: Callable[[], Engine]) -> None:
    engine = new_engine()
    engine.open()
    with_notes(engine, 5)
    engine.close()
    header = engine.open()
    assert (header.version, header.last_id, header.tables) == (1, 1, (*SYSTEM, NOTES))
    with engine.snapshot() as view:
        assert view.answer(Get(NOTES, 1)) == '{"n":5}'
        assert view.answer(Get(NOTES, 2)) is None
    engine.close()


def test_what_is_rolled_back_or_never_committed_is_not(new_engine: Callable[[], Engine]) -> None:
    engine = new_engine()
    engine.open()
    with_notes(engine, 5)
    engine.begin(exclusive=True)
    engine.create_table(Table("others", 101))
    engine.rollback()
    engine.begin(exclusive=True)
    engine.create_table(Table("others", 101))
    engine.close()
    header = engine.open()
    assert header.tables == (*SYSTEM, NOTES)
    assert scan(engine, None, EVERYTHING) == [1]
    engine.close()


def test_a_snapshot_does_not_see_what_is_committed_after_it(engine: Engine) -> None:
    with_notes(engine, 5)
    with engine.snapshot() as snapshot:
        view = engine.begin()
        assert view.answer(Get(NOTES, 1)) == '{"n":5}'
        write = Write('{"n":5}', '{"n":6}', (key(5, 1),), (key(6, 1),))
        assert commit(engine, (NOTES, {1: write}), last_id=1) == 2
        assert (snapshot.version, snapshot.answer(Get(NOTES, 1))) == (1, '{"n":5}')
    with engine.snapshot() as later:
        assert (later.version, later.answer(Get(NOTES, 1))) == (2, '{"n":6}')


def test_snapshots_are_taken_in_several_threads_at_once(engine: Engine) -> None:
    with_notes(engine, 5)
    found: list[object] = []

    def read() -> None:
        with engine.snapshot() as view:
            found.append(view.answer(Get(NOTES, 1)))

    threads = [threading.Thread(target=read) for _ in range(3)]
    with engine.snapshot():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == ['{"n":5}'] * 3


@pytest.mark.parametrize(
    ("interval", "ids"),
    [
        (EVERYTHING, [2, 4, 1, 3]),
        (Interval(Cut((2,), after=False), Cut((2,), after=True)), [4]),
        (Interval(Cut((2,), after=True), LAST), [1, 3]),
        (Interval(FIRST, Cut((3,), after=False)), [2, 4]),
        (Interval(Cut((3,), after=False, id=1), LAST), [1, 3]),
        (Interval(Cut((3,), after=True, id=1), LAST), [3]),
        (Interval(Cut(("x",), after=False), LAST), []),
        (Interval(Cut((3,), after=True), Cut((1,), after=False)), []),
    ],
)
def test_an_index_is_scanned_in_the_order_of_its_keys(engine: Engine, interval: Interval, ids: list[int]) -> None:
    with_notes(engine, 3, 1, 4, 2)
    assert scan(engine, BY_N, interval) == ids
    assert scan(engine, BY_N, interval, descending=True) == ids[::-1]
    assert scan(engine, BY_N, interval, limit=2) == ids[:2]


def test_a_table_is_scanned_in_the_order_of_creation(engine: Engine) -> None:
    with_notes(engine, 3, 1, 4, 2)
    assert scan(engine, None, EVERYTHING, descending=True, limit=3) == [4, 3, 2]
    assert scan(engine, None, Interval(Cut((), after=True, id=1), Cut((), after=False, id=4))) == [2, 3]
    assert scan(engine, None, Interval(LAST, LAST)) == []


def test_changed_and_deleted_documents_leave_no_keys_behind(engine: Engine) -> None:
    with_notes(engine, 3, 1, 4)
    engine.begin()
    writes = {
        1: Write('{"n":3}', '{"n":9}', (key(3, 1),), (key(9, 1),)),
        2: Write('{"n":1}', None, (key(1, 2),), ()),
        3: Write('{"n":4}', '{"n":4,"x":1}', (key(4, 3),), (key(4, 3),)),
    }
    commit(engine, (NOTES, writes), last_id=3)
    assert scan(engine, BY_N, EVERYTHING) == [3, 1]
    assert scan(engine, None, EVERYTHING) == [1, 3]


OTHER = Index("by_other", 101, ("other",), ready=False)
BUILDING = Table("notes", 100, (BY_N, OTHER))


def test_an_index_is_filled_beside_the_writes_that_maintain_it(engine: Engine) -> None:
    with_notes(engine, 3, 1, 4)
    both = (key(3, 1), key(3, 1)), (key(3, 1), key(9, 1))
    engine.begin(exclusive=True)
    engine.create_index(BUILDING, OTHER)
    writes = {
        1: Write('{"n":3}', '{"n":3,"other":9}', *both),
        3: Write('{"n":4}', None, (key(4, 3), key(0, 3)), ()),
    }
    commit(engine, (BUILDING, writes), last_id=3)
    engine.begin(exclusive=True)
    engine.fill_index(OTHER, [(key(9, 1), 1), (key(5, 2), 2)])
    commit(engine, last_id=3)
    assert scan(engine, OTHER, EVERYTHING) == [2, 1]
    assert scan(engine, BY_N, EVERYTHING) == [2, 1]


def test_an_index_is_not_ready_until_it_is_finished(new_engine: Callable[[], Engine]) -> None:
    engine = new_engine()
    engine.open()
    with_notes(engine, 3)
    engine.begin(exclusive=True)
    engine.create_index(BUILDING, OTHER)
    commit(engine, last_id=1)
    engine.close()
    assert engine.open().tables == (*SYSTEM, BUILDING)
    engine.begin(exclusive=True)
    engine.finish_index(OTHER)
    commit(engine, last_id=1)
    engine.close()
    assert engine.open().tables == (*SYSTEM, replace(BUILDING, indexes=(BY_N, replace(OTHER, ready=True))))
    engine.close()


def test_what_was_read_in_the_same_transaction_keeps_no_index_from_being_dropped(engine: Engine) -> None:
    with_notes(engine, 3)
    with_jobs(engine, job(1, 20))
    view = engine.begin(exclusive=True)
    view.answer(Get(JOBS, 1))
    view.answer(Get(NOTES, 1))
    view.answer(Scan(NOTES, BY_N, EVERYTHING, False, 1))
    view.answer(Scan(JOBS, None, EVERYTHING, False, 1))
    view.answer(Claim(20, 1, 1))
    engine.drop_index(BY_N)
    commit(engine, last_id=1)
    assert scan(engine, None, EVERYTHING) == [1]


def test_an_index_is_built_beside_another_one_of_its_name_and_takes_its_place(new_engine: Callable[[], Engine]) -> None:
    engine = new_engine()
    engine.open()
    with_notes(engine, 3, 1)
    other = Index("by_n", 101, ("m",), ready=False)
    engine.begin(exclusive=True)
    engine.create_index(NOTES, other)
    engine.fill_index(other, [(key(1, 1), 1), (key(2, 2), 2)])
    assert scan(engine, BY_N, EVERYTHING) == [2, 1]
    engine.drop_index(BY_N)
    engine.finish_index(other)
    commit(engine, last_id=2)
    assert scan(engine, other, EVERYTHING) == [1, 2]
    engine.close()
    assert engine.open().tables == (*SYSTEM, Table("notes", 100, (replace(other, ready=True),)))
    engine.close()


def test_what_a_table_is_declared_to_hold_is_kept(new_engine: Callable[[], Engine]) -> None:
    engine = new_engine()
    engine.open()
    engine.begin(exclusive=True)
    engine.create_table(Table("notes", 100, (), "one"))
    engine.create_table(Table("others", 101))
    engine.declare_table(Table("others", 101, (), "two"))
    commit(engine, last_id=0)
    engine.close()
    assert [table.declared for table in engine.open().tables] == [*("" for _ in SYSTEM), "one", "two"]
    engine.close()


def test_names_that_differ_only_in_case_are_different_tables(engine: Engine) -> None:
    engine.begin(exclusive=True)
    tables = [Table("Notes", 100), Table("notes", 101), Table("select", 102)]
    for table in tables:
        engine.create_table(table)
    commit(engine, *((table, {1: Write(None, f'"{table.name}"')}) for table in tables), last_id=1)
    with engine.snapshot() as view:
        assert view.answer(Get(Table("Notes", 100), 1)) == '"Notes"'
        assert view.answer(Get(Table("select", 102), 1)) == '"select"'


def test_due_jobs_come_by_due_time_then_by_id_each_queue_for_itself(engine: Engine) -> None:
    with_jobs(engine, job(1, 20), job(2, 10), job(3, 10), job(4, 5, ACTION), job(5, 30))
    with engine.snapshot() as view:
        claimed = view.answer(Claim(20, 10, 10))
        assert [due.id for due in claimed.mutations] == [2, 3, 1]
        assert claimed.actions == [job(4, 5, ACTION)]
        assert claimed.next_due == 30
        assert [due.id for due in view.answer(Claim(20, 2, 0)).mutations] == [2, 3]
        assert view.answer(Claim(20, 2, 0)).actions == []
        assert view.answer(Claim(4, 10, 10)) == Claimed([], [], 5)


def test_a_completed_job_is_no_longer_due(engine: Engine) -> None:
    with_jobs(engine, job(1, 10))
    done = job(1, None, state="success", completed_time=11.0)
    engine.begin()
    commit(engine, (JOBS, {1: Write(job(1, 10), done)}), last_id=1)
    with engine.snapshot() as view:
        assert view.answer(Claim(99, 10, 10)) == Claimed([], [], None)
        found = view.answer(Get(JOBS, 1))
        assert (found.state, found.due, found.completed_time) == ("success", None, 11.0)


def test_those_that_completed_first_come_first_and_without_their_arguments(engine: Engine) -> None:
    with_jobs(
        engine,
        job(1, None, state="success", completed_time=30.0),
        job(2, 10),
        job(3, None, state="canceled", completed_time=20.0),
    )
    with engine.snapshot() as view:
        assert [(done.id, done.args) for done in view.answer(ListCompleted(9))] == [(3, ""), (1, "")]
        assert [done.completed_time for done in view.answer(ListCompleted(1))] == [20.0]


def test_a_deleted_job_is_gone_and_may_be_deleted_again(engine: Engine) -> None:
    done = job(1, None, state="success", completed_time=11.0)
    with_jobs(engine, done, job(2, 10))
    for _ in range(2):
        engine.begin()
        commit(engine, (JOBS, {1: Write(done, None)}), last_id=10)
    with engine.snapshot() as view:
        assert view.answer(Get(JOBS, 1)) is None
        assert view.answer(Get(JOBS, 2)) == job(2, 10)


def test_jobs_are_tallied_by_what_is_due_and_what_runs(engine: Engine) -> None:
    with_jobs(engine, job(1, 20), job(2, 10), job(3, 15, ACTION), job(4, 21), job(5, 1, ACTION))
    engine.begin()
    running = job(5, None, ACTION, "inProgress", epoch=1)._replace(scheduled_time=1)
    commit(engine, (JOBS, {5: Write(job(5, 1, ACTION), running)}), last_id=10)
    with engine.snapshot() as view:
        assert view.answer(CountJobs(20.0)) == JobCounts(3, 10.0, 1)
        assert view.answer(CountJobs(9.0)) == JobCounts(0, None, 1)


def test_the_attempts_of_a_job_and_what_it_retries_are_kept(engine: Engine) -> None:
    with_jobs(engine, job(1, 10, retry_of=7))
    engine.begin()
    postponed = job(1, 25, retry_of=7, attempts=2)._replace(scheduled_time=10)
    commit(engine, (JOBS, {1: Write(job(1, 10, retry_of=7), postponed)}), last_id=10)
    with engine.snapshot() as view:
        assert view.answer(Get(JOBS, 1)) == postponed
        assert view.answer(Claim(25, 9, 9)).mutations == [postponed]
    engine.begin()
    done = job(1, None, state="success", completed_time=26.0, retry_of=7)._replace(scheduled_time=10)
    commit(engine, (JOBS, {1: Write(postponed, done)}), last_id=10)
    with engine.snapshot() as view:
        assert view.answer(Get(JOBS, 1)) == done


@pytest.mark.parametrize(
    "impossible",
    [
        job(1, None),
        job(1, 5.0, state="success", completed_time=1.0),
        job(1, None, state="success"),
        job(1, None, state="failed", completed_time=1.0),
        job(1, None, state="inProgress"),
        job(1, 5.0, epoch=1),
        job(1, None, state="unheard of", completed_time=1.0),
        job(1, 5.0, queue="slow"),
    ],
    ids=lambda job: f"{job.state} {job.queue}",
)
def test_impossible_states_cannot_be_stored(engine: Engine, impossible: Job) -> None:
    with pytest.raises(StoreError, match="refused a"):
        with_jobs(engine, impossible)
    engine.rollback()
    with engine.snapshot() as view:
        assert view.answer(Get(JOBS, 1)) is None


STATE, NAME = JOBS.indexes


@pytest.mark.parametrize(
    ("order", "interval", "ids"),
    [
        (None, EVERYTHING, [1, 2, 3, 4]),
        (None, Interval(Cut((), after=True, id=2), LAST), [3, 4]),
        (STATE, EVERYTHING, [3, 2, 4, 1]),
        (STATE, Interval(Cut(("pending",), after=False), Cut(("pending",), after=True)), [2, 4, 1]),
        (STATE, Interval(Cut(("pending", 10.0), after=True), LAST), [1]),
        (STATE, Interval(Cut(("pending", 10.0), after=True, id=2), LAST), [4, 1]),
        (STATE, Interval(Cut((None,), after=True), Cut((b"",), after=False)), [3, 2, 4, 1]),
        (STATE, Interval(Cut(("pending", True), after=False), LAST), []),
        (STATE, Interval(Cut(("pending", "x"), after=True), LAST), []),
        (STATE, Interval(Cut((5,), after=False), Cut((5,), after=True)), []),
        (NAME, Interval(Cut(("a:b",), after=True), LAST), [2, 4]),
        (NAME, Interval(Cut(("c:d", 10), after=False), Cut(("c:d", 10), after=True)), [2, 4]),
    ],
)
def test_jobs_are_scanned_like_documents(
    engine: Engine, order: Index | None, interval: Interval, ids: list[int]
) -> None:
    with_jobs(
        engine,
        job(1, 20.0),
        job(2, 10.0, name="c:d"),
        job(3, None, state="canceled", completed_time=1.0),
        job(4, 10.0, name="c:d"),
    )
    with engine.snapshot() as view:
        for descending in (False, True):
            found = [id for id, _ in view.answer(Scan(JOBS, order, interval, descending, 10))]
            assert found == (ids[::-1] if descending else ids)
        assert [id for id, _ in view.answer(Scan(JOBS, order, interval, False, 1))] == ids[:1]


def test_jobs_that_only_succeeded_end_by_one_statement_as_by_writes_of_their_own(engine: Engine) -> None:
    first, second, waiting = job(1, 7.0, parent=9, retry_of=8), job(2, 6.0, ACTION), job(3, 7.0)
    with_jobs(engine, first, second, waiting)
    running = second._replace(due=None, state="inProgress", epoch=3)
    engine.begin()
    commit(engine, (JOBS, {2: Write(second, running)}))
    engine.begin()
    engine.commit(Changeset([], 10, succeeded={1: first, 2: running}, now=40.0))
    with engine.snapshot() as view:
        assert [view.answer(Get(JOBS, id)) for id in (1, 2, 3)] == [
            first._replace(due=None, state="success", completed_time=40.0),
            second._replace(due=None, state="success", completed_time=40.0),
            waiting,
        ]
        assert view.answer(Get(JOBS, 1)) == succeeded_row(first, 40.0)
        assert view.answer(Get(JOBS, 2)) == succeeded_row(running, 40.0)
