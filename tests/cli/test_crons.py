"""`duly crons`: an operator looks at crons, pauses, resumes and triggers them, and tries out an expression."""

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

from duly import App, MutationCtx, QueryCtx, cron_jobs, crons, internal_mutation, mutation, query
from duly.cli import main
from duly.clock import ManualClock
from duly.database.transaction import Transaction
from duly.model import crons as model
from duly.storage.rows import JOBS, Job
from duly.testing import Harness
from tests.conftest import only_on_sqlite
from tests.support import handlers_in

pytestmark = pytest.mark.one_engine

T = TypeVar("T")

START = datetime(2025, 3, 28, 12, tzinfo=UTC)  # on the 30th, at 02:00, the clock goes ahead in Berlin


@internal_mutation
async def note(ctx: MutationCtx, text: str = "tea") -> str:
    if text == "up":
        ctx.log.info("time to get up")
        ctx.log.warning("it rains\nand storms")
    await ctx.db.insert("notes", {"text": text})
    return f"noted {text}"


@internal_mutation
async def fail(ctx: MutationCtx) -> None:
    raise ValueError("no such report\nnone at all")


@mutation
async def register(ctx: MutationCtx, name: str) -> str:
    return await crons.register(ctx, {"kind": "interval", "ms": 5_400_000}, note, {"text": name}, name=name)


@query
async def all_crons(ctx: QueryCtx) -> list[dict[str, Any]]:
    return await ctx.db.system.query("_cron_jobs").collect()


@query
async def noted(ctx: QueryCtx) -> list[str]:
    return [note["text"] for note in await ctx.db.query("notes").collect()]


APP = SimpleNamespace(**handlers_in(globals()))

DECLARED = cron_jobs()
DECLARED.interval("clear presence", {"minutes": 30}, "app:note")
DECLARED.cron("wake up", "30 2 * * *", "app:note", {"text": "up"}, tz="Europe/Berlin", overlap="queue", jitter=500)
DECLARED.daily("report", {"hour_utc": 2, "minute_utc": 15}, "app:fail", missed="skip")
DECLARED.monthly("bill", {"day": 1, "hour_utc": 9}, "app:note", {"text": "bill"}, paused=True)


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

    def do(self, unit: Callable[[Harness], Awaitable[T]], start: datetime = START, declared: Any = DECLARED) -> T:
        async def run() -> T:
            async with Harness({"app": APP, "crons": declared}, start=start, store=self.store) as t:
                return await unit(t)

        return asyncio.run(run())

    def passes(self, span: timedelta, declared: Any = DECLARED) -> None:
        self.do(lambda t: t.advance(span), declared=declared)

    def duly(self, *args: str) -> str:
        """What a command prints that succeeds."""
        result = self.run(*args)
        assert result.exit_code == 0, result.output
        return result.output

    def fails(self, *args: str) -> str:
        result = self.run(*args)
        assert result.exit_code != 0, result.output
        assert "Traceback" not in result.output
        return result.output

    def run(self, *args: str) -> Any:
        return CliRunner().invoke(main, ["crons", *args, "--store", self.store])

    def shown(self, *args: str) -> dict[str, list[str]]:
        """The fields that `show` prints, each with its lines."""
        fields: dict[str, list[str]] = {}
        name = ""
        for line in self.duly("show", *args).splitlines():
            name = line[:13].strip() or name
            fields.setdefault(name, []).append(line[13:])
        return fields

    def notes(self) -> list[str]:
        return self.do(lambda t: t.query(noted))


# list


@pytest.mark.both_engines
def test_a_list_has_a_line_for_each_cron_in_the_order_of_their_creation(shop: Shop) -> None:
    async def unit(t: Harness) -> None:
        await t.mutation(register, {"name": "mine"})
        await t.advance(timedelta(days=1))

    shop.do(unit)
    title, *lines = [re.split(r"\s{2,}", line) for line in shop.duly("list").splitlines()]
    assert title == ["name", "schedule", "zone", "next run", "last result"]
    assert [line[:3] for line in lines[1:4]] == [
        ["wake up", "At 02:30 every day", "Europe/Berlin"],
        ["report", "At 02:15 every day", "UTC"],
        ["bill", "At 09:00 on the first day of every month", "UTC"],
    ]
    assert lines[0][:3] == ["clear presence", "every 30 minutes", "2025-03-29 12:30:00+00:00"]
    assert lines[1][3] == "2025-03-30 03:00:00+02:00"  # in the zone of the cron, by what its clock shows then
    assert lines[2][3] == "2025-03-30 02:15:00+00:00"
    assert lines[3][3:] == ["paused", "none yet"]
    assert lines[4][:3] == ["mine", "every 90 minutes", "2025-03-29 13:30:00+00:00"]
    assert re.fullmatch(r"success, \d+ d ago", lines[1][5])
    assert lines[1][6] == '"noted up"'
    assert re.fullmatch(r"failed, \d+ d ago", lines[2][5])
    assert lines[2][6] == "ValueError: no such report"


