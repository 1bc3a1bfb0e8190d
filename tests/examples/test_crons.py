"""The crons of examples/recurring: for a month on a virtual clock, and for some seconds with `duly dev`."""

from __future__ import annotations

import re
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from duly import Limits, MutationCtx
from duly.errors import InvalidScheduleError
from duly.limits import DEFAULTS
from duly.testing import Harness
from tests.support import duly
from tests.test_cli import dev

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.one_engine]

CRONS = Path(__file__).parents[2] / "examples" / "recurring"
START = datetime(2029, 12, 31, 12, tzinfo=UTC)  # a Monday
START_MS = START.timestamp() * 1000
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def application(limits: Limits = DEFAULTS) -> Harness:
    return Harness(CRONS, start=START, limits=limits)


def done() -> Counter[str]:
    """What was asked of the world outside, of the application that is open."""
    module: Any = sys.modules["recurring.outside"]
    return Counter(module.done)


async def runs(t: Harness, name: str) -> list[float]:
    """When a task ran, in minutes since the start."""
    return [(at - START_MS) / 60_000 for at in await t.query("tasks:runs", {"name": name})]


async def without_what_runs_often(t: Harness) -> None:
    """Pause it, once it has run: a month of it takes a while."""
    await t.run_until_idle()
    for often in ("clear presence", "sync prices"):
        await t.mutation("tasks:pause", {"cron": often})


async def test_a_month_of_crons() -> None:
    async with application() as t:
        await t.mutation("emails:sign_up", {"name": "ada"})
        await t.mutation("sessions:begin", {"user": "ada", "milliseconds": DAY / timedelta(milliseconds=1)})
        await t.mutation("sessions:begin", {"user": "bob", "milliseconds": 90 * DAY / timedelta(milliseconds=1)})
        await without_what_runs_often(t)
        for day in range(31):
            if day == 7:  # a week of what runs hourly will do
                await t.mutation("tasks:pause", {"cron": "reset high scores"})
            await t.mutation("scores:add", {"user": f"player {day}", "points": day})
            await t.advance(DAY)
        assert done() == {
            "price of tea": 1,
            "backup of 1 users": 31,
            "we miss you to ada": 2,  # on the 14th, and again on the 28th
            "newsletter to ada": 4,
            "summary to ada": 4,
            "good morning to ada": 31,
            "close the till to ada": 23,  # from Monday, the 31st, to Wednesday, the 30th
            "charge ada 900": 1,
        }
        assert await t.query("reports:count", {"kind": "full"}) == 32  # the first one when it was deployed
        assert await t.query("reports:count", {"kind": "short"}) == 31
        assert await t.query("scores:champions") == [f"player {day}" for day in range(7)]
        assert await t.query("sessions:of") == ["bob"]
        assert await t.failures() == []


async def test_however_many_have_expired_they_are_deleted_some_at_a_time() -> None:
    async def fill(ctx: MutationCtx) -> None:
        for n in range(1_200):
            await ctx.db.insert("sessions", {"user": f"user {n}", "expires": ctx.now})
            await ctx.db.insert("presence", {"user": f"user {n}", "seen": ctx.now})

    async with application(Limits(documents_read_max=1_000)) as t:
        await t.transaction(fill)
        await t.advance(5 * MINUTE)
        await without_what_runs_often(t)
        await t.advance(DAY)
        assert await t.query("sessions:of") == []
        assert await t.query("presence:who") == []
        assert await t.failures() == []


async def test_what_runs_often_runs_in_step_with_its_deployment() -> None:
    async with application() as t:
        await t.mutation("presence:here", {"user": "ada"})
        await t.advance(timedelta(seconds=59))
        assert await t.query("presence:who") == ["ada"]
        await t.crash()
        await t.advance(timedelta(seconds=1))
        assert await t.query("presence:who") == []
        await t.advance(HOUR - MINUTE)
        assert done()["price of tea"] == 13  # one of them before the crash
        assert await t.query("prices:newest") is not None


@pytest.mark.both_engines
async def test_users_make_crons_that_are_paused_resumed_and_deleted() -> None:
    async with application() as t:
        await without_what_runs_often(t)
        tick = await t.mutation("tasks:repeat", {"name": "tick", "interval_ms": 60_000})
        await t.mutation("tasks:repeat", {"name": "noon", "cron": "0 12 * * *", "tz": "America/New_York"})
        await t.advance(3.5 * MINUTE)
        assert await runs(t, "tick") == [1, 2, 3]

        await t.mutation("tasks:pause", {"cron": tick})
        await t.advance(10 * MINUTE)
        assert await runs(t, "tick") == [1, 2, 3]

        await t.mutation("tasks:resume", {"cron": "tick"})
        await t.advance(2 * MINUTE)
        assert await runs(t, "tick") == [1, 2, 3, 14.5, 15.5]

        await t.mutation("tasks:delete", {"cron": tick})
        await t.advance(5 * HOUR)
        assert await runs(t, "tick") == [1, 2, 3, 14.5, 15.5]
        assert await runs(t, "noon") == [5 * 60]
        assert await t.query("tasks:registered") == ["noon"]


async def test_a_cron_that_is_refused_leaves_nothing() -> None:
    async with application() as t:
        with pytest.raises(InvalidScheduleError, match=r"got an interval of 10 ms, expected at least 1,000"):
            await t.mutation("tasks:repeat", {"name": "hurry", "interval_ms": 10})
        assert await t.query("tasks:registered") == []


@pytest.mark.slow
def test_they_run_for_real(tmp_path: Path, store: str) -> None:
    (tmp_path / "pyproject.toml").write_text(f'[tool.duly]\nfolder = "{CRONS}"\nstore = "{store}"\n')
    with dev(tmp_path) as running:
        running.wait_for("Ctrl-C ends this")
        assert duly(tmp_path, "run", "tasks:repeat", '{"name": "tick", "interval_ms": 1000}').returncode == 0
        for _ in range(2):
            running.wait_for("✓ mutation tasks:run scheduled ")
    assert running.process.returncode == 0
    assert not [line for line in running.seen if "✗" in line]
    assert any("✓ action   prices:sync scheduled " in line for line in running.seen)
    cells = [re.split(r"\s{2,}", line) for line in duly(tmp_path, "crons", "list").stdout.splitlines()[1:]]
    outcomes = {name: cells[-1].partition(",")[0] for name, *cells in cells}
    assert len(outcomes) == 14
    for name in ("clear presence", "full report", "tick"):
        assert outcomes[name] == "success"
