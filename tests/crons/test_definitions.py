"""`cron_jobs()`: what each method takes, and what is wrong with what it does not take."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from duly import InvalidScheduleError, LoadError, cron_jobs, crons, internal_mutation
from duly.declare.registry import Registry
from tests.crons.app import OWN, Deployed, calendar, interval, look, note

on_each_engine = pytest.mark.usefixtures("engine")


def cron(text: str, tz: str = "UTC") -> dict[str, Any]:
    return {"kind": "cron", "cron": text, "tz": tz}


def every(ms: float) -> dict[str, Any]:
    return {"kind": "interval", "ms": ms}


DEFINED: list[tuple[str, Any, dict[str, Any], dict[str, Any]]] = [
    ("interval", {"seconds": 1}, {}, every(1_000)),
    ("interval", {"seconds": 30}, {}, every(30_000)),
    ("interval", {"minutes": 5}, {}, every(300_000)),
    ("interval", {"hours": 7 * 24}, {}, every(604_800_000)),
    ("interval", {"hours": 1830 * 24}, {}, every(158_112_000_000)),
    ("interval", timedelta(seconds=1), {}, every(1_000)),
    ("interval", timedelta(minutes=1, milliseconds=500), {}, every(60_500)),
    ("hourly", {"minute_utc": 0}, {}, cron("0 * * * *")),
    ("hourly", {"minute_utc": 59}, {}, cron("59 * * * *")),
    ("hourly", {}, {}, cron("0 * * * *")),
    ("daily", {"hour_utc": 0, "minute_utc": 0}, {}, cron("0 0 * * *")),
    ("daily", {"hour_utc": 23, "minute_utc": 59}, {}, cron("59 23 * * *")),
    ("daily", {"hour_utc": 7}, {}, cron("0 7 * * *")),
    ("daily", {"hour_utc": 7, "minute_utc": 30}, {"tz": "Europe/Berlin"}, cron("30 7 * * *", "Europe/Berlin")),
    ("weekly", {"day_of_week": "sunday", "hour_utc": 9, "minute_utc": 0}, {}, cron("0 9 * * 0")),
    ("weekly", {"day_of_week": "monday", "hour_utc": 9, "minute_utc": 1}, {}, cron("1 9 * * 1")),
    ("weekly", {"day_of_week": "tuesday", "hour_utc": 9}, {}, cron("0 9 * * 2")),
    ("weekly", {"day_of_week": "wednesday", "hour_utc": 9}, {}, cron("0 9 * * 3")),
    ("weekly", {"day_of_week": "thursday", "hour_utc": 9}, {}, cron("0 9 * * 4")),
    ("weekly", {"day_of_week": "friday", "hour_utc": 9}, {}, cron("0 9 * * 5")),
    ("weekly", {"day_of_week": "saturday", "hour_utc": 23}, {}, cron("0 23 * * 6")),
    ("monthly", {"day": 1, "hour_utc": 0, "minute_utc": 0}, {}, cron("0 0 1 * *")),
    ("monthly", {"day": 31, "hour_utc": 12}, {}, cron("0 12 31 * *")),
    ("cron", "15 7 * * *", {}, cron("15 7 * * *")),
    ("cron", " 15  7 * *\t* ", {}, cron("15 7 * * *")),
    ("cron", "0 12 * * 7", {}, cron("0 12 * * 7")),
    ("cron", "@daily", {}, cron("0 0 * * *")),
    ("cron", "0 0 L * *", {}, cron("0 0 L * *")),
    ("cron", "0 9 * * mon-fri", {"tz": "Asia/Tokyo"}, cron("0 9 * * MON-FRI", "Asia/Tokyo")),
    ("cron", "*/10 * * * * *", {}, cron("*/10 * * * * *")),
]


def define(method: str, schedule: Any, ref: Any = "app:note", *args: Any, **options: Any) -> Any:
    declared = cron_jobs()
    getattr(declared, method)("c", schedule, ref, *args, **options)
    return declared


@pytest.mark.one_engine
@on_each_engine
@pytest.mark.parametrize(("method", "schedule", "options", "shown"), DEFINED)
async def test_a_schedule_is_stored_as_what_it_means(
    method: str, schedule: Any, options: dict[str, Any], shown: dict[str, Any]
) -> None:
    async with Deployed(define(method, schedule, **options)) as d:
        assert (await d.crons())["c"]["schedule"] == shown


MINUTE = "expected the minute of hour, a whole number from 0 to 59"
HOUR = "expected the hour of day, a whole number from 0 to 23"
DAY = "expected the day of month, a whole number from 1 to 31"
NAMED = 'expected a string like "monday"'
ONE = "expected exactly one of seconds, minutes or hours, or a timedelta"
WHOLE = "expected a whole number above 0"

WRONG: list[tuple[str, Any, dict[str, Any], str]] = [
    ("interval", {}, {}, f"got the interval {{}}, {ONE}"),
    ("interval", {"seconds": 1, "minutes": 1}, {}, f"got the interval {{'seconds': 1, 'minutes': 1}}, {ONE}"),
    ("interval", {"days": 1}, {}, f"got the interval {{'days': 1}}, {ONE}"),
    ("interval", 60, {}, f"got the interval 60, {ONE}"),
    ("interval", None, {}, f"got the interval None, {ONE}"),
    ("interval", {"seconds": 0}, {}, f"got an interval of 0 seconds, {WHOLE}"),
    ("interval", {"minutes": -1}, {}, f"got an interval of -1 minutes, {WHOLE}"),
    ("interval", {"hours": 1.5}, {}, f"got an interval of 1.5 hours, {WHOLE}"),
    ("interval", {"hours": True}, {}, f"got an interval of True hours, {WHOLE}"),
    ("interval", {"hours": "1"}, {}, f"got an interval of '1' hours, {WHOLE}"),
    ("interval", {"hours": None}, {}, f"got an interval of None hours, {WHOLE}"),
    ("interval", timedelta(milliseconds=999), {}, "got an interval of 999 ms, expected at least 1,000"),
    ("interval", timedelta(0), {}, "got an interval of 0 ms, expected at least 1,000"),
    ("interval", timedelta(days=1831), {}, "at most 158,112,000,000"),
    ("interval", {"hours": 10**400}, {}, "got an interval of more than 1,000,000,000,000,000 ms, expected at least"),
    ("hourly", {"minute_utc": 60}, {}, f"got minute_utc=60, {MINUTE}"),
    ("hourly", {"minute_utc": -1}, {}, f"got minute_utc=-1, {MINUTE}"),
    ("hourly", {"minute_utc": 5.0}, {}, f"got minute_utc=5.0, {MINUTE}"),
    ("hourly", {"minute_utc": True}, {}, f"got minute_utc=True, {MINUTE}"),
    ("hourly", {"minute": 5}, {}, "got 'minute' in the schedule, expected minute_utc"),
    ("hourly", {"hour_utc": 5}, {}, "got 'hour_utc' in the schedule, expected minute_utc"),
    ("hourly", 5, {}, "got the schedule 5, expected a dict of minute_utc"),
    ("daily", {}, {}, f"got hour_utc=None, {HOUR}"),
    ("daily", {"minute_utc": 1}, {}, f"got hour_utc=None, {HOUR}"),
    ("daily", {"hour_utc": 24, "minute_utc": 99}, {}, f"got hour_utc=24, {HOUR}"),
    ("daily", {"hour_utc": 7, "minute_utc": "30"}, {}, f"got minute_utc='30', {MINUTE}"),
    ("daily", {"hour_utc": 7, "minute_utc": None}, {}, f"got minute_utc=None, {MINUTE}"),
    ("daily", {"hour_utc": 7, "day": 1}, {}, "got 'day' in the schedule, expected hour_utc, minute_utc"),
    ("weekly", {"hour_utc": 7}, {}, f"got the day_of_week None, {NAMED}"),
    ("weekly", {"day_of_week": "Monday", "hour_utc": 7}, {}, f"got the day_of_week 'Monday', {NAMED}"),
    ("weekly", {"day_of_week": 1, "hour_utc": 7}, {}, f"got the day_of_week 1, {NAMED}"),
    ("weekly", {"day_of_week": ["monday"], "hour_utc": 7}, {}, f"got the day_of_week ['monday'], {NAMED}"),
    ("weekly", {"day_of_week": "monday", "hour_utc": 99}, {}, f"got hour_utc=99, {HOUR}"),
    ("monthly", {"hour_utc": 7}, {}, f"got day=None, {DAY}"),
    ("monthly", {"day": 0, "hour_utc": 99}, {}, f"got day=0, {DAY}"),
    ("monthly", {"day": 32, "hour_utc": 7}, {}, f"got day=32, {DAY}"),
    ("monthly", {"day": 1, "hour_utc": 24}, {}, f"got hour_utc=24, {HOUR}"),
    ("cron", "* * * *", {}, "with 4 fields, expected minute, hour, day of month, month and day of week"),
    ("cron", "", {}, "with 0 fields"),
    ("cron", 5, {}, "got the cron expression 5, expected a string such as '0 9 * * 1'"),
    ("cron", None, {}, "got the cron expression None, expected a string"),
    ("cron", "61 * * * *", {}, "the minute is '61', expected 0-59"),
    ("cron", "0 0 31 11 *", {}, "it never matches: none of its months has such a day"),
    ("cron", "0 0 30 2 *", {}, "it never matches"),
    ("cron", "0 0 * * *", {"tz": "Europe/Nowhere"}, "got the time zone 'Europe/Nowhere', expected a name such as"),
    ("cron", "0 0 * * *", {"tz": 5}, "got the time zone 5, expected a name such as"),
    ("interval", {"hours": 1}, {"tz": "UTC"}, "got the option tz, expected missed, overlap, jitter or paused"),
    ("cron", "0 0 * * *", {"retry": 3}, "got the option retry, expected missed, overlap, jitter or paused"),
    ("cron", "0 0 * * *", {"missed": "never"}, "got missed='never', expected one of 'once', 'skip', 'all'"),
    ("cron", "0 0 * * *", {"overlap": None}, "got overlap=None, expected one of 'skip', 'queue', 'allow'"),
    ("cron", "0 0 * * *", {"overlap": []}, "got overlap=[], expected one of 'skip', 'queue', 'allow'"),
    ("cron", "0 0 * * *", {"jitter": -1}, "got jitter=-1, expected milliseconds or a timedelta, not negative"),
    ("cron", "0 0 * * *", {"jitter": "1"}, "got jitter='1', expected milliseconds or a timedelta"),
    ("cron", "0 0 * * *", {"jitter": float("nan")}, "got jitter=nan, expected milliseconds or a timedelta"),
    ("cron", "0 0 * * *", {"jitter": float("inf")}, "got jitter=inf, expected milliseconds or a timedelta"),
    ("cron", "0 0 * * *", {"jitter": 10**400}, "expected milliseconds or a timedelta"),
    ("cron", "0 0 * * *", {"jitter": True}, "got jitter=True, expected milliseconds or a timedelta"),
    ("cron", "0 0 * * *", {"paused": 1}, "got paused=1, expected True or False"),
]


@pytest.mark.parametrize(("method", "schedule", "options", "problem"), WRONG)
def test_what_is_wrong_with_a_definition_is_reported_with_its_place(
    method: str, schedule: Any, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidScheduleError) as refused:
        define(method, schedule, **options)
    assert problem in str(refused.value)


@pytest.mark.parametrize("identifier", ["", "ünïcode", "line\nbreak", "tab\t", "\x7f", "x" * 257, None, 5])
def test_an_identifier_is_printable_ascii(identifier: Any) -> None:
    with pytest.raises(InvalidScheduleError, match="expected 1 to 256 printable ASCII characters"):
        cron_jobs().interval(identifier, {"hours": 1}, note)


@on_each_engine
async def test_every_printable_ascii_character_may_be_in_an_identifier() -> None:
    declared = cron_jobs()
    names = ["".join(map(chr, range(32, 127))), "toString", "constructor", " ", "it's 5 o'clock", "x" * 256]
    for name in names:
        declared.interval(name, {"hours": 1}, note)
    async with Deployed(declared) as d:
        assert list(await d.crons()) == names


def test_an_identifier_is_declared_once_whatever_the_methods() -> None:
    declared = cron_jobs()
    declared.hourly("c", {"minute_utc": 5}, note)
    with pytest.raises(InvalidScheduleError, match="got the cron 'c' twice, expected each identifier once"):
        declared.interval("c", {"hours": 1}, note)


@on_each_engine
async def test_the_options_are_what_the_documents_describe_unless_others_are_given() -> None:
    declared = interval(60, name="plain")
    declared.cron(
        "told", "0 0 * * *", note, {}, missed="all", overlap="allow", jitter=timedelta(seconds=2), paused=True
    )
    declared.daily("spread", {"hour_utc": 1}, note, jitter=500)
    async with Deployed(declared) as d:
        crons = await d.crons()
        shown = {name: [c["missed"], c["overlap"], c["jitter"], c["paused"]] for name, c in crons.items()}
        assert shown == {
            "plain": ["once", "skip", 0, False],
            "told": ["all", "allow", 2_000, True],
            "spread": ["once", "skip", 500, False],
        }


@on_each_engine
async def test_a_function_is_named_in_whatever_way_functions_are() -> None:
    declared = cron_jobs()
    declared.interval("text", {"hours": 1}, "app:note")
    declared.interval("itself", {"hours": 1}, note)
    async with Deployed(declared) as d:
        assert [c["function"] for c in (await d.crons()).values()] == ["app:note", "app:note"]


# Against the application, when it is loaded.


@internal_mutation
async def stray(ctx: Any) -> None: ...


LOADED: list[tuple[Any, Any, str]] = [
    ("app:gone", None, "crons: c: got the function 'app:gone'"),
    ("nowhere:note", None, "crons: c: got the function 'nowhere:note'"),
    (stray, None, "is no function of this app"),
    (5, None, "crons: c: got 5 (int), expected a function"),
    (look, None, "crons: c: app:look is a query, expected a mutation or an action"),
    (note, {"text": object()}, "crons: c: app:note: "),
    (note, {"text": {1, 2}}, "crons: c: app:note: "),
    (note, ["x"], "crons: c: app:note: got ['x'] (list), expected the arguments as a dict"),
    (note, {"text": "x" * 20_000_000}, "crons: c: app:note: arguments"),
]


@pytest.mark.parametrize(("ref", "args", "problem"), LOADED)
def test_an_application_whose_cron_cannot_run_does_not_load_and_the_error_names_the_cron(
    ref: Any, args: Any, problem: str
) -> None:
    with pytest.raises(LoadError) as refused:
        Registry.load({"app": SimpleNamespace(**OWN), "crons": interval(60, ref, args)})
    assert problem in str(refused.value)
    assert str(refused.value).startswith("crons: c: ")


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, r"crons: got {} as `crons`, expected `crons = cron_jobs\(\)`"),
        (crons, r"got `from duly import crons` .* expected `from duly import cron_jobs` and `crons = cron_jobs\(\)`"),
    ],
)
def test_what_a_module_has_as_crons_must_be_crons(given: Any, problem: str) -> None:
    with pytest.raises(LoadError, match=problem):
        Registry.load({"crons": SimpleNamespace(crons=given)})


ELSEWHERE: dict[str, tuple[dict[str, str], str]] = {
    "another variable": ({"crons.py": "jobs = cron_jobs()"}, "crons: got `jobs"),
    "a second variable": ({"crons.py": "crons = cron_jobs()\nmore = cron_jobs()"}, "crons: got `more"),
    "another module": ({"work.py": "crons = cron_jobs()"}, "work: got `crons"),
    "another module too": ({"crons.py": "crons = cron_jobs()", "work.py": "crons = cron_jobs()"}, "work: got `crons"),
    "a folder": ({"admin/crons.py": "crons = cron_jobs()"}, "admin/crons: got `crons"),
    "a package": ({"crons/__init__.py": "crons = cron_jobs()"}, "crons/__init__: got `crons"),
    "a module of a package": ({"crons/daily.py": "crons = cron_jobs()"}, "crons/daily: got `crons"),
    "the application's package": ({"__init__.py": "crons = cron_jobs()"}, "__init__: got `crons"),
}


@pytest.mark.parametrize("where", ELSEWHERE)
def test_crons_that_are_declared_elsewhere_are_not_passed_over(where: str, tmp_path: Path) -> None:
    files, found = ELSEWHERE[where]
    folder = written(tmp_path, f"elsewhere_{list(ELSEWHERE).index(where)}", files)
    with pytest.raises(LoadError) as refused:
        Registry.load(folder)
    expected = "expected all crons in one object: `crons = cron_jobs()` in crons.py, at the top of the application"
    assert str(refused.value) == f"{found} = cron_jobs()`, {expected}"


def test_a_module_may_import_what_is_declared(tmp_path: Path) -> None:
    files = {"crons.py": "crons = cron_jobs()\nsame = crons", "work.py": "from .crons import crons"}
    assert Registry.load(written(tmp_path, "imports_crons", files)).crons == []


def test_functions_of_a_package_itself_are_none_of_the_application(tmp_path: Path) -> None:
    files = {"admin/__init__.py": "from .users import ban", "admin/users.py": "@mutation\nasync def ban(ctx): ..."}
    assert list(Registry.load(written(tmp_path, "has_a_package", files)).functions) == ["admin/users:ban"]


def written(parent: Path, name: str, files: dict[str, str]) -> Path:
    """A folder of modules."""
    for path, text in files.items():
        file = parent / name / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"from duly import cron_jobs, mutation\n{text}\n")
    return parent / name


def test_a_module_of_that_name_may_have_functions_only() -> None:
    registry = Registry.load({"crons": SimpleNamespace(note=note)})
    assert (list(registry.functions), registry.crons) == (["crons:note"], [])


@on_each_engine
async def test_arguments_that_the_function_does_not_take_are_logged_by_each_run() -> None:
    async with Deployed(calendar("* * * * *", args={"wrong": 1})) as d:
        await d.advance(120)
        assert await d.logs() == ["c failed 60", "c failed 120"]