def test_a_list_in_json_has_the_documents_that_functions_see(shop: Shop) -> None:
    documents = shop.do(lambda t: t.query(all_crons))
    assert [document["name"] for document in documents] == ["clear presence", "wake up", "report", "bill"]
    assert json.loads(shop.duly("list", "--json")) == documents


def test_an_empty_list_says_so_and_is_an_empty_array_in_json(shop: Shop) -> None:
    shop.passes(timedelta(), declared=cron_jobs())
    assert shop.duly("list") == "no crons\n"
    assert json.loads(shop.duly("list", "--json")) == []


def test_a_list_says_that_the_executor_is_paused(shop: Shop) -> None:
    shop.do(lambda t: t.app.pause())
    assert "nothing starts: it was paused " in shop.run("list").stderr
    assert len(json.loads(shop.duly("list", "--json"))) == 4


# show


def test_all_there_is_to_know_of_a_cron_is_shown(shop: Shop) -> None:
    shop.passes(timedelta(hours=1))
    shown = shop.shown("wake up")
    [document] = [one for one in shop.do(lambda t: t.query(all_crons)) if one["name"] == "wake up"]
    [created] = shown.pop("created")
    assert created.startswith("2025-03-28 13:00:00.000+01:00  2025-03-28T12:00:00.000Z  ")
    del shown["next runs"]
    assert shown == {
        "name": ["wake up"],
        "id": [document["_id"]],
        "function": ["app:note (mutation)"],
        "schedule": ["At 02:30 every day (30 2 * * *), Europe/Berlin"],
        "missed": ["once"],
        "overlap": ["queue"],
        "jitter": ["up to 500 ms"],
        "declared": ["in crons.py"],
        "args": ["{", '  "text": "up"', "}"],
        "history": ["none yet"],
    }


def it_is(monkeypatch: pytest.MonkeyPatch, now: datetime) -> None:
    monkeypatch.setattr("duly.cli.open_store.SystemClock", lambda: ManualClock(now.timestamp() * 1000))


def test_the_next_runs_begin_with_what_becomes_of_the_slots_that_have_passed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = cron_jobs()
    for missed in ("once", "skip", "all"):
        declared.interval(missed, {"hours": 1}, "app:note", missed=missed)
    shop.passes(timedelta(minutes=1), declared=declared)
    it_is(monkeypatch, START + timedelta(hours=3, minutes=30))
    assert {name: shop.shown(name)["next runs"][0] for name in ("once", "skip", "all")} == {
        "once": "1 as soon as an executor runs, for the 3 slots that have passed",
        "skip": "none for the 3 slots that have passed",
        "all": "3 as soon as an executor runs, for the 3 slots that have passed",
    }
    assert [run[:20] for run in shop.shown("skip")["next runs"][1:3]] == [
        "Fri 2025-03-28 16:00",
        "Fri 2025-03-28 17:00",
    ]
    it_is(monkeypatch, START + timedelta(hours=1, seconds=30))
    in_time = "1 as soon as an executor runs, for the slot that has passed"
    assert [shop.shown(name)["next runs"][0] for name in ("once", "skip", "all")] == [in_time] * 3


