"""An action ends, whatever it raises, and where it has failed the log says so."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from duly import (
    ActionCtx,
    App,
    AppError,
    FunctionError,
    MutationCtx,
    QueryCtx,
    SyncActionCtx,
    crons,
    internal_action,
    internal_mutation,
    mutation,
    query,
)
from duly.limits import ERROR_TEXT_LENGTH_MAX
from duly.model import jobs
from duly.testing import Harness
from tests.support import handlers_in

pytestmark = pytest.mark.usefixtures("engine")


class OfItsOwn(BaseException):
    pass


class OfNoModule(Exception):
    __module__: Any = None


class WithoutText(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def noted(error: Exception) -> Exception:
    error.__notes__ = ["more", "caf\udce9 \0", WithoutText()]  # pyright: ignore
    return error


def of_an_odd_file() -> None:
    code = compile("raise ValueError('in an odd file')", "file.py", "exec")
    exec(code.replace(co_filename="caf\udce9 \0.py"), {})


ODD: dict[str, tuple[Callable[[], Any], str]] = {
    "of no module": (lambda: OfNoModule("no tea"), "OfNoModule (which cannot be shown: "),
    "without text": (WithoutText, "tests.scheduler.test_ends.WithoutText: <exception str() failed>"),
    "no text": (lambda: ValueError("caf\udce9 \0 \ufffe"), "ValueError: caf\\udce9 ? \ufffe"),
    "noted": (lambda: noted(ValueError("no tea")), "ValueError: no tea\nmore\ncaf\\udce9 ?\n"),
    "data": (lambda: AppError({"tea": "caf\udce9 \0"}), "AppError: {'tea': 'caf\\udce9 \\x00'}"),
    "syntax": (lambda: SyntaxError("no tea", ("a", 2, 3, "caf\udce9 \0")), '  File "a", line 2\n'),
    "odd syntax": (lambda: SyntaxError("no tea", (1, 2, 3, 4)), "SyntaxError (which cannot be shown: "),
    "odd file": (of_an_odd_file, "ValueError"),
    "long": (lambda: ValueError("☕" * 1_000_000), "ValueError: ☕☕☕"),
}
"""What makes an exception that is odd, or raises it itself; and how the error of whoever raises it begins."""
RAISED = {"GeneratorExit": GeneratorExit, "SystemExit": SystemExit, "OfItsOwn": OfItsOwn, "Failed": pytest.fail}
"""What raises something that is no Exception, by its name."""
CANCELLED = {"CancelledError": asyncio.CancelledError, **RAISED}


def cry(what: str) -> None:
    raised = CANCELLED[what]
    if raised is pytest.fail:
        pytest.fail("no tea")
    raise raised("no tea")


@internal_action
async def cries(ctx: ActionCtx, what: str) -> None:
    await asyncio.sleep(0)
    cry(what)


@internal_action
def cries_in_a_thread(ctx: SyncActionCtx, what: str) -> None:
    cry(what)


def cry_oddly(what: str) -> None:
    raise ODD[what][0]()


@internal_action
async def cries_oddly(ctx: ActionCtx, what: str) -> None:
    cry_oddly(what)


@internal_action
def cries_oddly_in_a_thread(ctx: SyncActionCtx, what: str) -> None:
    cry_oddly(what)


@internal_mutation
async def changes_oddly(ctx: MutationCtx, what: str) -> None:
    cry_oddly(what)


@internal_mutation
async def returns_oddly(ctx: MutationCtx, what: str) -> Any:
    return {"surrogate": "caf\udce9", "name": {"caf\udce9": 1}, "object": WithoutText(), "int": 1 << 70}[what]


@internal_action
async def acts_and_returns_oddly(ctx: ActionCtx, what: str) -> Any:
    return {"surrogate": "caf\udce9", "name": {"caf\udce9": 1}, "object": WithoutText(), "int": 1 << 70}[what]


@internal_action
async def calls_one_that_cries(ctx: ActionCtx, what: str) -> str:
    try:
        await ctx.run_action(cries, {"what": what})
    except FunctionError as error:
        return str(error)
    return "nothing"


@internal_action
async def waits(ctx: ActionCtx) -> None:
    await asyncio.Event().wait()


@mutation
async def schedule(ctx: MutationCtx, name: str, args: Any) -> None:
    await ctx.scheduler.run_after(0, f"app:{name}", args)


MODULES = {"app": SimpleNamespace(**handlers_in(globals()))}


@pytest.mark.one_engine
@pytest.mark.parametrize("what", CANCELLED)
@pytest.mark.parametrize("name", ["cries", "cries_in_a_thread"])
async def test_whatever_an_action_raises_it_has_failed(name: str, what: str) -> None:
    expected = f"got {what} from a function, expected a result or an error: no tea"
    async with Harness(MODULES) as t:
        with pytest.raises(FunctionError, match=expected):
            await asyncio.wait_for(t.action(f"app:{name}", {"what": what}), 30)
        await t.mutation(schedule, {"name": name, "args": {"what": what}})
        await asyncio.wait_for(t.run_until_idle(), 30)
        [job] = await t.failures()
        assert job["state"]["error"].startswith(f"FunctionError: {expected}\n  at {name} (test_ends.py:")


@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("name", ["changes_oddly", "cries_oddly", "cries_oddly_in_a_thread"])
async def test_whatever_is_odd_about_an_error_the_function_has_failed_and_others_go_on(name: str, what: str) -> None:
    async with Harness(MODULES) as t:
        await t.mutation(schedule, {"name": name, "args": {"what": what}})
        await t.mutation(schedule, {"name": name, "args": {"what": "no text"}})
        await asyncio.wait_for(t.run_until_idle(), 30)
        first, second = await t.failures()
        assert first["state"]["error"].startswith(ODD[what][1])
        assert len(first["state"]["error"]) <= ERROR_TEXT_LENGTH_MAX
        assert second["state"]["error"].startswith(ODD["no text"][1])


@pytest.mark.one_engine
@pytest.mark.parametrize("what", ODD)
async def test_whatever_is_odd_about_an_error_a_log_in_a_file_has_it(what: str, tmp_path: Path) -> None:
    handler = logging.FileHandler(tmp_path / "log", encoding="utf-8")
    logging.getLogger("duly").addHandler(handler)
    try:
        async with Harness(MODULES) as t:
            await t.mutation(schedule, {"name": "changes_oddly", "args": {"what": what}})
            await asyncio.wait_for(t.run_until_idle(), 10)
    finally:
        logging.getLogger("duly").removeHandler(handler)
        handler.close()
    text = (tmp_path / "log").read_text(encoding="utf-8")
    assert text.startswith("mutation app:changes_oddly ")
    assert ODD[what][1].partition(" ")[0].replace("?", "\0") in text


@pytest.mark.one_engine
@pytest.mark.parametrize("what", ["surrogate", "name", "object", "int"])
@pytest.mark.parametrize("name", ["returns_oddly", "acts_and_returns_oddly"])
async def test_who_returns_what_no_store_can_hold_has_failed(name: str, what: str) -> None:
    async with Harness(MODULES) as t:
        await t.mutation(schedule, {"name": name, "args": {"what": what}})
        await t.transaction(
            lambda ctx: crons.register(ctx, {"kind": "interval", "ms": 1_000}, f"app:{name}", {"what": what})
        )
        await asyncio.wait_for(t.advance(1_000), 30)
        found = [failure.get("state", failure.get("status"))["error"] for failure in await t.failures()]
        assert len(found) == 2
        assert all(error.startswith("ReturnsValidationError: app:") for error in found)


async def test_an_action_may_catch_what_another_one_has_raised() -> None:
    async with Harness(MODULES) as t:
        for what in CANCELLED:
            assert f"got {what} from a function" in await t.action(calls_one_that_cries, {"what": what})


async def test_a_caller_that_is_cancelled_is_cancelled() -> None:
    async with Harness(MODULES) as t:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(t.action(waits), 0.01)
        call = asyncio.create_task(t.action(waits))
        await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert call.cancelled()


async def test_an_end_that_cannot_be_recorded_is_recorded_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    end_action = jobs.end_action

    def refuse(batch: Any, id: int, epoch: int, error: str | None, record: Any) -> None:
        monkeypatch.setattr(jobs, "end_action", end_action)
        raise KeyError("no such tea")

    async with Harness(MODULES) as t:
        await t.mutation(schedule, {"name": "cries", "args": {"what": "OfItsOwn"}})
        monkeypatch.setattr(jobs, "end_action", refuse)
        await asyncio.wait_for(t.run_until_idle(), 30)
        [job] = await t.failures()
        assert job["state"]["error"].startswith("KeyError: 'no such tea'")


async def test_what_fails_oddly_frees_its_place(store: str) -> None:
    async with App(MODULES, store) as app:
        for what in CANCELLED:
            await app.mutation(schedule, {"name": "cries", "args": {"what": what}})
        async with asyncio.timeout(20):
            while (await app.stats()).running or (await app.stats()).due or app.executor.running:
                await asyncio.sleep(0.005)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log of runs has at level ERROR, without times."""
    lines = [record.getMessage() for record in caplog.records if record.name == "duly.run"]
    assert all(record.levelno == logging.ERROR for record in caplog.records if record.name == "duly.run")
    return [re.sub(r" [0-9.]+ ms", "", line.partition("\n")[0]) for line in lines]


