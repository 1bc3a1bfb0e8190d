"""`duly jobs`: an operator looks at scheduled functions, cancels them, has them run again, and pauses them all."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from click.testing import CliRunner

from duly import ActionCtx, App, Id, MutationCtx, internal_action, internal_mutation, mutation
from duly.cli import main
from duly.ctx.scheduler import job_number
from duly.database.batch import Batch
from duly.model import jobs as model
from duly.model.job_admin import SEARCHED_MAX
from duly.storage.rows import JOBS, Job
from duly.testing import Harness
from tests.conftest import only_on_sqlite
from tests.support import handlers_in

pytestmark = pytest.mark.one_engine

T = TypeVar("T")

START = datetime(2025, 1, 1, 12, tzinfo=UTC)
START_MS = START.timestamp() * 1000
MINUTE = 60_000.0


@mutation
async def schedule(ctx: MutationCtx, name: str, delay: float = 0, n: int = 0) -> Id:
    return await ctx.scheduler.run_after(delay, f"app:{name}", {"n": n})


@internal_mutation
async def note(ctx: MutationCtx, n: int) -> None:
    await ctx.db.insert("notes", {"n": n})


@internal_mutation
async def pay(ctx: MutationCtx, n: int) -> None:
    raise ValueError(f"no money for {n}\nnone at all")


@internal_mutation
async def order(ctx: MutationCtx, n: int) -> None:
    await ctx.scheduler.run_after(0, note, {"n": n})
    await ctx.scheduler.run_after(30 * MINUTE, ship, {"n": n})


@internal_action
async def ship(ctx: ActionCtx, n: int) -> None:
    await ctx.scheduler.run_after(5 * MINUTE, note, {"n": n})


APP = SimpleNamespace(**handlers_in(globals()))


@pytest.fixture(autouse=True)
def in_a_zone_one_hour_ahead(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC-1")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def shop(store: str) -> Shop:
    return Shop(store)


class Shop:
    """A store, what an application does to it, and the commands of an operator."""

    def __init__(self, store: str) -> None:
        self.store = store

    def do(self, unit: Callable[[Harness], Awaitable[T]], start: datetime = START) -> T:
        async def run() -> T:
            async with Harness({"app": APP}, start=start, store=self.store) as t:
                return await unit(t)

        return asyncio.run(run())

    def schedule(self, *jobs: tuple[str, float], run: bool = False) -> list[str]:
        """Schedule functions, as (name, minutes), and perhaps run what is due. Returns their ids."""

        async def unit(t: Harness) -> list[str]:
            ids = [
                await t.mutation(schedule, {"name": name, "delay": minutes * MINUTE, "n": n})
                for n, (name, minutes) in enumerate(jobs)
            ]
            if run:
                await t.run_until_idle()
            return ids

        return self.do(unit)

    def change(self, id: str, act: Callable[[Batch, Job], object]) -> None:
        """Do something to a function that only the executor does."""

        async def change(t: Harness) -> None:
            def in_batch(batch: Batch) -> None:
                job = batch.row(JOBS, job_number(t.app.runner, id))
                assert isinstance(job, Job)
                act(batch, job)

            await t.app.database.commit(in_batch)

        self.do(change)

    def jobs(self) -> list[dict[str, Any]]:
        return self.do(lambda t: t.jobs())

    def states(self) -> list[str]:
        return [job["state"]["kind"] for job in self.jobs()]

    def duly(self, *args: str, input: str | None = None) -> str:
        """What a command prints that succeeds."""
        result = self.run(*args, input=input)
        assert result.exit_code == 0, result.output
        return result.output

    def fails(self, *args: str, input: str | None = None) -> str:
        result = self.run(*args, input=input)
        assert result.exit_code != 0, result.output
        assert "Traceback" not in result.output
        return result.output

    def run(self, *args: str, input: str | None = None) -> Any:
        return CliRunner().invoke(main, ["jobs", *args, "--store", self.store], input=input)

    def listed(self, *args: str) -> list[int]:
        """The argument n of what is listed."""
        return [job["args"][0]["n"] for job in json.loads(self.run("list", "--json", *args).stdout)]


# list


@pytest.mark.both_engines
def test_a_list_has_a_line_for_each_function_the_last_one_first(shop: Shop) -> None:
    failed, pending = shop.schedule(("pay", 0), ("note", 90), run=True)
    title, first, second = shop.duly("list").splitlines()
    assert title.split() == ["id", "function", "state", "scheduled", "for"]
    assert first.split()[:5] == [pending, "app:note", "pending", "2025-01-01", "14:30:00"]
    assert second.split()[:5] == [failed, "app:pay", "failed", "2025-01-01", "13:00:00"]
    assert second.endswith(" d ago   ValueError: no money for 0")


def test_a_list_in_json_has_the_documents_that_functions_see(shop: Shop) -> None:
    shop.schedule(("pay", 0), ("order", 0), run=True)
    documents = shop.jobs()
    assert len(documents) == 4
    assert json.loads(shop.duly("list", "--json")) == documents[::-1]


def test_an_empty_list_says_so_and_is_an_empty_array_in_json(shop: Shop) -> None:
    shop.schedule()
    assert shop.duly("list") == "no scheduled functions\n"
    assert json.loads(shop.duly("list", "--json")) == []


def test_what_is_pending_is_listed_in_the_order_of_its_time_and_what_has_completed_the_other_way(shop: Shop) -> None:
    shop.schedule(("note", 3), ("note", 1), ("note", 2), ("pay", -1 + 1), ("pay", 0), run=True)
    assert shop.listed("--state", "pending") == [1, 2, 0]
    assert shop.listed("--state", "failed") == [4, 3]
    assert shop.listed("--function", "app:note") == [0, 2, 1]


@pytest.mark.both_engines
def test_a_list_is_narrowed_by_state_function_and_time(shop: Shop) -> None:
    shop.schedule(("note", 0), ("note", 60), ("ship", 90), ("note", 120), ("pay", 60), run=True)
    assert shop.listed("--function", "app.py:note", "--state", "pending") == [1, 3]
    assert shop.listed("--state", "PENDING", "--due-before", "2025-01-01T13:30Z") == [1, 4]
    assert shop.listed("--state", "pending", "--due-before", "2025-01-01T14:30:00.001") == [1, 4, 2]
    assert shop.listed("--due-before", "now") == [1, 4, 2, 3]  # only what is pending is due
    assert shop.listed("--due-before", "1h", "--function", "app:note") == [1, 3]
    assert shop.listed("--due-before", "-5000d") == []
    assert shop.listed("--state", "in-progress") == []


def test_a_list_ends_at_its_limit_and_says_that_there_are_more(shop: Shop) -> None:
    shop.schedule(*[("note", 5)] * 4)
    result = shop.run("list", "--limit", "3")
    assert len(result.stdout.splitlines()) == 4
    assert result.stderr == "… and more: these are the first 3; --limit N or --all shows others\n"
    assert shop.listed("--limit", "3") == [3, 2, 1]
    assert result.output.endswith(result.stderr)
    in_json = shop.run("list", "--limit", "1", "--json")
    assert in_json.output == in_json.stdout + result.stderr.replace("3", "1")
    assert in_json.stdout.endswith("}\n]\n")
    assert shop.run("list", "--limit", "4").stderr == ""
    assert shop.listed("--all") == [3, 2, 1, 0]


@pytest.mark.both_engines
def test_a_list_of_more_than_is_read_at_once_has_each_once(shop: Shop) -> None:
    with_many(shop, 1_203)
    assert shop.listed("--all") == list(range(1_203))[::-1]
    assert len(shop.duly("list", "--all", "--state", "pending").splitlines()) == 1_204


def with_many(shop: Shop, count: int) -> None:
    async def unit(t: Harness) -> None:
        async def fill(transaction: Any) -> None:
            for n in range(count):
                model.schedule(transaction, "app:note", "mutation", f'{{"n":{n}}}', START_MS + 1e12, None)

        await t.app.runner.commit(fill)

    shop.do(unit)


def test_a_list_says_that_the_executor_is_paused(shop: Shop) -> None:
    shop.schedule(("note", 5))
    shop.duly("pause")
    assert "nothing starts: it was paused " in shop.run("list").stderr
    assert len(json.loads(shop.duly("list", "--json"))) == 1


def test_what_waits_shows_that_the_executor_is_paused(shop: Shop) -> None:
    [ran, _] = shop.schedule(("pay", 0), ("pay", 0), run=True)
    [due, later] = shop.schedule(("note", 0), ("note", 5))
    assert "paused" not in shop.duly("show", due)
    shop.duly("pause")
    for id in (due, later):
        assert re.search(r"^paused +nothing starts: it was paused .+; duly jobs resume$", shop.duly("show", id), re.M)
    assert "paused" not in shop.duly("show", ran)  # it waits for nothing
    assert json.loads(shop.duly("show", due, "--json"))["state"] == {"kind": "pending"}
    assert "nothing starts: it was paused " in shop.run("retry", ran).stderr
    assert "nothing starts: it was paused " in shop.run("retry", "--function", "app:pay", "--yes").output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--state", "done"], "Invalid value for '--state': got 'done', expected one of pending, inProgress, success"),
        (["--due-before", "soon"], "Invalid value for '--due-before': got 'soon', expected `now`, a duration from now"),
        (["--limit", "0"], "Invalid value for '--limit'"),
    ],
)
@only_on_sqlite
def test_an_option_that_makes_no_sense_is_explained(shop: Shop, args: list[str], message: str) -> None:
    assert message in shop.fails("list", *args)


# show


def test_all_there_is_to_know_of_a_failed_function_is_shown(shop: Shop) -> None:
    [failed] = shop.schedule(("pay", 0), run=True)
    lines = shop.duly("show", failed).splitlines()
    assert lines[:3] == [f"id           {failed}", "function     app:pay (mutation)", "state        failed"]
    assert lines[3].startswith("created      2025-01-01 13:00:00.000+01:00  2025-01-01T12:00:00.000Z  ")
    assert [line.split()[0] for line in lines[3:6]] == ["created", "scheduled", "completed"]
    assert lines[6:9] == ["args         {", '               "n": 0', "             }"]
    assert lines[9:11] == ["error        ValueError: no money for 0", "             none at all"]
    assert lines[11].startswith("               at pay (test_jobs.py:")
    assert len(lines) == 12


def test_one_in_json_is_the_document_that_functions_see(shop: Shop) -> None:
    [failed] = shop.schedule(("pay", 0), run=True)
    assert [json.loads(shop.duly("show", failed, "--json"))] == shop.jobs()


@pytest.mark.both_engines
def test_parents_and_children_of_mutations_and_actions_are_shown(shop: Shop) -> None:
    async def unit(t: Harness) -> list[str]:
        await t.mutation(schedule, {"name": "order"})
        await t.mutation(schedule, {"name": "order"})
        await t.advance(timedelta(minutes=31))
        return [job["_id"] for job in await t.jobs()]

    ids = shop.do(unit)
    names = [job["name"] for job in shop.jobs()]
    assert names == [f"app:{name}" for name in ("order", "order", "note", "ship", "note", "ship", "note", "note")]
    assert shop.duly("show", ids[0]).splitlines()[-2:] == [
        f"children     {ids[2]}  app:note  success",
        f"             {ids[3]}  app:ship  success",
    ]
    assert shop.duly("show", ids[3]).splitlines()[-2:] == [
        f"parent       {ids[0]}  app:order  success",
        f"children     {ids[6]}  app:note  pending",
    ]
    assert shop.duly("show", ids[7]).splitlines()[-1] == f"parent       {ids[5]}  app:ship  success"


def test_a_search_for_children_that_was_not_complete_says_so(shop: Shop) -> None:
    async def unit(t: Harness) -> str:
        id = await t.mutation(schedule, {"name": "ship"})
        await t.run_until_idle()
        return id

    action = shop.do(unit)
    with_many(shop, SEARCHED_MAX)
    shown = shop.duly("show", action)
    assert "children     (none among the 10,000 functions that were searched)" in shown


def test_why_a_function_is_due_later_is_shown(shop: Shop) -> None:
    [id] = shop.schedule(("note", 0))
    for _ in range(2):
        shop.change(id, lambda batch, job: batch.attempt(model.back_off, job.id, 1.0))
    lines = shop.duly("show", id).splitlines()
    assert "due          2025-01-01 13:00:01.000+01:00  2025-01-01T12:00:01.000Z  " in "\n".join(lines)
    assert "refused      2 times by the store" in lines


def test_a_failed_function_shows_its_retries_and_they_show_it(shop: Shop) -> None:
    [failed] = shop.schedule(("pay", 0), run=True)
    new = shop.duly("retry", failed).split()[-1]
    assert shop.duly("show", failed).splitlines()[-1] == f"retries      {new}  app:pay  pending"
    assert shop.duly("show", new).splitlines()[-1] == f"retry of     {failed}  app:pay  failed"


# cancel


def test_a_function_is_canceled_by_its_id_without_asking(shop: Shop) -> None:
    first, _ = shop.schedule(("note", 5), ("note", 5))
    assert shop.duly("cancel", first) == f"canceled {first}\n"
    assert shop.states() == ["canceled", "pending"]
    assert shop.duly("cancel", first) == f"canceled {first}\n"


def test_what_has_completed_cannot_be_canceled(shop: Shop) -> None:
    [failed] = shop.schedule(("pay", 0), run=True)
    assert "the scheduled function has completed (failed)" in shop.fails("cancel", failed)


@pytest.mark.both_engines
def test_those_that_fit_are_counted_and_canceled_if_the_operator_says_so(shop: Shop) -> None:
    shop.schedule(("note", 0), ("note", 5), ("ship", 5), ("note", 50), run=True)
    args = ("cancel", "--function", "app:note", "--due-before", "2025-01-01T12:06Z")
    assert shop.fails(*args, input="n\n") == "cancel 1 scheduled function (1 pending)? [y/N]: n\nAborted!\n"
    assert shop.states() == ["success", "pending", "pending", "pending"]
    assert shop.duly(*args, input="y\n") == "cancel 1 scheduled function (1 pending)? [y/N]: y\ncanceled 1\n"
    assert shop.states() == ["success", "canceled", "pending", "pending"]
    assert shop.duly("cancel", "--state", "pending", "--yes") == "canceled 2\n"
    assert shop.states() == ["success", "canceled", "canceled", "canceled"]
    assert shop.duly("cancel", "--state", "pending") == "none to cancel\n"


def test_more_than_one_commit_holds_are_canceled(shop: Shop) -> None:
    with_many(shop, 1_203)
    question = "cancel 1,203 scheduled functions (1,203 pending)? [y/N]: y\n"
    assert shop.duly("cancel", "--function", "app:note", input="y\n") == f"{question}canceled 1,203\n"
    assert set(shop.states()) == {"canceled"}


def with_one_in_progress(shop: Shop) -> str:
    """An action that its process left running, as a process does that is lost."""
    [action] = shop.schedule(("ship", 0))
    shop.change(action, lambda batch, job: model.start(batch, job, epoch=1))
    return action


def test_actions_in_progress_are_canceled_too(shop: Shop) -> None:
    with_one_in_progress(shop)
    assert "(1 inProgress)" in shop.duly("cancel", "--function", "app:ship", input="y\n")
    assert shop.states() == ["canceled"]


@only_on_sqlite
def test_a_cancel_wants_an_id_or_a_filter(shop: Shop) -> None:
    [id] = shop.schedule(("note", 5))
    assert "expected one of them" in shop.fails("cancel")
    assert "expected one of them" in shop.fails("cancel", id, "--state", "pending")
    assert "expected pending or inProgress: the others have completed" in shop.fails("cancel", "--state", "failed")
    assert shop.states() == ["pending"]


# retry


def test_failed_functions_are_scheduled_again_by_their_ids_all_or_none(shop: Shop) -> None:
    first, second, pending = shop.schedule(("pay", 0), ("pay", 0), ("note", 5), run=True)
    assert "app:note, which is pending, expected a scheduled function that has failed" in shop.fails(
        "retry", first, pending
    )
    assert len(shop.jobs()) == 3
    lines = shop.duly("retry", first, second).splitlines()
    new = shop.jobs()[3:]
    assert [job["retryOf"] for job in new] == [first, second]
    assert lines == [f"{id} is scheduled again as {job['_id']}" for id, job in zip((first, second), new, strict=True)]


def test_a_function_that_is_named_twice_is_scheduled_again_once(shop: Shop) -> None:
    [failed] = shop.schedule(("pay", 0), run=True)
    assert len(shop.duly("retry", failed, failed).splitlines()) == 1
    assert shop.states() == ["failed", "pending"]


@pytest.mark.both_engines
def test_what_failed_of_a_function_is_scheduled_again_once(shop: Shop) -> None:
    ids = shop.schedule(("pay", 0), ("pay", 0), ("pay", 0), ("note", 5), run=True)
    shop.duly("retry", ids[2])
    question = "2 scheduled functions failed. Schedule them again? [y/N]: "
    assert shop.fails("retry", "--function", "app:pay", input="n\n") == f"{question}n\nAborted!\n"
    assert shop.duly("retry", "--function", "app:pay", input="y\n") == f"{question}y\nscheduled 2 again\n"
    assert [job["args"][0]["n"] for job in shop.jobs()] == [0, 1, 2, 3, 2, 0, 1]
    assert shop.duly("retry", "--function", "app:pay") == "none to retry\n"


def test_what_failed_before_a_time_is_not_scheduled_again_by_a_filter(shop: Shop) -> None:
    async def unit(t: Harness) -> None:
        await t.mutation(schedule, {"name": "pay", "n": 1})
        await t.mutation(schedule, {"name": "pay", "n": 2, "delay": 10 * MINUTE})
        await t.advance(timedelta(minutes=10))

    shop.do(unit)
    args = ("retry", "--yes", "--function", "app:pay", "--failed-after", "2025-01-01T12:10Z")
    assert shop.duly(*args) == "scheduled 1 again\n"
    assert [job["args"][0]["n"] for job in shop.jobs()] == [1, 2, 2]


def test_the_operator_is_warned_that_interrupted_actions_may_have_done_their_work(shop: Shop) -> None:
    with_one_in_progress(shop)
    assert shop.states() == ["failed"]
    said = shop.duly("retry", "--function", "app:ship", input="y\n")
    assert said.startswith(
        "1 scheduled function failed. 1 of them were interrupted and may have done their work. Schedule them again?"
    )


# pause and resume


@pytest.mark.both_engines
def test_the_executor_is_paused_and_resumed_and_what_was_so_is_said(shop: Shop) -> None:
    shop.schedule(("note", 0))
    assert shop.duly("resume") == "it was not paused\n"
    assert shop.duly("pause") == "paused: nothing starts until duly jobs resume, and what runs goes on\n"
    assert shop.duly("pause").startswith("it was paused already since 2")
    shop.do(lambda t: t.run_until_idle())
    assert shop.states() == ["pending"]
    assert shop.duly("resume") == "resumed: what is due starts\n"
    shop.do(lambda t: t.run_until_idle())
    assert shop.states() == ["success"]


# What cannot be done.


@pytest.mark.parametrize("command", ["show", "cancel", "retry"])
def test_what_is_no_id_of_a_scheduled_function_of_this_store_is_explained(
    shop: Shop, tmp_path: Path, command: str
) -> None:
    note_id = shop.do(lambda t: t.transaction(lambda ctx: ctx.db.insert("notes", {})))
    [foreign] = Shop(f"sqlite:///{tmp_path}/another.db").schedule(("note", 5))
    assert "got 'nonsense', which is no id of this store" in shop.fails(command, "nonsense")
    assert f"got '{foreign}', which is no id of this store" in shop.fails(command, foreign)
    assert "got the id of a document of 'notes'" in shop.fails(command, note_id)


def test_a_function_that_has_expired_is_explained(shop: Shop) -> None:
    async def unit(t: Harness) -> str:
        return t.app.runner.job_id(12345)

    gone = shop.do(unit)
    assert "expected one that exists" in shop.fails("show", gone)
    assert "has expired" in shop.fails("cancel", gone)
    assert "expired" in shop.fails("retry", gone)


@pytest.mark.both_engines
@pytest.mark.parametrize("args", [["list"], ["pause"], ["cancel", "--state", "pending"]])
def test_a_store_that_does_not_exist_is_an_error_and_is_not_made(shop: Shop, tmp_path: Path, args: list[str]) -> None:
    for _ in range(2):
        assert "there is no store at " in shop.fails(*args)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.both_engines
def test_a_look_at_a_store_fails_nothing_that_its_application_left_running(shop: Shop) -> None:
    action = with_one_in_progress(shop)
    assert [job["_id"] for job in json.loads(shop.duly("list", "--json", "--state", "inProgress"))] == [action]
    assert "state        inProgress" in shop.duly("show", action)
    assert shop.states() == ["failed"]  # its application opens the store again


@only_on_sqlite
def test_a_file_that_is_in_use_is_not_touched(shop: Shop) -> None:
    async def scenario() -> str:
        async with App({"app": APP}, shop.store):
            return await asyncio.to_thread(shop.fails, "list")

    said = asyncio.run(scenario())
    assert f"is owned by process {os.getpid()}, and this command needs a file that no process owns" in said
    assert "app.pause()" in said


@pytest.mark.server
@pytest.mark.both_engines
def test_a_store_in_postgresql_may_be_in_use(store_of: Callable[[str], str]) -> None:
    shop = Shop(store_of("postgres"))

    async def scenario() -> str:
        async with App({"app": APP}, shop.store) as app:
            id = await app.mutation(schedule, {"name": "note", "delay": 1e9})
            await asyncio.to_thread(shop.duly, "cancel", id)
            return await asyncio.to_thread(shop.duly, "list")

    assert "canceled" in asyncio.run(scenario())