def test_the_next_ten_runs_are_shown_with_the_changes_of_the_clock(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.passes(timedelta(hours=1))
    it_is(monkeypatch, START + timedelta(hours=1))
    runs = shop.shown("wake up")["next runs"]
    assert len(runs) == 10
    assert runs[0].startswith("Sat 2025-03-29 02:30:00+01:00  2025-03-29T01:30:00Z  ")
    assert runs[1].startswith("Sun 2025-03-30 03:00:00+02:00  2025-03-30T01:00:00Z  ")
    assert runs[1].endswith("  ← the clock was set ahead by 1 h")
    assert runs[2].startswith("Mon 2025-03-31 02:30:00+02:00  2025-03-31T00:30:00Z  ")
    assert runs[9].startswith("Mon 2025-04-07 02:30:00+02:00  2025-04-07T00:30:00Z  ")
    assert [run for run in runs[2:] if "←" in run] == []


def test_the_next_runs_of_an_interval_keep_its_phase(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.passes(timedelta(minutes=40))
    it_is(monkeypatch, START + timedelta(minutes=40))
    runs = shop.shown("clear presence")["next runs"]
    assert [run[:29] for run in runs[:2]] == ["Fri 2025-03-28 13:00:00+00:00", "Fri 2025-03-28 13:30:00+00:00"]


def test_a_cron_that_gave_up_differs_from_a_paused_one_and_says_why(shop: Shop) -> None:
    async def give_up(t: Harness) -> None:
        async def unit(transaction: Transaction) -> None:
            found = await model.find(transaction, "report")
            assert found is not None
            clock = await transaction.get(JOBS, found[0])
            assert isinstance(clock, Job)
            await model.pause_broken(transaction, clock, "its zone has gone\nfrom here")

        await t.app.runner.commit(unit)

    shop.do(give_up)
    lines = {line[:14].strip(): line for line in shop.duly("list").splitlines()}
    assert "  gave up  " in lines["report"]
    assert "  paused  " in lines["bill"]
    assert shop.shown("report")["next runs"] == [
        "none: its clock could not go on, until it is changed or resumed",
        "its zone has gone",
        "from here",
    ]
    assert "resumed, and runs next at" in shop.duly("resume", "report")


def test_a_cron_whose_zone_this_machine_does_not_know_is_shown_as_it_is_written(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.passes(timedelta())
    parse = model.cron_schedule.parse

    def parse_here(schedule: dict[str, Any]) -> Any:
        return parse({**schedule, "tz": "My/Zone"} if schedule.get("tz") == "Europe/Berlin" else schedule)

    monkeypatch.setattr(
        "duly.cli.printing.cron_text.cron_schedule",
        SimpleNamespace(**{**vars(model.cron_schedule), "parse": parse_here}),
    )
    lines = {line[:14].strip(): line for line in shop.duly("list").splitlines()}
    assert re.search(" 30 2 \\* \\* \\* +Europe/Berlin  2025-03-29 ", lines["wake up"])
    assert "At " in lines["report"]
    [run] = shop.shown("wake up")["next runs"]
    assert "those after it are not known here: got the time zone 'My/Zone'" in run


def test_a_list_cuts_names_that_are_very_long(shop: Shop) -> None:
    declared = cron_jobs()
    declared.cron("n" * 256, ",".join(map(str, range(0, 60, 7))) + " 1,3,5 * * *", "app:note")
    shop.passes(timedelta(), declared=declared)
    [_, line] = shop.duly("list").splitlines()
    assert line.startswith("n" * 47 + "…  At ")
    assert len(line) < 200
    assert shop.shown("n" * 256)["name"] == ["n" * 256]


def test_a_paused_cron_has_no_next_runs(shop: Shop) -> None:
    shop.passes(timedelta(hours=1))
    assert shop.shown("bill")["next runs"] == ["none while it is paused"]


@pytest.mark.both_engines
def test_the_history_says_how_the_last_runs_ended_the_last_one_first(shop: Shop) -> None:
    async def unit(t: Harness) -> None:
        await t.advance(timedelta(days=2))
        await t.app.pause()
        await t.advance(timedelta(days=3))
        await t.app.resume()
        await t.run_until_idle()

    shop.do(unit)
    lines = [re.split(r"\s{2,}", line) for line in shop.shown("report")["history"]]
    assert [(line[0], *line[2:]) for line in lines] == [
        ("2025-03-31 02:15:00+00:00", "skipped 3"),
        ("2025-03-30 02:15:00+00:00", "failed", "0.000 s", "ValueError: no such report"),
        ("2025-03-29 02:15:00+00:00", "failed", "0.000 s", "ValueError: no such report"),
    ]
    assert len(shop.shown("clear presence")["history"]) == 20
    assert len(shop.shown("clear presence", "--history", "100")["history"]) == 99
    first, *written = shop.shown("wake up", "--history", "1")["history"]
    assert first.endswith('0.000 s  "noted up"')
    assert written == ["  │ time to get up", "  │ it rains", "  │ and storms"]


def test_a_cron_is_found_by_its_id_as_well(shop: Shop) -> None:
    id = shop.do(lambda t: t.mutation(register, {"name": "mine"}))
    shown = shop.shown(id)
    assert (shown["name"], shown["id"], shown["declared"]) == (["mine"], [id], ["at run time"])


def test_a_cron_that_does_not_exist_is_explained(shop: Shop, tmp_path: Path) -> None:
    note_id = shop.do(lambda t: t.transaction(lambda ctx: ctx.db.insert("notes", {})))
    foreign = Shop(f"sqlite:///{tmp_path}/another.db").do(lambda t: t.mutation(register, {"name": "mine"}))
    for command in ("show", "pause", "resume", "trigger"):
        for name in ("wake-up", note_id, foreign):
            expected = f"got the cron '{name}', expected the id or the name of an existing cron"
            assert expected in shop.fails(command, name)


# pause, resume, trigger


@pytest.mark.both_engines
def test_a_paused_cron_does_not_run_until_it_is_resumed_even_if_it_is_deployed_again(shop: Shop) -> None:
    shop.passes(timedelta(minutes=45))
    assert shop.notes() == ["tea"] * 2
    assert shop.duly("pause", "clear presence") == "clear presence: paused\n"
    assert shop.duly("pause", "clear presence") == "clear presence: it was paused already\n"
    now = datetime.now(UTC)
    # A second, for its jitter. In ten minutes it could be 02:30 in Berlin, at one time of the day.
    shop.do(lambda t: t.advance(timedelta(seconds=1)), start=now)
    assert shop.notes() == ["tea"] * 2 + ["up"]  # what it missed
    said = shop.duly("resume", "clear presence")
    assert said.startswith("clear presence: resumed, and runs next at 2")
    next_run = datetime.fromisoformat(said.split("  ")[-1].strip())
    assert timedelta(minutes=29) < next_run - datetime.now(UTC) <= timedelta(minutes=30)
    assert shop.duly("resume", "clear presence") == said.replace("resumed", "it was not paused")


@pytest.mark.both_engines
def test_a_cron_that_is_triggered_runs_once_beside_its_schedule(shop: Shop) -> None:
    shop.passes(timedelta())
    assert shop.duly("trigger", "bill").startswith("bill: triggered; it runs as soon as ")
    assert shop.shown("bill")["running"][0].startswith("pending, for 2")
    assert "expected one without a run in progress" in shop.fails("trigger", "bill")
    assert "runs now; none yet" in shop.duly("list")
    shop.do(lambda t: t.run_until_idle(), start=datetime.now(UTC) + timedelta(seconds=1))
    assert shop.notes().count("bill") == 1
    assert "running" not in shop.shown("bill")
    assert [line.endswith('"noted bill"') for line in shop.shown("bill")["history"]] == [True]
    assert shop.shown("bill")["next runs"] == ["none while it is paused"]


# preview


def preview(monkeypatch: pytest.MonkeyPatch, now: datetime, *args: str) -> list[str]:
    clock = ManualClock(now.timestamp() * 1000)
    monkeypatch.setattr("duly.cli.crons.SystemClock", lambda: clock)
    result = CliRunner().invoke(main, ["crons", "preview", *args])
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def test_a_preview_has_the_schedule_in_words_and_its_next_ten_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    words, *runs = preview(monkeypatch, START, "0 9 * * 1-5")
    assert words == "At 09:00 on Monday through Friday (UTC)"
    assert len(runs) == 10
    assert runs[0] == "Mon 2025-03-31 09:00:00+00:00  in 2 d"
    assert runs[9] == "Fri 2025-04-11 09:00:00+00:00  in 13 d"


def test_a_preview_marks_the_run_before_which_the_clock_was_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    night = datetime(2030, 10, 26, 23, tzinfo=UTC)  # 01:00 in Berlin
    words, *runs = preview(monkeypatch, night, "30 * * * *", "--tz", "Europe/Berlin")
    assert words == "At minute 30 of every hour (Europe/Berlin)"
    assert runs[:4] == [
        "Sun 2030-10-27 01:30:00+02:00  2030-10-26T23:30:00Z  in 30 min",
        "Sun 2030-10-27 02:30:00+02:00  2030-10-27T00:30:00Z  in 1 h",
        "Sun 2030-10-27 02:30:00+01:00  2030-10-27T01:30:00Z  in 2 h      ← the clock was set back by 1 h",
        "Sun 2030-10-27 03:30:00+01:00  2030-10-27T02:30:00Z  in 3 h",
    ]
    _, *runs = preview(monkeypatch, night, "30 2 * * *", "--tz", "Europe/Berlin")
    assert runs[:2] == [
        "Sun 2030-10-27 02:30:00+02:00  2030-10-27T00:30:00Z  in 1 h",
        "Mon 2030-10-28 02:30:00+01:00  2030-10-28T01:30:00Z  in 1 d      ← the clock was set back by 1 h",
    ]


def test_a_preview_marks_a_first_run_before_which_the_clock_will_have_been_set(monkeypatch: pytest.MonkeyPatch) -> None:
    _, *runs = preview(monkeypatch, START, "0 9 1 6 *", "--tz", "Australia/Lord_Howe")
    assert runs[0] == (
        "Sun 2025-06-01 09:00:00+10:30  2025-05-31T22:30:00Z  in 64 d     ← the clock was set back by 30 min"
    )
    assert "←" not in runs[1]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["0 9 * *"], "got the cron expression '0 9 * *' with 4 fields, expected minute, hour, day of month,"),
        (["0 25 * * *"], "the hour is '25', expected 0-23, lists, ranges and steps of them"),
        (["0 0 31 4 *"], "it never matches: none of its months has such a day"),
        (["@daily", "--tz", "Berlin"], "got the time zone 'Berlin', expected a name such as 'Europe/Berlin'"),
    ],
)
def test_a_preview_of_what_makes_no_sense_says_why(args: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["crons", "preview", *args])
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