INTERRUPTED = f"action app:waits FunctionError: {jobs.INTERRUPTED}"


async def test_what_is_gone_or_of_another_kind_is_logged(caplog: pytest.LogCaptureFixture, store: str) -> None:
    async with App(MODULES, store, executor=False) as app:
        for name in ("waits", "schedule"):
            await app.mutation(schedule, {"name": name, "args": None})
    changed = {"app": SimpleNamespace(waits=query(waits_as_a_query))}
    caplog.clear()
    async with App(changed, store) as app, asyncio.timeout(20):
        while (await app.stats()).due:
            await asyncio.sleep(0.005)
    assert sorted(logged(caplog)) == [
        "action app:waits FunctionNotFoundError: app:waits is a query now, expected the mutation or action that was"
        " scheduled",
        "mutation app:schedule FunctionNotFoundError: app:schedule does not exist (any more), expected the mutation or"
        " action that was scheduled",
    ]


async def waits_as_a_query(ctx: QueryCtx) -> None: ...


async def test_what_a_lost_process_has_interrupted_is_logged_at_the_next_start(
    caplog: pytest.LogCaptureFixture, store: str
) -> None:
    app = await running(store)
    await app.crash()
    caplog.clear()
    async with App(MODULES, store, executor=False):
        pass
    assert logged(caplog) == [INTERRUPTED]


async def test_what_is_interrupted_by_the_end_of_the_app_is_logged(
    caplog: pytest.LogCaptureFixture, store: str
) -> None:
    app = await running(store)
    caplog.clear()
    await app.close(grace_seconds=0)
    assert logged(caplog) == [INTERRUPTED]


async def test_arguments_that_do_not_fit_an_action_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with Harness(MODULES) as t:
        await t.mutation(schedule, {"name": "waits", "args": {"for": "tea"}})
        await t.run_until_idle()
    [warned] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert warned.getMessage().startswith(
        "scheduled with arguments that fail unless a later version takes them: app:waits"
    )
    caplog.records.remove(warned)
    assert logged(caplog) == [
        "action app:waits ArgumentValidationError: app:waits: at .for: not a declared field; no field is declared"
    ]


async def running(store: str) -> App:
    """An app in which an action waits."""
    app = await App(MODULES, store).__aenter__()
    await app.mutation(schedule, {"name": "waits", "args": None})
    async with asyncio.timeout(20):
        while not app.executor.running:
            await asyncio.sleep(0.005)
    return app
