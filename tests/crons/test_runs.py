"""Runs: as whom, what they leave in the log and nowhere else, and what becomes of them when something goes wrong."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    ActionCtx,
    InvalidIdError,
    MutationCtx,
    QueryCtx,
    SchemaValidationError,
    SyncActionCtx,
    crons,
    internal_action,
    internal_mutation,
    mutation,
    query,
)
from duly.declare.cron_jobs import CronJobs
from duly.model import crons as model
from duly.model.jobs import INTERRUPTED
from duly.storage.rows import CRONS, JOBS, Job
from duly.testing import Harness
from duly.values.json import dumps
from tests.crons.app import NOW, Deployed, act, calendar, fail, interval, look, note, seconds
from tests.support import handlers_in

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.one_engine]


@internal_mutation
async def who(ctx: MutationCtx) -> Any:
    return [await ctx.auth.get_user_identity(), ctx.scheduled_function_id, int(ctx.now - NOW)]


@internal_action
async def who_acts(ctx: ActionCtx) -> Any:
    await ctx.run_mutation(note, {"text": str(await ctx.run_mutation(who))})
    return [await ctx.auth.get_user_identity(), ctx.scheduled_function_id]


@mutation
async def registers(ctx: MutationCtx) -> None:
    await crons.register(ctx, {"kind": "interval", "ms": 60_000}, who, name="r")


@internal_mutation
async def schedules(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(5_000, note, {"text": "child"})


@internal_action
async def action_that_schedules(ctx: ActionCtx) -> None:
    await ctx.scheduler.run_after(5_000, note, {"text": "child"})


@internal_action
def in_a_thread(ctx: SyncActionCtx) -> str:
    ctx.run_mutation(note, {"text": "thread"})
    ctx.log.info("from a thread")
    return "done"


@internal_mutation
async def returns(ctx: MutationCtx, value: Any) -> Any:
    return value


@internal_mutation
async def returns_much(ctx: MutationCtx, length: int) -> str:
    return "é" * length


@internal_mutation
async def fails_at_length(ctx: MutationCtx) -> None:
    raise ValueError("x" * 1_000_000)


@internal_mutation
async def says(ctx: MutationCtx, lines: list[str], fails: bool = False) -> None:
    for line in lines:
        ctx.log.info("%s", line)
    if fails:
        raise ValueError("on purpose")


@internal_mutation
async def needs(ctx: MutationCtx, number: int) -> None:
    await ctx.db.insert("notes", {"text": f"{number}"})


@query
async def names(ctx: QueryCtx) -> list[str]:
    return [row["name"] for row in await ctx.db.system.query("_cron_jobs").collect()]


@query
async def slots(ctx: QueryCtx) -> list[float]:
    return [seconds(row["scheduledTime"]) for row in await ctx.db.system.query("_cron_job_logs").collect()]


@query
async def jobs_page(ctx: QueryCtx, cursor: str | None) -> Any:
    page = await ctx.db.system.query("_scheduled_functions").paginate(num_items=2, cursor=cursor)
    return [[row["args"][0]["text"] for row in page["page"]], page["isDone"], page["continueCursor"]]


def deployed(declared: Any = None) -> Deployed:
    return Deployed(declared, handlers_in(globals()))


# As whom, and where.


async def test_a_run_is_anonymous_whatever_identity_registered_the_cron() -> None:
    async with deployed() as d:
        await d.t.with_identity({"subject": "ada"}).mutation("app:registers")
        await d.advance(60)
        [row] = await d.log_rows()
        assert row["result"] == "[null,null,60000]"


async def test_an_action_and_what_it_calls_is_anonymous_too() -> None:
    async with deployed(interval(60, who_acts)) as d:
        await d.t.run_until_idle()
        [row] = await d.log_rows()
        assert (await d.noted(), row["result"]) == (["[None, None, 0] 0"], "[null,null]")


@pytest.mark.both_engines
@pytest.mark.parametrize("ref", [schedules, action_that_schedules])
async def test_what_a_run_schedules_is_an_ordinary_scheduled_function(ref: Any) -> None:
    async with deployed(calendar("* * * * *", ref)) as d:
        await d.advance(60)
        [job] = await d.t.jobs()
        assert (job["name"], job["state"], seconds(job["scheduledTime"])) == ("app:note", {"kind": "pending"}, 65)
        await d.t.transaction(lambda ctx: crons.delete(ctx, "c"))
        await d.advance(5)
        assert await d.noted() == ["child 65"]
        assert [job["state"] for job in await d.t.jobs()] == [{"kind": "success"}]


async def test_an_action_in_a_thread_runs() -> None:
    async with deployed(calendar("* * * * *", in_a_thread)) as d:
        await d.advance(60)
        [row] = await d.log_rows()
        assert (await d.noted(), row["result"], row["logLines"]) == (["thread 60"], '"done"', ["from a thread"])


async def test_internal_and_public_functions_run_alike() -> None:
    async with deployed(calendar("* * * * *", "app:write", {"text": "public"})) as d:
        await d.advance(60)
        assert await d.noted() == ["public 60"]


@pytest.mark.both_engines
async def test_neither_clocks_nor_runs_are_scheduled_functions_of_the_application() -> None:
    declared = interval(60, act)
    for n in range(20):
        declared.interval(f"c{n}", {"minutes": 1}, note)
    async with deployed(declared) as d:
        for text in "abcde":
            await d.t.transaction(lambda ctx, text=text: ctx.scheduler.run_after(3_600_000, note, {"text": text}))
            await d.advance(7)
        gate = await d.until_one_runs(60)
        assert [job["args"][0]["text"] for job in await d.t.jobs()] == list("abcde")
        pages: list[Any] = []
        cursor, done = None, False
        while not done:
            page, done, cursor = await d.t.app.query("app:jobs_page", {"cursor": cursor})
            pages.append(page)
        assert [text for page in pages for text in page] == list("abcde")
        assert pages[:2] == [["a", "b"], ["c", "d"]]
        newest = await d.t.transaction(lambda ctx: ctx.db.system.query("_scheduled_functions").order("desc").first())
        assert newest is not None
        assert newest["args"] == [{"text": "e"}]
        gate.open()
        await d.t.run_until_idle()
        stats = await d.t.app.stats()
        assert (stats.due, stats.running) == (0, 0)


@pytest.mark.both_engines
async def test_scheduled_functions_are_found_behind_any_number_of_clocks_which_count_as_read() -> None:
    declared = interval(60)
    for n in range(1_199):
        declared.interval(f"c{n}", {"minutes": 1}, note)
    found = list[Any]()

    async def look_in_all_ways(ctx: MutationCtx) -> None:
        jobs, usage = ctx.db.system.query("_scheduled_functions"), ctx.transaction.usage
        filtered = jobs.filter(lambda q: q.field("name") == "app:note")

        async def iterate() -> Any:
            return [job async for job in jobs]

        async def turn_a_page() -> Any:
            return (await jobs.paginate(num_items=1))["page"]

        ways = [jobs.collect, lambda: jobs.take(1), filtered.collect, lambda: filtered.take(1), iterate, turn_a_page]
        for read in ways:
            before = usage.documents_read
            [job] = await read()
            found.append((job["args"], usage.documents_read - before))

    async with deployed(declared) as d:
        await d.t.transaction(lambda ctx: ctx.scheduler.run_after(3_600_000, note, {"text": "e"}))
        await d.t.transaction(look_in_all_ways)
    assert found == 6 * [([{"text": "e"}], 1_201)]


@pytest.mark.both_engines
async def test_the_tables_of_crons_are_live_in_subscriptions() -> None:
    async with deployed(calendar("* * * * *")) as d:
        live_names, live_slots = d.t.subscribe(names), d.t.subscribe(slots)
        assert (await anext(live_names), await anext(live_slots)) == (["c"], [])
        await d.advance(60)
        assert await anext(live_slots) == [60]
        await d.t.transaction(
            lambda ctx: crons.register(ctx, {"kind": "interval", "ms": 1_000_000}, note, {}, name="r")
        )
        assert await anext(live_names) == ["c", "r"]
        await d.t.transaction(lambda ctx: crons.delete(ctx, "c"))
        assert (await anext(live_names), await anext(live_slots)) == (["r"], [])


@pytest.mark.parametrize("table", ["_cron_jobs", "_cron_job_logs"])
async def test_applications_do_not_write_the_tables_of_crons(table: str) -> None:
    async with deployed(interval(60)) as d:
        await d.t.run_until_idle()
        [row] = await d.t.transaction(lambda ctx: ctx.db.system.query(table).collect())
        with pytest.raises(SchemaValidationError, match=f"got an insert into '{table}'"):
            await d.t.transaction(lambda ctx: ctx.db.insert(table, {"name": "x"}))
        refused = f"of a document of '{table}'; read it with ctx.db.system"
        with pytest.raises(InvalidIdError, match=refused):
            await d.t.transaction(lambda ctx: ctx.db.patch(row["_id"], {"name": "x"}))
        with pytest.raises(InvalidIdError, match=refused):
            await d.t.transaction(lambda ctx: ctx.db.replace(row["_id"], {"name": "x"}))
        with pytest.raises(InvalidIdError, match=refused):
            await d.t.transaction(lambda ctx: ctx.db.delete(row["_id"]))
        assert await d.t.transaction(lambda ctx: ctx.db.system.query(table).collect()) == [row]


async def test_the_tables_of_crons_are_read_by_name() -> None:
    declared = interval(60, name="a")
    declared.interval("b", {"seconds": 45}, note)
    async with deployed(declared) as d:
        await d.advance(100)

        async def of_b(ctx: MutationCtx) -> Any:
            log = ctx.db.system.query("_cron_job_logs").with_index("by_name", lambda q: q.eq("name", "b"))
            return [seconds(row["scheduledTime"]) for row in await log.collect()]

        assert await d.t.transaction(of_b) == [0, 45, 90]


# What the log has.


async def test_the_log_says_when_a_run_was_due_began_and_ended() -> None:
    async with deployed(calendar("* * * * *", act)) as d:
        gate = await d.until_one_runs(60)
        await d.elapse(13)
        gate.open()
        await d.t.run_until_idle()
        [row] = await d.log_rows()
        assert [seconds(row[field]) for field in ("scheduledTime", "startedTime", "completedTime")] == [60, 60, 73]
        assert (row["name"], row["status"], row["result"]) == ("c", {"kind": "success"}, "7")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, None), (0, "0"), (False, "false"), ("text", '"text"'), ([1, "a"], '[1,"a"]'), ({"a": None}, '{"a":null}')],
)
async def test_the_log_has_what_a_run_returned_as_json(value: Any, shown: str | None) -> None:
    async with deployed(interval(60, returns, {"value": value})) as d:
        await d.t.run_until_idle()
        [row] = await d.log_rows()
        assert row.get("result") == shown


async def test_a_long_result_is_cut_and_says_so() -> None:
    declared = interval(60, returns_much, {"length": 998}, name="short")
    declared.interval("long", {"minutes": 1}, returns_much, {"length": 999})
    async with deployed(declared) as d:
        await d.t.run_until_idle()
        short, long = await d.log_rows()
        assert short["result"] == '"' + "é" * 998 + '"'
        assert long["result"] == '"' + "é" * 999 + "… (1,001 characters)"


@pytest.mark.both_engines
@pytest.mark.parametrize(("ref", "left"), [("app:fail", []), ("app:act_and_fail", ["stays 0"])])
async def test_a_run_that_fails_is_logged_with_its_error_and_the_next_slot_comes(ref: str, left: list[str]) -> None:
    async with deployed(interval(60, ref)) as d:
        await d.t.run_until_idle()
        [row] = await d.log_rows()
        assert row["status"]["kind"] == "failed"
        assert row["status"]["error"].startswith("ValueError: on purpose\n  at ")
        assert "result" not in row
        assert await d.noted() == left
        await d.advance(60)
        assert await d.logs() == ["c failed 0", "c failed 60"]


async def test_a_long_error_is_cut() -> None:
    async with deployed(interval(60, fails_at_length)) as d:
        await d.t.run_until_idle()
        [row] = await d.log_rows()
        assert row["status"]["error"].startswith("ValueError: xxx")
        assert len(row["status"]["error"]) <= 8_192


@pytest.mark.parametrize("fails", [False, True])
async def test_the_log_has_the_first_lines_that_a_run_wrote_whole(fails: bool) -> None:
    lines = ["a" * 500, "b" * 500, "c", "d"]
    async with deployed(interval(60, says, {"lines": lines, "fails": fails})) as d:
        await d.t.run_until_idle()
        [row] = await d.log_rows()
        assert row["logLines"] == ["a" * 500, "b" * 500, "… and 2 more lines"]
        assert row["status"]["kind"] == ("failed" if fails else "success")


@internal_mutation
async def says_at_each_level(ctx: MutationCtx) -> None:
    ctx.log.debug("one")
    ctx.log.info("two")
    ctx.log.error("three")


async def test_the_log_has_lines_from_info_on_as_they_were_written(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "duly.app")
    async with deployed(interval(60, says_at_each_level)) as d:
        await d.t.run_until_idle()
        assert (await d.log_rows())[0]["logLines"] == ["two", "three"]


@internal_mutation
async def says_what_is_no_text(ctx: MutationCtx) -> None:
    ctx.log.info("half a pair \ud800, and \x00")


@internal_action
async def says_it_too(ctx: ActionCtx) -> None:
    ctx.log.info("half a pair \ud800, and \x00")


@pytest.mark.both_engines
@pytest.mark.parametrize("ref", [says_what_is_no_text, says_it_too])
async def test_a_line_that_is_no_text_harms_nothing(ref: Any) -> None:
    async with deployed(interval(60, ref)) as d:
        await d.advance(60)
        assert await d.logs() == ["c success 0", "c success 60"]
        assert (await d.log_rows())[0]["logLines"] == ["half a pair ?, and \x00"]


@pytest.mark.both_engines
async def test_the_log_keeps_the_newest_hundred_of_each_cron_of_whatever_kind() -> None:
    declared = interval(1)
    declared.interval("fails", {"seconds": 1}, fail)
    declared.interval("rare", {"hours": 1}, note)
    async with deployed(declared) as d:
        await d.advance(120)
        rows = await d.logs()
        assert [line for line in rows if line.startswith("c ")] == [f"c success {n}" for n in range(21, 121)]
        assert [line for line in rows if line.startswith("fails")] == [f"fails failed {n}" for n in range(21, 121)]
        assert [line for line in rows if line.startswith("rare")] == ["rare success 0"]


# What goes wrong.


@pytest.mark.both_engines
async def test_an_action_that_a_crash_interrupts_is_logged_as_such_and_the_next_slot_comes() -> None:
    async with deployed(interval(60, act)) as d:
        await d.until_one_runs(10)
        await d.t.crash()
        [row] = await d.log_rows()
        assert row["status"] == {"kind": "failed", "error": INTERRUPTED}
        assert (await d.crons())["c"]["running"] == 0
        await d.advance(50)
        assert await d.noted() == ["x 60"]
        assert await d.logs() == ["c failed 0", "c success 60"]


async def test_an_action_that_the_end_of_a_process_interrupts_is_logged_as_such() -> None:
    async with deployed(interval(60, act)) as d:
        await d.until_one_runs(10)
        await d.t.app.executor.stop()
        assert [row["status"] for row in await d.log_rows()] == [{"kind": "failed", "error": INTERRUPTED}]


async def test_a_run_that_waits_to_begin_when_the_process_is_lost_runs_once() -> None:
    async with deployed(interval(60)) as d:
        await d.advance(59)
        await d.leap(1)
        await d.t.app.executor.run_batch()  # which ticks
        assert (await d.logs(), (await d.crons())["c"]["running"]) == (["c success 0"], 1)
        await d.t.crash()
        await d.advance(60)
        assert await d.noted() == ["x 0", "x 60", "x 120"]
        assert await d.logs() == ["c success 0", "c success 60", "c success 120"]


MINUTE = {"kind": "interval", "ms": 60_000}


async def register(d: Deployed, ref: str, args: Any = None, name: str | None = "c") -> None:
    await d.t.transaction(lambda ctx: crons.register(ctx, MINUTE, ref, args, name=name))


async def replace(d: Deployed, name: str, function: Any) -> None:
    """Deploy the application with another function of that name, or without one."""
    delattr(d.functions, name)
    if function is not None:
        setattr(d.functions, name, function)
    await d.t.app.reload()


async def test_a_function_that_is_gone_is_logged_by_each_run_until_it_is_back() -> None:
    async with deployed() as d:
        await register(d, "app:other")
        await replace(d, "other", None)
        await d.advance(120)
        assert await d.logs() == ["c failed 60", "c failed 120"]
        [row, _] = await d.log_rows()
        assert row["status"]["error"].startswith("FunctionNotFoundError: app:other does not exist (any more)")
        d.functions.other = note
        await d.t.app.reload()
        await d.advance(60)
        assert await d.logs() == ["c failed 60", "c failed 120", "c success 180"]


async def test_a_function_that_has_become_a_query_is_logged_by_each_run() -> None:
    async with deployed() as d:
        await register(d, "app:other")
        await replace(d, "other", look)
        await d.advance(120)
        assert await d.logs() == ["c failed 60", "c failed 120"]
        assert "app:other is a query now" in (await d.log_rows())[0]["status"]["error"]


@pytest.mark.parametrize(("before", "after"), [("other", act), ("act", note)])
async def test_a_function_that_has_become_one_of_another_kind_runs_as_what_it_is(before: str, after: Any) -> None:
    async with deployed() as d:
        await register(d, f"app:{before}", {"text": "y"})
        await replace(d, before, after)
        await d.advance(120)
        assert await d.logs() == ["c success 60", "c success 120"]
        assert await d.noted() == ["y 60", "y 120"]


@pytest.mark.parametrize("before", ["other", "act"])
async def test_arguments_that_no_longer_fit_are_logged_by_each_run(before: str) -> None:
    async with deployed() as d:
        await register(d, f"app:{before}", {"text": "y"})
        await replace(d, before, needs)
        await d.advance(120)
        assert await d.logs() == ["c failed 60", "c failed 120"]
        assert f"ArgumentValidationError: app:{before}: at ." in (await d.log_rows())[0]["status"]["error"]


async def test_arguments_that_never_fitted_are_logged_by_each_run_and_can_be_changed() -> None:
    async with deployed() as d:
        await register(d, "app:needs", {"wrong": 1})
        await d.advance(60)
        await d.t.transaction(lambda ctx: crons.update(ctx, "c", args={"number": 5}))
        await d.advance(60)
        assert await d.logs() == ["c failed 60", "c success 120"]


@pytest.mark.both_engines
async def test_while_the_executor_is_paused_nothing_runs_and_no_slot_is_logged_and_then_one_run_is_made() -> None:
    async with deployed(interval(60)) as d:
        await d.t.app.pause()
        await d.advance(200)
        assert (await d.noted(), await d.logs()) == ([], [])
        await d.t.app.resume()
        await d.advance(40)
        assert await d.noted() == ["x 200", "x 240"]
        assert await d.logs() == ["c skipped 60 count 3", "c success 0", "c success 240"]


async def test_a_run_that_goes_on_when_the_executor_is_paused_ends_and_is_logged() -> None:
    async with deployed(interval(60, act)) as d:
        gate = await d.until_one_runs(10)
        await d.t.app.pause()
        gate.open()
        await d.advance(100)
        assert (await d.noted(), await d.logs()) == (["x 10"], ["c success 0"])


async def test_a_run_goes_on_with_the_code_it_began_with() -> None:
    async with deployed() as d:
        await register(d, "app:act")
        gate = await d.until_one_runs(60)
        await replace(d, "act", None)
        gate.open()
        await d.advance(60)
        assert await d.noted() == ["x 60"]
        assert await d.logs() == ["c success 60", "c failed 120"]


@pytest.mark.both_engines
async def test_a_clock_that_cannot_go_on_pauses_its_cron_and_says_why_and_others_go_on() -> None:
    declared = calendar("* * * * *")
    declared.interval("other", {"minutes": 1}, note)
    async with deployed(declared) as d:
        await d.advance(59)
        await lose_zone(d, "Mars/Olympus")
        await d.advance(61)
        found = await d.crons()
        assert (found["c"]["paused"], "nextRunTime" in found["c"], found["c"]["running"]) == (True, False, 0)
        assert await d.logs() == ["other success 0", "c failed 60", "other success 60", "other success 120"]
        error = (await d.log_rows())[1]["status"]["error"]
        assert error.startswith("InvalidScheduleError: got the time zone 'Mars/Olympus'")
        assert found["c"]["error"] == error
        with pytest.raises(Exception, match="time zone 'Mars/Olympus'"):
            await d.t.transaction(lambda ctx: crons.resume(ctx, "c"))
        await d.t.transaction(lambda ctx: crons.update(ctx, "c", {"kind": "cron", "cron": "* * * * *"}))
        await d.advance(60)
        assert "c success 180" in await d.logs()
        assert "error" not in (await d.crons())["c"]


@pytest.mark.parametrize(
    ("declared", "goes_on"),
    [
        (calendar("* * * * *", tz="Asia/Tokyo"), True),
        (calendar("* * * * *", args={"text": "y"}), True),
        (calendar("* * * * *", "app:fail"), True),
        (calendar("* * * * *", missed="skip"), False),
    ],
)
async def test_a_cron_that_gave_up_goes_on_when_what_it_does_is_declared_otherwise(
    declared: CronJobs, goes_on: bool
) -> None:
    async with deployed(calendar("* * * * *")) as d:
        await d.advance(59)
        await lose_zone(d, "UTC", error="its zone was gone")
        await d.deploy(declared)
        found = (await d.crons())["c"]
        assert (found["paused"], "nextRunTime" in found, "error" in found) == (not goes_on, goes_on, not goes_on)
        await d.advance(2)
        assert len(await d.log_rows()) == goes_on + 1


async def test_a_cron_that_gave_up_and_that_is_then_paused_stays_so() -> None:
    async with deployed(calendar("* * * * *")) as d:
        await d.advance(59)
        await lose_zone(d, "UTC", error="its zone was gone")
        await d.t.transaction(lambda ctx: crons.pause(ctx, "c"))
        await d.deploy(calendar("* * * * *", args={"text": "y"}))
        assert ((await d.crons())["c"]["paused"], "error" in (await d.crons())["c"]) == (True, False)


async def lose_zone(d: Deployed, tz: str, error: str | None = None) -> None:
    """Have the cron be in a zone that this machine does not know, as if another one had registered it; or have it given
    up because of that."""

    async def change(ctx: MutationCtx) -> None:
        found = await model.find(ctx.transaction, "c")
        assert found is not None
        id, cron = found
        changed = {**cron, "schedule": {**cron["schedule"], "tz": tz}}
        if error is not None:
            clock = await ctx.transaction.get(JOBS, id)
            assert isinstance(clock, Job)
            await model.pause_broken(ctx.transaction, clock, error)
            return
        ctx.transaction.write(CRONS, id, dumps(cron), dumps(changed))

    await d.t.transaction(change)


# When a run was.


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("function", ["takes_time", "acts_for_a_time"])
async def test_a_run_is_logged_from_its_real_begin_to_its_real_end(function: str, fails: bool) -> None:
    async with deployed() as d:
        takes.append(d)
        for _ in range(2):
            await register(d, f"app:{function}", {"seconds": 1, "fails": fails}, name=None)
        await d.leap(60)
        await d.t.app.executor.run_batch()  # which ticks
        await d.leap(1800)
        await d.t.crash()
        await d.t.run_until_idle()
        runs = [row for row in await d.log_rows() if seconds(row["scheduledTime"]) == 60]
        times = [[seconds(row[name]) for name in ("startedTime", "completedTime")] for row in runs]
        assert times == [[1860, 1861], [1861, 1862]]


@pytest.mark.parametrize("function", ["takes_time", "acts_for_a_time"])
async def test_a_run_takes_no_time_if_the_clock_was_set_back_meanwhile(function: str) -> None:
    async with deployed() as d:
        takes.append(d)
        await register(d, f"app:{function}", {"seconds": -600, "fails": False})
        await d.advance(60)
        [row] = await d.log_rows()
        assert [seconds(row[name]) for name in ("startedTime", "completedTime")] == [-540, -540]


async def test_an_action_that_was_interrupted_is_logged_from_when_it_was_to_run() -> None:
    async with deployed(interval(60, act)) as d:
        await d.until_one_runs(10)
        await d.t.crash()
        [row] = await d.log_rows()
        assert [round(seconds(row[name]), 6) for name in ("startedTime", "completedTime")] == [0, 10]


async def test_a_function_that_is_gone_begins_and_ends_when_that_is_noticed() -> None:
    async with deployed() as d:
        await register(d, "app:act")
        await d.leap(60)
        await d.t.app.executor.run_batch()  # which ticks
        await replace(d, "act", None)
        await d.leap(5)
        await d.t.run_until_idle()
        [row] = await d.log_rows()
        assert [seconds(row[name]) for name in ("startedTime", "completedTime")] == [65, 65]


takes: list[Deployed] = []


def pass_time(seconds: float, fails: bool) -> None:
    takes[-1].set_back(-seconds)
    if fails:
        raise ValueError("on purpose")


@internal_mutation
async def takes_time(ctx: MutationCtx, seconds: float, fails: bool) -> None:
    pass_time(seconds, fails)


@internal_action
async def acts_for_a_time(ctx: ActionCtx, seconds: float, fails: bool) -> None:
    pass_time(seconds, fails)


async def test_what_is_logged_of_a_run_does_not_make_its_function_one_that_is_not_repeatable(
    caplog: pytest.LogCaptureFixture,
) -> None:
    declared = interval(60, "app:says", {"lines": ["one", "two"]})
    modules = {"app": SimpleNamespace(says=says), "crons": declared}
    async with Harness(modules, development=True) as t:
        await t.advance(60_000)
        rows = await t.transaction(lambda ctx: ctx.db.system.query("_cron_job_logs").collect())
        assert [row["logLines"] for row in rows] == [["one", "two"]] * 2
    assert not [record for record in caplog.records if "not repeatable" in record.getMessage()]
