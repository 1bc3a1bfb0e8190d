"""Async tests: every `async def test_…` runs on an event loop of its own. Stores: of every engine there is."""

from __future__ import annotations

import asyncio
import gc
import inspect
import math
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests import leaks, postgres, processes

ENGINES = ("sqlite", "postgres")
SLOW_FOLDERS = ("bench", "crash", "nodes", "typed")
"""All that is in there takes its time, as processes do that wait for each other."""
SOAK = "DULY_SOAK" in os.environ
"""Whether there is time for all engines everywhere: `make soak`."""
_files = pytest.StashKey[str]()
settings.register_profile("of any duration", deadline=None)  # how long an example takes tells of the machine
settings.load_profile("of any duration")
only_on_sqlite = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)


def pytest_configure(config: pytest.Config) -> None:
    """Keep the files of tests in memory where there is room: what they are for is not how long a disk takes."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker or "TMPDIR" not in os.environ or not config.getoption("numprocesses", None):
        place = os.environ.get("TMPDIR") or postgres.place()  # a worker is in the folder of what started it
        folder = tempfile.mkdtemp(prefix=f"{worker or 'duly-tests'}-", dir=place)
        os.environ["TMPDIR"] = tempfile.tempdir = leaks.folder = config.stash[_files] = folder
    leaks.watch_asyncio()
    processes.watch()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    folder = session.config.stash.get(_files, None)
    if folder is not None and exitstatus == 0:  # else somebody may want to look at them
        shutil.rmtree(folder, ignore_errors=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is only for `make soak`, and deal the others out.

    Each worker begins with its share of the slow ones, so that in the end none waits for one that another runs.
    """
    left_out = [] if SOAK else [item for item in items if _is_left_out(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]
    for item in items:
        if item.path.parent.name in SLOW_FOLDERS:
            item.add_marker("slow")
        if "postgres" in _params(item).values():
            item.add_marker("server")
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        slow = [item for item in items if item.get_closest_marker("slow") or item.get_closest_marker("crash")]
        known = set(slow)
        quick = [item for item in items if item not in known]
        each = math.ceil(len(quick) / workers)
        shares = [(*slow[n::workers], *quick[n * each : (n + 1) * each]) for n in range(workers)]
        items[:] = [item for share in shares for item in share]


def _is_left_out(item: pytest.Item) -> bool:
    """Whether it is for `make soak` only, or the second run of a test whose subject lies above the engines."""
    if item.get_closest_marker("soak"):
        return True
    is_second = _params(item).get("engine") == "postgres"
    return is_second and bool(item.get_closest_marker("one_engine")) and not item.get_closest_marker("both_engines")


def _params(item: pytest.Item) -> dict[str, Any]:
    callspec: Any = getattr(item, "callspec", None)
    return (
        {} if callspec is None else {name: value for name, value in callspec.params.items() if isinstance(value, str)}
    )


def pytest_collection_finish() -> None:
    """Have Python look for garbage among what tests make only: what was imported stays, and is much."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Iterator[None]:
    """What a test has printed or logged and no encoding can tell would end its worker, and the whole run."""
    return encodable((yield))


def encodable(told: Any) -> Any:
    if isinstance(told, str):
        return told if told.isascii() else told.encode(errors="backslashreplace").decode()
    if isinstance(told, dict):
        return {key: encodable(value) for key, value in told.items()}
    return type(told)(map(encodable, told)) if type(told) in (list, tuple) else told


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """What Python could only print is an error of this test, also where something else has failed in its teardown."""
    try:
        return (yield)
    except BaseException:
        for name in ("unraisableexception", "threadexception"):  # which else do so in the next test
            item.config.pluginmanager.get_plugin(name).pytest_runtest_teardown(item)
        raise


@pytest.fixture(scope="module", autouse=True)
def fixtures_of_a_module_leave_nothing_open(request: pytest.FixtureRequest) -> Iterator[None]:
    with leaks.none(f"a fixture of {request.module.__name__}"):
        yield


@pytest.fixture(autouse=True)
def a_test_leaves_nothing_open(request: pytest.FixtureRequest) -> Iterator[None]:
    with processes.marked(request.node), leaks.none("this test"):
        yield


@pytest.fixture(autouse=True)
def batches_have_time(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How much a batch runs must not depend on how busy the machine is, unless the limit is what a test is about."""
    if not request.node.get_closest_marker("timed_batches"):
        for limit in ("BATCH_SECONDS_MAX", "BATCH_SECONDS_ALONE_MAX"):
            monkeypatch.setattr(f"duly.database.batch.{limit}", 60.0)
        monkeypatch.setattr("duly.workers.executor.DUE_SECONDS_BEHIND_CALLS_MAX", 60.0)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    test, given = pyfuncitem.obj, pyfuncitem.funcargs
    if not inspect.iscoroutinefunction(test):
        return None
    asyncio.run(test(**{name: given[name] for name in inspect.signature(test).parameters if name in given}))
    return True


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The engine under test, each in turn: that of `store`, and of every harness that is given no store."""
    if request.param == "postgres":
        skip_without_postgres()
        monkeypatch.setattr("duly.testing.temporary_store", temporary_store_in_postgres)
    return request.param


@pytest.fixture
def store(engine: str, store_of: Callable[[str], str]) -> str:
    """The address of an empty store of the engine under test."""
    return store_of(engine)


@pytest.fixture
def store_of(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """The address of an empty store of an engine; the same one for the whole test."""
    stores = {"sqlite": f"sqlite:///{tmp_path}/app.db"}

    def store(engine: str) -> str:
        if engine not in stores:
            skip_without_postgres()
            stores[engine] = postgres.new_store(postgres.shared_address())
        return stores[engine]

    yield store
    if "postgres" in stores:
        postgres.drop_store(stores["postgres"])


def skip_without_postgres() -> None:
    if reason := postgres.unavailable():
        pytest.skip(reason)


def temporary_store_in_postgres() -> tuple[str, Callable[[], None]]:
    address = postgres.empty_store(postgres.shared_address())

    def give_back() -> None:
        thread = threading.Thread(target=postgres.give_back, args=(address,))  # in this one a loop runs
        thread.start()
        thread.join()

    return address, give_back
