"""What becomes of slots that pass while nothing runs, or while a run goes on; jitter; the clock of a zone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from duly import InvalidScheduleError, crons
from duly.database.transaction import Transaction
from duly.model import crons as model
from tests.crons.app import NOW, Deployed, Gate, calendar, gates, interval, seconds

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.one_engine]

HOUR = 3600


# Slots that pass while no process is there.


async def test_an_interval_that_is_late_runs_once_and_keeps_its_phase() -> None:
    async with Deployed(interval(60)) as d:
        await d.advance(30)
        await d.leap(275)
        await d.t.crash()
        await d.advance(60)
        assert await d.noted() == ["x 0", "x 305", "x 360"]
        assert await d.logs() == ["c success 0", "c skipped 120 count 4", "c success 60", "c success 360"]


async def test_a_calendar_that_is_late_runs_once_too_and_says_what_it_left_out() -> None:
    async with Deployed(calendar("*/10 * * * *")) as d:
        await d.leap(35 * 60)
        await d.t.crash()
        await d.advance(10 * 60)
        assert await d.noted() == ["x 2100", "x 2400"]
        assert await d.logs() == ["c skipped 1200 count 2", "c success 600", "c success 2400"]


async def test_one_slot_that_is_late_is_run_and_nothing_is_skipped() -> None:
    async with Deployed(calendar("0 * * * *")) as d:
        await d.leap(HOUR + 3000)
        await d.t.run_until_idle()
        assert (await d.noted(), await d.logs()) == (["x 6600"], ["c success 3600"])


async def test_a_slot_is_due_at_its_very_moment_and_not_before() -> None:
    async with Deployed(calendar("* * * * *")) as d:
        await d.advance(59.999)
        assert await d.noted() == []
        await d.advance(0.001)
        assert await d.noted() == ["x 60"]


async def test_ten_years_of_seconds_are_one_run_and_one_count() -> None:
    async with Deployed(interval(1)) as d:
        await d.t.run_until_idle()
        await d.leap(10 * 365 * 86_400)
        await d.t.run_until_idle()
        assert await d.logs() == ["c success 0", f"c skipped 2 count {10 * 365 * 86_400 - 1}", "c success 1"]


@pytest.mark.parametrize(("late", "runs"), [(60, ["x 360"]), (60.001, [])])
async def test_a_slot_that_may_be_skipped_runs_if_it_is_at_most_a_minute_late(late: float, runs: list[str]) -> None:
    async with Deployed(calendar("*/5 * * * *", missed="skip")) as d:
        await d.leap(300 + late)
        await d.t.run_until_idle()
        assert await d.noted() == runs
        assert await d.logs() == (["c success 300"] if runs else ["c skipped 300 count 1"])
        await d.advance(300 - late)
        assert (await d.noted())[len(runs) :] == ["x 600"]


async def test_of_slots_that_may_be_skipped_the_last_runs_if_it_is_in_time() -> None:
    async with Deployed(interval(60, missed="skip")) as d:
        await d.advance(30)
        await d.leap(275)
        await d.t.run_until_idle()
        assert await d.noted() == ["x 0", "x 305"]
        assert await d.logs() == ["c success 0", "c skipped 60 count 4", "c success 300"]


async def test_that_last_one_runs_however_many_have_passed() -> None:
    async with Deployed(calendar("* * * * * *", missed="skip")) as d:
        await d.advance(1)
        await d.leap(5_000)
        await d.t.run_until_idle()
        assert await d.noted() == ["x 1", "x 5001"]
        assert (await d.logs())[-1] == "c success 5001"


async def test_years_of_slots_of_an_expression_are_counted_too() -> None:
    for missed, ran in (("once", ["c success 60"]), ("skip", [])):
        async with Deployed(calendar("* * * * *", tz="Europe/Berlin", missed=missed)) as d:
            await d.leap(10 * 365 * 86_400 + (30 if missed == "once" else 0))
            await d.t.run_until_idle()
            slots = 10 * 365 * 1_440
            first = 120 if missed == "once" else 60
            last = ran or [f"c success {slots * 60.0:g}"]
            assert await d.logs() == [f"c skipped {first} count {slots - 1}", *last]


@pytest.mark.both_engines
async def test_all_slots_run_one_after_the_other_each_for_its_own_time() -> None:
    for declared in (interval(60, missed="all"), calendar("* * * * *", missed="all")):
        async with Deployed(declared) as d:
            await d.advance(60)
            before = len(await d.noted())
            await d.leap(185)
            await d.t.crash()
            await d.t.run_until_idle()
            assert (await d.noted())[before:] == ["x 245"] * 3
            assert (await d.logs())[before:] == ["c success 120", "c success 180", "c success 240"]
            await d.advance(60)
            assert (await d.logs())[-1] == "c success 300"


@pytest.mark.both_engines
async def test_of_all_slots_a_hundred_wait_and_the_others_are_counted() -> None:
    async with Deployed(interval(60, missed="all")) as d:
        await d.t.run_until_idle()
        await d.leap(500 * 60)
        await d.t.app.executor.run_batch()
        assert len((await d.crons())["c"]["queue"]) == 100
        assert "c skipped 6120 count 399" in await d.logs()
        await d.t.run_until_idle()
        assert len(await d.noted()) == 1 + 1 + 100


async def test_all_slots_wait_for_an_action_that_goes_on() -> None:
    async with Deployed(interval(60, "app:act", missed="all")) as d:
        gate = await d.until_one_runs(5)
        await d.leap(180)
        await d.t.app.executor.run_batch()
        assert [seconds(slot) for slot in (await d.crons())["c"]["queue"]] == [60, 120, 180]
        gate.open()
        await d.t.run_until_idle()
        assert await d.logs() == ["c success 0", "c success 60", "c success 120", "c success 180"]


# Slots while a run goes on.


async def test_a_slot_while_a_run_goes_on_is_skipped_and_the_next_one_keeps_the_phase() -> None:
    skips = {"interval": "c skipped 60 count 3", "calendar": "c skipped 120 count 2"}
    for kind, declared in (("interval", interval(60, "app:act")), ("calendar", calendar("* * * * *", "app:act"))):
        async with Deployed(declared) as d:
            gate = await d.until_one_runs(65)
            await d.elapse(120)
            gate.open()
            await d.advance(60)
            ran = await d.noted()
            assert ran[-1] == "x 240"
            assert len(ran) == 2
            assert [line for line in await d.logs() if "skipped" in line] == [skips[kind]]


@pytest.mark.both_engines
async def test_a_slot_while_a_run_goes_on_waits_for_its_turn() -> None:
    async with Deployed(interval(60, "app:act", overlap="queue")) as d:
        gate = await d.until_one_runs(130)
        assert d.t.app.executor.running == 1
        gate.open()
        await d.advance(50)
        assert await d.noted() == ["x 130", "x 130", "x 130", "x 180"]
        assert await d.logs() == ["c success 0", "c success 60", "c success 120", "c success 180"]
        assert (await d.crons())["c"]["queue"] == []


@pytest.mark.both_engines
async def test_once_runs_may_not_be_beside_each_other_any_more_the_next_one_waits_for_all_of_them() -> None:
    async with Deployed(interval(60, "app:act", overlap="allow")) as d:
        first, second = Gate(), Gate()
        gates.append(first)
        await d.elapse(5)
        await first.reached.wait()
        gates.append(second)
        await d.elapse(60)
        await second.reached.wait()
        await d.deploy(interval(60, "app:act", overlap="queue"))
        gates.clear()
        await d.elapse(60)
        first.open()
        await d.only_one_runs()
        await d.elapse(1)
        cron = (await d.crons())["c"]
        assert (cron["running"], [seconds(slot) for slot in cron["queue"]]) == (1, [120])
        assert await d.noted() == ["x 125"]
        second.open()
        await d.t.run_until_idle()
        assert await d.noted() == ["x 125", "x 126", "x 126"]
        assert await d.logs() == ["c success 0", "c success 60", "c success 120"]


async def test_at_most_a_hundred_wait() -> None:
    async with Deployed(interval(1, "app:act", overlap="queue")) as d:
        gate = await d.until_one_runs(103)
        assert len((await d.crons())["c"]["queue"]) == 100
        assert await d.logs() == ["c skipped 101 count 3"]
        gate.open()
        await d.advance(0.5)
        assert len(await d.noted()) == 101


async def test_a_slot_while_a_run_goes_on_runs_beside_it() -> None:
    async with Deployed(interval(60, "app:act", overlap="allow")) as d:
        gate = await d.until_one_runs(5)
        await d.elapse(55)
        await d.only_one_runs()
        await d.elapse(60)
        await d.only_one_runs()
        await d.elapse(5)
        assert await d.noted() == ["x 60", "x 120"]
        gate.open()
        await d.t.run_until_idle()
        assert await d.noted() == ["x 60", "x 120", "x 125"]
        assert await d.logs() == ["c success 60", "c success 120", "c success 0"]
        assert (await d.crons())["c"]["running"] == 0


@pytest.mark.both_engines
async def test_runs_that_failed_or_were_interrupted_let_the_next_one_run() -> None:
    async with Deployed(interval(60, "app:act", overlap="queue")) as d:
        await d.until_one_runs(130)
        await d.t.crash()
        await d.advance(10)
        assert await d.logs() == ["c failed 0", "c success 60", "c success 120"]


@pytest.mark.both_engines
@pytest.mark.parametrize("ref", ["app:act", "app:note"])
async def test_at_most_a_hundred_run_beside_each_other(ref: str) -> None:
    async with Deployed(interval(60, ref, missed="all", overlap="allow")) as d:
        await d.t.run_until_idle()
        gates.append(Gate())
        await d.leap(500 * 60)
        await d.t.app.executor.run_batch()  # which ticks
        assert (await d.crons())["c"]["running"] == 100
        assert await d.logs() == ["c success 0", f"c skipped {101 * 60} count 400"]
        await d.leap(60)
        await d.t.app.executor.run_batch()
        if ref == "app:act":
            assert (await d.logs())[-1] == f"c skipped {101 * 60} count 401"
            with pytest.raises(InvalidScheduleError, match="with 100 runs in progress, expected fewer than 100"):
                await trigger(d)
        gates.pop().open()
        await d.t.run_until_idle()
        assert len(await d.noted()) == 101 + (ref == "app:note")


async def test_skips_are_added_up_until_a_run_comes_between() -> None:
    async with Deployed(interval(60, "app:act")) as d:
        gate = await d.until_one_runs(5)
        await d.elapse(300)
        [row] = await d.log_rows()
        assert (seconds(row["scheduledTime"]), row["status"]) == (60, {"kind": "skipped", "count": 5})
        assert (seconds(row["startedTime"]), seconds(row["completedTime"])) == (60, 300)
        gate.open()
        await d.advance(1)
        gate = await d.until_one_runs(60)
        await d.elapse(120)
        gate.open()
        await d.t.run_until_idle()
        assert await d.logs() == ["c skipped 60 count 5", "c success 0", "c skipped 420 count 2", "c success 360"]


# Triggered.


async def trigger(d: Deployed) -> None:
    async def unit(transaction: Transaction) -> None:
        found = await model.find(transaction, "c")
        assert found is not None
        await model.trigger(transaction, *found)

    await d.t.app.runner.commit(unit)


async def test_a_triggered_run_is_beside_the_schedule() -> None:
    async with Deployed(interval(60)) as d:
        await d.advance(20)
        await trigger(d)
        await d.advance(40)
        assert await d.noted() == ["x 0", "x 20", "x 60"]
        await d.t.transaction(lambda ctx: crons.pause(ctx, "c"))
        await trigger(d)
        await d.advance(100)
        assert await d.noted() == ["x 0", "x 20", "x 60", "x 60"]


# Jitter.


async def test_jitter_delays_each_run_at_random_within_its_bound_and_never_the_schedule() -> None:
    async with Deployed(calendar("* * * * *", jitter=20_000)) as d:
        await d.advance(60 * 60 + 20)
        delays = [float(line.removeprefix("x ")) % 60 for line in await d.noted()]
        assert len(delays) == 60
        assert all(0 <= delay <= 20 for delay in delays)
        assert len(set(delays)) > 50
        assert max(delays) > 15
        assert min(delays) < 5
        assert await d.logs() == [f"c success {60 * n}" for n in range(1, 61)]


async def test_jitter_of_an_interval_does_not_add_up() -> None:
    async with Deployed(interval(60, jitter=30_000)) as d:
        await d.advance(60 * 100 + 31)
        assert await d.logs() == [f"c success {60 * n}" for n in range(1, 101)]


async def test_a_run_that_is_late_by_its_jitter_is_in_time() -> None:
    async with Deployed(calendar("0 * * * *", jitter=1_800_000, missed="skip")) as d:
        await d.advance(24 * HOUR + 1_800)
        assert await d.logs() == [f"c success {HOUR * n}" for n in range(1, 25)]


# Zones and calendars.


async def test_a_day_that_a_month_does_not_have_is_left_out() -> None:
    async with Deployed(calendar("0 0 31 * *")) as d:
        await d.advance(365 * 86_400)
        assert await days(d) == ["01-31", "03-31", "05-31", "07-31", "08-31", "10-31", "12-31"]


async def test_the_last_day_of_a_month_is_one_that_each_has() -> None:
    async with Deployed(calendar("0 0 L * *")) as d:
        await d.advance(120 * 86_400)
        assert await days(d) == ["01-31", "02-28", "03-31", "04-30"]


async def test_the_29th_of_february_comes_in_leap_years() -> None:
    async with Deployed(calendar("0 0 29 2 *")) as d:
        await d.advance(7 * 366 * 86_400)
        leaps = (datetime(2032, 2, 29, tzinfo=UTC), datetime(2036, 2, 29, tzinfo=UTC))
        slots = [row["scheduledTime"] for row in await d.log_rows()]
        assert slots == [leap.timestamp() * 1000 for leap in leaps]


async def test_a_zone_with_summer_time_keeps_the_hour_of_its_clock() -> None:
    async with Deployed(calendar("30 2 * * *", tz="Europe/Berlin")) as d:
        await d.advance(365 * 86_400)
        ran = [float(line.removeprefix("x ")) for line in await d.noted()]
        assert len(ran) == 365
        utc = [datetime.fromtimestamp(NOW / 1000 + second, UTC) for second in ran]
        assert {at.strftime("%H:%M") for at in utc if at.month in (1, 2, 11, 12)} == {"01:30"}
        assert {at.strftime("%H:%M") for at in utc if at.month in (4, 5, 6, 7, 8, 9)} == {"00:30"}
        # 2:30 does not exist on March 31st: it runs at 3:00. On October 27th it exists twice: it runs the first time.
        assert [at.strftime("%H:%M") for at in utc if (at.month, at.day) == (3, 31)] == ["01:00"]
        assert [at.strftime("%H:%M") for at in utc if (at.month, at.day) == (10, 27)] == ["00:30"]


async def days(d: Deployed) -> list[str]:
    moments = [NOW / 1000 + float(line.removeprefix("x ")) for line in await d.noted()]
    return [datetime.fromtimestamp(moment, UTC).strftime("%m-%d") for moment in moments]