# What cannot be done.


@pytest.mark.parametrize("command", ["show", "pause", "trigger"])
def test_a_name_that_is_unknown_is_answered_with_those_there_are(shop: Shop, command: str) -> None:
    shop.passes(timedelta())
    assert "expected the id or the name of an existing cron: did you mean 'report'?" in shop.fails(command, "rapport")
    assert "an existing cron: clear presence, wake up, report, bill" in shop.fails(command, "x")


@pytest.mark.parametrize("args", [["list"], ["show", "x"], ["pause", "x"], ["resume", "x"], ["trigger", "x"]])
def test_a_store_that_does_not_exist_is_an_error_and_is_not_made(shop: Shop, tmp_path: Path, args: list[str]) -> None:
    for _ in range(2):
        assert "there is no store at " in shop.fails(*args)
    assert list(tmp_path.iterdir()) == []


@only_on_sqlite
def test_a_file_that_is_in_use_is_not_touched(shop: Shop) -> None:
    async def scenario() -> str:
        async with App({"app": APP, "crons": DECLARED}, shop.store, executor=False):
            return await asyncio.to_thread(shop.fails, "pause", "clear presence")

    said = asyncio.run(scenario())
    assert f"is owned by process {os.getpid()}, and this command needs a file that no process owns" in said
    assert "app.pause()" in said


@pytest.mark.server
@pytest.mark.both_engines
def test_a_store_in_postgresql_may_be_in_use(store_of: Callable[[str], str]) -> None:
    shop = Shop(store_of("postgres"))

    async def scenario() -> list[str]:
        async with App({"app": APP, "crons": DECLARED}, shop.store) as app:
            await asyncio.to_thread(shop.duly, "trigger", "bill")
            async for notes in app.subscribe(noted):
                if "bill" in notes:
                    return notes
        raise AssertionError

    assert "bill" in asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_cron_that_is_to_run_says_that_the_executor_is_paused(shop: Shop) -> None:
    shop.passes(timedelta(minutes=1))
    assert "paused" not in shop.run("show", "report").stderr
    CliRunner().invoke(main, ["jobs", "pause", "--store", shop.store])
    for command in ("list", "show", "trigger", "resume"):
        result = shop.run(command, *([] if command == "list" else ["report"]))
        assert result.exit_code == 0
        assert "nothing starts: it was paused " in result.stderr
    assert shop.run("pause", "report").stderr == ""
