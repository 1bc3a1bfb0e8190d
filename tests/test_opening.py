"""An app is opened once at a time, in one event loop, and as often as one likes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from duly import App, FunctionNotFoundError, LoadError, MutationCtx, QueryCtx, StoreError, mutation, query
from duly.limits import NODE_HEARTBEAT_SECONDS
from duly.testing import Harness
from tests.conftest import only_on_sqlite

pytestmark = pytest.mark.usefixtures("engine")


@mutation
async def insert(ctx: MutationCtx, text: str) -> None:
    await ctx.db.insert("notes", {"text": text})


@mutation
async def insert_soon(ctx: MutationCtx, text: str) -> None:
    await ctx.scheduler.run_after(1, insert, {"text": text})


@query
async def notes(ctx: QueryCtx) -> list[str]:
    return [note["text"] for note in await ctx.db.query("notes").collect()]


MODULES = {"app": SimpleNamespace(insert=insert, insert_soon=insert_soon, notes=notes)}


async def wait_for(app: App, wanted: list[str]) -> None:
    async with asyncio.timeout(20):
        async for found in app.subscribe(notes):
            if found == wanted:
                return


def test_an_app_that_was_closed_opens_again_in_another_event_loop(store: str) -> None:
    app = App(MODULES, store)

    async def once(n: int) -> None:
        async with app, AsyncExitStack() as stack:
            if "postgres" in store:  # what is due is found by the one that hears, and beats
                await stack.enter_async_context(App(MODULES, store))
                await asyncio.sleep(3 * NODE_HEARTBEAT_SECONDS)
                assert [thread.name for thread in threading.enumerate()].count("duly-nodes") == 2
            await app.mutation(insert_soon, {"text": str(n)})
            await wait_for(app, [str(m) for m in range(n + 1)])

    for n in range(3):
        asyncio.run(once(n))


async def test_an_app_that_is_open_is_not_opened_again(store: str) -> None:
    app = App(MODULES, store)
    opening = asyncio.create_task(app.__aenter__())
    await asyncio.sleep(0)
    with pytest.raises(StoreError, match="got an app that is open already"):
        await app.__aenter__()
    await opening
    with pytest.raises(StoreError, match="got an app that is open already"):
        await app.__aenter__()
    await app.mutation(insert, {"text": "still there"})
    await app.close()
    async with app:
        assert await app.query(notes) == ["still there"]


async def test_an_app_that_could_not_be_opened_may_be_opened_later(store: str) -> None:
    modules: dict[str, Any] = {"app": 3, **MODULES}
    modules["crons"] = SimpleNamespace(crons=3)
    app = App(modules, store)
    with pytest.raises(Exception, match="crons"):
        await app.__aenter__()
    del modules["crons"]
    async with app:
        assert await app.query(notes) == []


async def test_calls_from_another_event_loop_are_refused_before_anything_has_happened(store: str) -> None:
    async with App(MODULES, store) as app:

        def call(coroutine: Coroutine[Any, Any, Any]) -> None:
            with pytest.raises(StoreError, match="got a call from another event loop than the one that opened the app"):
                asyncio.run(coroutine)

        await asyncio.to_thread(call, app.mutation(insert, {"text": "from afar"}))
        await asyncio.to_thread(call, app.query(notes))
        await asyncio.to_thread(call, app.close())
        assert await app.query(notes) == []


@pytest.mark.parametrize(
    ("store", "message"),
    [
        (
            None,
            r"got the store None \(NoneType\), expected sqlite:///relative/path.db, sqlite:////absolute/path.db or post",
        ),
        (3, r"got the store 3 \(int\), expected sqlite:"),
        (
            "mysql://me:secret@somewhere/shop",
            "got the store 'mysql://somewhere/shop', expected sqlite:.* or postgresql://",
        ),
        ("app.db", "got the store 'app.db', expected sqlite:.* or postgresql://"),
        ("sqlite:///", "got the store 'sqlite:///', expected sqlite:///relative"),
        ("sqlite:///:memory:", "got the store .sqlite:///:memory:., expected a file, .* in tests, use Harness"),
        (
            "postgresql://localhost/shop?client_encoding=latin1",
            "postgresql://localhost/shop: got client_encoding=latin1",
        ),
    ],
)
@only_on_sqlite
def test_an_address_that_is_none_is_refused_at_once(store: Any, message: str) -> None:
    for made in (App,) if store is None else (App, Harness):  # which makes one of its own then
        with pytest.raises(StoreError, match=message):
            made({}, store=store)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (3, r"got 3 \(int\), expected a folder, a package or a mapping of modules"),
        (None, r"got None \(NoneType\), expected a folder"),
        ([insert], r"got \[.*\] \(list\), expected a folder"),
        ("json", "got 'json', which is a part of Python, expected a folder or a package of your own"),
    ],
)
@only_on_sqlite
def test_what_is_no_application_is_refused_at_once(source: Any, message: str) -> None:
    for made in (App, Harness):
        with pytest.raises(LoadError, match=message):
            made(source)


@only_on_sqlite
def test_limits_are_limits() -> None:
    limits: Any = 3
    for made in (App, Harness):
        with pytest.raises(TypeError, match=r"got the limits 3 \(int\), expected duly.Limits"):
            made({}, limits=limits)


@only_on_sqlite
async def test_a_function_that_is_not_found_is_one_error(store: str) -> None:
    async with App(MODULES, store) as app:
        with pytest.raises(FunctionNotFoundError) as raised:
            await app.query("app:nothing")
        assert raised.value.__context__ is None


@only_on_sqlite
async def test_a_harness_whose_server_is_gone_raises_that_and_nothing_more(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StoreError, match="postgresql://127.0.0.1:1/duly: PostgreSQL cannot be reached"):
        await Harness({}, store="postgresql://127.0.0.1:1/duly").__aenter__()
    assert capfd.readouterr().err == ""
