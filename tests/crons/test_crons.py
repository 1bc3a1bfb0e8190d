"""Crons from code: deployed, ticked, run once per slot, logged."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from duly import ActionCtx, MutationCtx, QueryCtx, cron_jobs, internal_action, internal_mutation, query
from duly.testing import Harness
from tests.support import handlers_in

pytestmark = pytest.mark.usefixtures("engine")

START = datetime(2030, 1, 1, tzinfo=UTC)
gates: list[asyncio.Event] = []


@internal_mutation
async def note(ctx: MutationCtx, text: str = "x") -> str:
    assert ctx.scheduled_function_id is None
    await ctx.db.insert("notes", {"text": text, "at": ctx.now})
    return f"noted {text}"


@internal_mutation
async def fail(ctx: MutationCtx) -> None:
    await ctx.db.insert("notes", {"text": "never", "at": ctx.now})
    raise ValueError("on purpose")


@internal_mutation
async def talk(ctx: MutationCtx, lines: int) -> None:
    for n in range(lines):
        ctx.log.info("line %d", n)
    if lines < 0:
        ctx.log.info("about to fail")
        raise ValueError("on purpose")


@internal_action
async def act(ctx: ActionCtx) -> int:
    if gates:
        await gates[-1].wait()
    await ctx.run_mutation(note, {"text": "acted"})
    return 7


@query
async def notes(ctx: QueryCtx) -> list[float]:
    return [(note["at"] - START.timestamp() * 1000) / 1000 for note in await ctx.db.query("notes").collect()]


@query
async def crons(ctx: QueryCtx) -> list[dict[str, Any]]:
    return await ctx.db.system.query("_cron_jobs").collect()


@query
async def logs(ctx: QueryCtx) -> list[dict[str, Any]]:
    return await ctx.db.system.query("_cron_job_logs").collect()


APP = SimpleNamespace(**handlers_in(globals()))


@pytest.fixture(autouse=True)
def no_gates() -> None:
    gates.clear()


def harness(declared: Any) -> Harness:
    return Harness({"app": APP, "crons": declared}, start=START)


async def test_an_interval_runs_on_deploy_and_then_keeps_its_phase() -> None:
    declared = cron_jobs()
    declared.interval("clear presence", {"seconds": 30}, "app:note")
    async with harness(declared) as t:
        await t.advance(timedelta(seconds=95))
        assert await t.query(notes) == [0, 30, 60, 90]
        assert await t.jobs() == []
        assert [log["status"] for log in await t.query(logs)] == [{"kind": "success"}] * 4


async def test_a_calendar_runs_at_its_first_slot() -> None:
    declared = cron_jobs()
    declared.daily("report", {"hour_utc": 7, "minute_utc": 30}, "app:note", {"text": "daily"})
    async with harness(declared) as t:
        await t.advance(timedelta(days=2))
        assert await t.query(notes) == [7.5 * 3600, 31.5 * 3600]
        [cron] = await t.query(crons)
        assert cron["name"] == "report"
        assert cron["function"] == "app:note"
        assert cron["args"] == {"text": "daily"}
        assert cron["schedule"] == {"kind": "cron", "cron": "30 7 * * *", "tz": "UTC"}
        assert cron["nextRunTime"] == (START + timedelta(days=2, hours=7, minutes=30)).timestamp() * 1000
        assert (cron["paused"], cron["source"]) == (False, "code")


async def test_what_fails_is_logged_and_the_next_slot_comes() -> None:
    declared = cron_jobs()
    declared.interval("fails", {"minutes": 1}, "app:fail")
    async with harness(declared) as t:
        await t.advance(timedelta(minutes=1))
        assert await t.query(notes) == []
        found = await t.query(logs)
        assert [log["status"]["kind"] for log in found] == ["failed", "failed"]
        assert found[0]["status"]["error"].startswith("ValueError: on purpose\n  at fail (test_crons.py:")


async def test_what_a_run_writes_to_its_log_is_in_the_log_of_the_cron() -> None:
    declared = cron_jobs()
    declared.interval("talks", {"minutes": 1}, "app:talk", {"lines": 2})
    declared.interval("talks a lot", {"minutes": 1}, "app:talk", {"lines": 100})
    declared.interval("talks and fails", {"minutes": 1}, "app:talk", {"lines": -1})
    async with harness(declared) as t:
        await t.run_until_idle()
        lines = {log["name"]: log["logLines"] for log in await t.query(logs)}
        assert lines["talks"] == ["line 0", "line 1"]
        assert lines["talks a lot"][:2] == ["line 0", "line 1"]
        assert lines["talks a lot"][-2:] == ["line 98", "line 99"]
        assert lines["talks and fails"] == ["about to fail"]


async def test_an_action_runs_and_its_result_is_in_the_log() -> None:
    declared = cron_jobs()
    declared.interval("acts", {"minutes": 1}, "app:act")
    async with harness(declared) as t:
        await t.advance(timedelta(minutes=1))
        assert await t.query(notes) == [0, 60]
        assert [log["result"] for log in await t.query(logs)] == ["7", "7"]


async def test_a_run_that_lasts_skips_the_slots_that_come_meanwhile() -> None:
    declared = cron_jobs()
    declared.interval("acts", {"minutes": 1}, "app:act")
    gates.append(asyncio.Event())
    async with harness(declared) as t:
        running = asyncio.ensure_future(t.run_until_idle())
        while (await t.app.stats()).running == 0:
            await asyncio.sleep(0)
        clock: Any = t._clock  # pyright: ignore[reportPrivateUsage]
        clock.set(clock.now() + 180_000)
        await t.app.executor.run_batch()
        gates[-1].set()
        await running
        found = await t.query(logs)
        assert [log["status"] for log in found] == [{"kind": "skipped", "count": 3}, {"kind": "success"}]
        await t.advance(timedelta(minutes=1))
        assert await t.query(notes) == [180, 240]


async def test_slots_that_pass_while_nothing_runs_are_one_run_and_a_count() -> None:
    declared = cron_jobs()
    declared.interval("i", {"minutes": 1}, "app:note")
    declared.cron("c", "*/10 * * * *", "app:note", {"text": "c"})
    async with harness(declared) as t:
        await t.app.pause()
        await t.advance(timedelta(minutes=35))
        await t.app.resume()
        await t.run_until_idle()
        found = [(log["name"], log["status"]) for log in await t.query(logs)]
        assert sorted(found, key=str) == [
            ("c", {"kind": "skipped", "count": 2}),
            ("c", {"kind": "success"}),
            ("i", {"kind": "skipped", "count": 35}),
            ("i", {"kind": "success"}),
        ]
        await t.advance(timedelta(minutes=5))
        assert await t.query(notes) == [2100, 2100, 2160, 2220, 2280, 2340, 2400, 2400]


async def test_deploying_the_same_again_does_not_reset_a_clock() -> None:
    declared = cron_jobs()
    declared.interval("i", {"minutes": 1}, "app:note")
    async with harness(declared) as t:
        await t.advance(timedelta(seconds=90))
        await t.app.reload()
        await t.crash()
        await t.advance(timedelta(seconds=30))
        assert await t.query(notes) == [0, 60, 120]


async def test_the_log_keeps_the_newest_hundred() -> None:
    declared = cron_jobs()
    declared.interval("i", {"seconds": 1}, "app:note")
    async with harness(declared) as t:
        await t.advance(timedelta(seconds=149))
        found = await t.query(logs)
        assert len(found) == 100
        assert found[0]["scheduledTime"] == START.timestamp() * 1000 + 50_000


async def test_missed_skip_runs_the_last_slot_that_is_in_time_however_many_have_passed() -> None:
    declared = cron_jobs()
    declared.cron("c", "* * * * *", "app:note", missed="skip")
    async with harness(declared) as t:
        await t.app.pause()
        await t.advance(timedelta(minutes=2_000, seconds=30))
        await t.app.resume()
        await t.run_until_idle()
        assert await t.query(notes) == [2_000 * 60 + 30]
        assert [log["scheduledTime"] for log in await t.query(logs) if log["status"]["kind"] == "success"] == [
            (START + timedelta(minutes=2_000)).timestamp() * 1000
        ]
