"""Deploying: what is declared is compared with what there is, and only what differs is changed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from duly import InvalidScheduleError, cron_jobs, crons, define_schema, define_table, v
from duly.declare.cron_jobs import CronJobs
from tests.crons.app import OWN, Deployed, calendar, interval, look, seconds

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.one_engine]

OLD = {"text": "old"}
NEW = {"text": "new"}


def both() -> CronJobs:
    declared = interval(60, "app:act", OLD)
    declared.interval("d", {"seconds": 60}, "app:note", NEW)
    return declared


# What is deployed over `c`, every 60 s since 0 the action `act`; and what runs from then until second 200 if that is
# deployed at second 20 between two runs · at second 60 while a run waits to begin · at second 80 while a run goes on.
CHANGES: dict[str, tuple[CronJobs, list[str], list[str], list[str]]] = {
    "nothing": (
        interval(60, "app:act", OLD),
        ["old 60", "old 120", "old 180"],
        ["old 60", "old 120", "old 180"],
        ["old 80", "old 120", "old 180"],
    ),
    "other arguments": (
        interval(60, "app:act", NEW),
        ["new 60", "new 120", "new 180"],
        ["old 60", "new 120", "new 180"],
        ["old 80", "new 120", "new 180"],
    ),
    "another function, of another kind": (
        interval(60, "app:other", OLD),
        ["other old 60", "other old 120", "other old 180"],
        ["old 60", "other old 120", "other old 180"],
        ["old 80", "other old 120", "other old 180"],
    ),
    "a longer interval": (
        interval(90, "app:act", OLD),
        ["old 110", "old 200"],
        ["old 60", "old 150"],
        ["old 80", "old 170"],
    ),
    "a shorter interval": (
        interval(50, "app:act", OLD),
        ["old 70", "old 120", "old 170"],
        ["old 60", "old 110", "old 160"],
        ["old 80", "old 130", "old 180"],
    ),
    "another kind of schedule": (
        calendar("*/2 * * * *", "app:act", OLD),
        ["old 120"],
        ["old 60", "old 120"],
        ["old 80", "old 120"],
    ),
    "another schedule and other arguments": (
        calendar("*/2 * * * *", "app:note", NEW),
        ["new 120"],
        ["old 60", "new 120"],
        ["old 80", "new 120"],
    ),
    "other options": (
        interval(60, "app:act", OLD, overlap="queue", missed="skip"),
        ["old 60", "old 120", "old 180"],
        ["old 60", "old 120", "old 180"],
        ["old 80", "old 120", "old 180"],
    ),
    "it is paused": (interval(60, "app:act", OLD, paused=True), [], ["old 60"], ["old 80"]),
    "it is removed": (cron_jobs(), [], [], ["old 80"]),
    "it is renamed": (
        interval(60, "app:act", OLD, name="d"),
        ["old 20", "old 80", "old 140", "old 200"],
        ["old 60", "old 120", "old 180"],
        ["old 80", "old 80", "old 140", "old 200"],
    ),
    "another one is added": (
        both(),
        ["new 20", "old 60", "new 80", "old 120", "new 140", "old 180", "new 200"],
        ["old 60", "new 60", "old 120", "new 120", "old 180", "new 180"],
        ["old 80", "new 80", "old 120", "new 140", "old 180", "new 200"],
    ),
}
change = pytest.mark.parametrize("change", CHANGES)


async def until_200(d: Deployed) -> list[str]:
    await d.advance(200 - seconds(d.t.now.timestamp() * 1000))
    [first, *rest] = await d.noted()
    assert first == "old 0"
    return sorted(rest, key=_when)


def _when(line: str) -> tuple[float, str]:
    text, _, second = line.rpartition(" ")
    return float(second), text


def in_order(lines: list[str]) -> list[str]:
    return sorted(lines, key=_when)


@change
async def test_a_deploy_between_two_runs(change: str) -> None:
    declared, expected, _, _ = CHANGES[change]
    async with Deployed(interval(60, "app:act", OLD)) as d:
        await d.advance(20)
        await d.deploy(declared)
        assert await until_200(d) == in_order(expected)


@pytest.mark.both_engines
@change
async def test_a_deploy_by_a_process_that_starts_while_none_is_there(change: str) -> None:
    declared, expected, _, _ = CHANGES[change]
    async with Deployed(interval(60, "app:act", OLD)) as d:
        await d.advance(20)
        await d.restart(declared)
        assert await until_200(d) == in_order(expected)


@change
async def test_a_deploy_while_a_run_waits_to_begin(change: str) -> None:
    declared, _, expected, _ = CHANGES[change]
    async with Deployed(interval(60, "app:act", OLD)) as d:
        await d.advance(59)
        await d.leap(1)
        await d.t.app.executor.run_batch()  # which ticks
        assert (await d.crons())["c"]["running"] == 1
        await d.deploy(declared)
        assert await until_200(d) == in_order(expected)


@change
async def test_a_deploy_while_a_run_goes_on(change: str) -> None:
    declared, _, _, expected = CHANGES[change]
    async with Deployed(interval(60, "app:act", OLD)) as d:
        await d.advance(59)
        gate = await d.until_one_runs(21)
        await d.deploy(declared)
        gate.open()
        assert await until_200(d) == in_order(expected)
        assert d.t.app.executor.running == 0


@pytest.mark.both_engines
async def test_the_log_of_a_removed_cron_goes_and_a_run_that_goes_on_leaves_none() -> None:
    async with Deployed(interval(60, "app:act")) as d:
        await d.advance(59)
        gate = await d.until_one_runs(21)
        assert await d.logs() == ["c success 0"]
        await d.deploy(cron_jobs())
        assert (await d.crons(), await d.logs()) == ({}, [])
        gate.open()
        await d.advance(60)
        assert (await d.crons(), await d.logs()) == ({}, [])
        assert await d.noted() == ["x 0", "x 80"]


async def test_a_renamed_cron_begins_with_an_empty_log_and_no_runs() -> None:
    async with Deployed(interval(60)) as d:
        await d.advance(119)
        assert await d.logs() == ["c success 0", "c success 60"]
        await d.deploy(interval(60, name="renamed"))
        await d.t.run_until_idle()
        assert await d.logs() == ["renamed success 119"]
        assert list(await d.crons()) == ["renamed"]


async def test_a_schedule_said_in_another_way_is_the_same_one() -> None:
    first = cron_jobs()
    first.hourly("c", {"minute_utc": 5}, "app:note")
    first.interval("i", {"minutes": 2}, "app:note")
    second = cron_jobs()
    second.cron("c", "5 * * * *", "app:note")
    second.interval("i", {"seconds": 120}, "app:note")
    async with Deployed(first) as d:
        await d.advance(30)
        before = await d.crons()
        await d.deploy(second)
        assert await d.crons() == before


async def test_a_changed_time_zone_moves_the_next_run_and_nothing_runs_by_surprise() -> None:
    async with Deployed(calendar("0 12 * * *")) as d:
        await d.deploy(calendar("0 12 * * *", tz="Asia/Tokyo"))
        await d.advance(24 * 3600 - 1)
        assert await d.noted() == [f"x {3 * 3600}"]


async def test_a_slot_that_is_overdue_by_the_old_schedule_only_does_not_run() -> None:
    async with Deployed(interval(60)) as d:
        await d.advance(59)
        await d.leap(100)
        await d.restart(interval(600))
        await d.advance(599)
        assert await d.noted() == ["x 0"]
        await d.advance(1)
        assert await d.noted() == ["x 0", "x 759"]


async def test_a_changed_argument_counts_although_python_takes_it_for_the_same() -> None:
    async with Deployed(interval(60, args={"text": 1})) as d:
        await d.deploy(interval(60, args={"text": True}))
        assert (await d.crons())["c"]["args"]["text"] is True


async def test_the_order_of_deploys_does_not_matter_to_a_clock_that_is_declared_throughout() -> None:
    async with Deployed(interval(60)) as d:
        for _ in range(5):
            await d.advance(13)
            await d.deploy(both_of("c", "d"))
            await d.advance(13)
            await d.deploy(interval(60))
        await d.advance(50)
        assert [line for line in await d.logs() if line.startswith("c")] == [
            "c success 0",
            "c success 60",
            "c success 120",
            "c success 180",
        ]


def both_of(*names: str) -> CronJobs:
    declared = cron_jobs()
    for name in names:
        declared.interval(name, {"minutes": 1}, "app:note")
    return declared


async def test_a_cron_that_is_back_is_a_new_one() -> None:
    async with Deployed(interval(60)) as d:
        await d.advance(10)
        await d.deploy(cron_jobs())
        await d.advance(10)
        await d.deploy(interval(60))
        await d.advance(60)
        assert await d.noted() == ["x 0", "x 20", "x 80"]


async def test_a_deploy_that_does_not_load_changes_no_cron() -> None:
    async with Deployed(interval(60)) as d:
        await d.advance(10)
        before = await d.crons()
        wrong = interval(30, "app:gone", name="d")
        with pytest.raises(Exception, match="crons: d: got the function 'app:gone'"):
            await d.deploy(wrong)
        assert await d.crons() == before
        await d.advance(50)
        assert await d.noted() == ["x 0", "x 60"]


# A pause, and what is changed at run time.


@pytest.mark.both_engines
async def test_a_pause_by_an_operator_stays_over_deploys_of_the_same_and_of_a_changed_one() -> None:
    async with Deployed(interval(60)) as d:
        await d.t.transaction(lambda ctx: crons.pause(ctx, "c"))
        await d.deploy(interval(60))
        await d.deploy(interval(30, args=NEW))
        await d.restart(interval(30, args=NEW))
        await d.advance(100)
        assert await d.noted() == []
        await d.t.transaction(lambda ctx: crons.resume(ctx, "c"))
        await d.advance(30)
        assert await d.noted() == ["new 130"]


async def test_who_resumes_a_cron_that_is_declared_paused_has_it_run_over_deploys_of_the_same() -> None:
    async with Deployed(interval(60, paused=True)) as d:
        await d.advance(10)
        await d.t.transaction(lambda ctx: crons.resume(ctx, "c"))
        await d.deploy(interval(60, paused=True))
        await d.advance(60)
        assert await d.noted() == ["x 70"]


async def test_a_pause_that_is_declared_again_counts() -> None:
    async with Deployed(interval(60)) as d:
        await d.advance(10)
        await d.deploy(interval(60, paused=True))
        await d.advance(100)
        await d.deploy(interval(60))
        await d.advance(60)
        assert await d.noted() == ["x 0", "x 170"]


async def test_what_was_changed_at_run_time_is_as_declared_again_after_a_deploy() -> None:
    async with Deployed(interval(60)) as d:
        await d.t.transaction(lambda ctx: crons.update(ctx, "c", schedule={"kind": "interval", "ms": 7_000}, args=NEW))
        assert (await d.crons())["c"]["schedule"] == {"kind": "interval", "ms": 7_000}
        await d.deploy(interval(60))
        [cron] = (await d.crons()).values()
        assert (cron["schedule"], cron["args"]) == ({"kind": "interval", "ms": 60_000}, {})


async def test_a_deploy_leaves_alone_what_was_registered_at_run_time() -> None:
    async with Deployed(interval(60)) as d:
        await d.t.transaction(
            lambda ctx: crons.register(ctx, {"kind": "interval", "ms": 60_000}, "app:note", NEW, name="r")
        )
        before = (await d.crons())["r"]
        await d.deploy(cron_jobs())
        del d.modules["crons"]
        await d.t.app.reload()
        assert await d.crons() == {"r": before}
        await d.advance(60)
        assert await d.noted() == ["new 60"]


async def test_a_deploy_of_a_name_that_was_registered_at_run_time_is_refused_and_changes_no_cron() -> None:
    async with Deployed() as d:
        await d.t.transaction(lambda ctx: crons.register(ctx, {"kind": "interval", "ms": 60_000}, "app:note", name="r"))
        before = await d.crons()
        with pytest.raises(
            InvalidScheduleError, match="got 'r', expected another name: a cron was registered under it"
        ):
            await d.deploy(both_of("a", "r", "z"))
        assert await d.crons() == before


async def test_an_application_without_crons_has_none() -> None:
    d = Deployed()
    del d.modules["crons"]
    async with d:
        await d.advance(60)
        assert await d.crons() == {}


# What waits, and clocks that are wrong.


@pytest.mark.parametrize(
    ("options", "keeps"),
    [
        ({"overlap": "queue"}, True),
        ({"missed": "all"}, True),
        ({"overlap": "skip"}, False),
        ({"overlap": "allow", "missed": "all"}, False),
    ],
)
async def test_what_waits_is_dropped_by_options_with_which_it_would_not(options: dict[str, str], keeps: bool) -> None:
    async with Deployed(interval(60, "app:act", overlap="queue")) as d:
        gate = await d.until_one_runs(150)
        await d.deploy(interval(60, "app:act", **options))
        assert len((await d.crons())["c"]["queue"]) == 2 * keeps
        gate.open()
        await d.advance(10)
        assert await d.noted() == ["x 150"] * (1 + 2 * keeps)
        assert ("c skipped 60 count 2" in await d.logs()) != keeps


@pytest.mark.both_engines
async def test_what_waits_is_dropped_by_another_schedule() -> None:
    async with Deployed(interval(60, "app:act", missed="all")) as d:
        gate = await d.until_one_runs(5)
        await d.leap(50 * 60)
        await d.t.app.executor.run_batch()
        await d.deploy(interval(86_400, "app:act", missed="all"))
        gate.open()
        await d.t.run_until_idle()
        assert await d.logs() == ["c skipped 60 count 50", "c success 0"]


async def test_other_jitter_moves_the_clock() -> None:
    async with Deployed(calendar("0 * * * *", jitter=365 * 86_400_000)) as d:
        await d.deploy(calendar("0 * * * *"))
        await d.advance(3600)
        assert await d.noted() == ["x 3600"]


@pytest.mark.parametrize("how", ["deploy", "restart"])
@pytest.mark.parametrize(
    ("declared", "left"), [(interval(60), 10), (calendar("*/5 * * * *"), 250), (calendar("* * * * * *"), 1)]
)
async def test_a_clock_that_was_ahead_is_set_right_when_the_app_starts_or_deploys(
    how: str, declared: CronJobs, left: float
) -> None:
    async with Deployed(declared) as d:
        await d.t.transaction(lambda ctx: crons.register(ctx, {"kind": "interval", "ms": 7_000}, "app:note", name="r"))
        await d.advance(50)
        await d.leap(10 * 365 * 86_400)
        await d.t.run_until_idle()
        d.set_back(10 * 365 * 86_400)
        await d.advance(30 if left == 10 else 0)
        before = len(await d.noted())
        await getattr(d, how)(declared)
        now, found = 80 if left == 10 else 50, await d.crons()
        assert seconds(found["c"]["nextRunTime"]) == (120 if left == 10 else now + left)
        assert seconds(found["r"]["nextRunTime"]) == (84 if left == 10 else 56)
        assert len(await d.noted()) == before
        await d.advance(left + 30)
        assert len(await d.noted()) > before


@pytest.mark.both_engines
async def test_a_clock_that_was_set_back_a_little_repeats_no_slot() -> None:
    for declared in (interval(60), calendar("* * * * *"), calendar("0 * * * *")):
        async with Deployed(declared) as d:
            await d.advance(3600)
            before = await d.crons(), await d.noted()
            d.set_back(0.003)
            await d.deploy(declared)
            await d.t.run_until_idle()
            assert (await d.crons(), await d.noted()) == before


async def test_a_deploy_whose_cron_has_a_name_in_use_changes_nothing() -> None:
    async with Deployed(interval(60, name="stays")) as d:
        await d.t.transaction(lambda ctx: crons.register(ctx, {"kind": "interval", "ms": 60_000}, "app:note", name="c"))
        before = await d.crons()
        d.modules["app"] = SimpleNamespace(**OWN, new=look)
        d.modules["schema"] = define_schema({"made": define_table({"n": v.int64()})})
        with pytest.raises(InvalidScheduleError, match="a cron was registered under it at run time"):
            await d.deploy(interval(60))
        assert await d.crons() == before
        assert "app:new" not in d.t.app.runner.registry.functions
        assert "made" not in d.t.app.database.catalog.tables
        del d.modules["schema"]
        await d.deploy(interval(60, name="other"))
        assert list(await d.crons()) == ["c", "other"]
