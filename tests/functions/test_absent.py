"""What other libraries have and duly does not: an error says what to write instead, at the call."""

from __future__ import annotations

import asyncio
import importlib.util
import re
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from duly import (
    ActionCtx,
    AppError,
    DulyError,
    FunctionError,
    LoadError,
    MutationCtx,
    QueryCtx,
    QueryError,
    SyncActionCtx,
    action,
    crons,
    define_table,
    internal_mutation,
    mutation,
    query,
    v,
)
from duly.testing import Harness

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.one_engine]


@internal_mutation
async def later(ctx: MutationCtx, x: int = 0) -> None: ...


@query
async def look(ctx: QueryCtx, x: int = 0) -> int:
    return x


def harness(**functions: Any) -> Harness:
    return Harness({"app": SimpleNamespace(later=later, look=look, **functions)})


Uses = Callable[[Any], Any]

NAMES: dict[str, tuple[Uses, str]] = {
    ".order_by": (lambda ctx: ctx.db.query("a").order_by("n"), r'\.with_index\("by_due"\)\.order\("desc"\)'),
    ".sort": (lambda ctx: ctx.db.query("a").with_index("by_id").sort("n"), "in the order of an index"),
    ".where": (lambda ctx: ctx.db.query("a").where(n=1), r"\.filter\(lambda q: "),
    ".filter_by": (lambda ctx: ctx.db.query("a").filter_by(n=1), r"\.filter\(lambda q: "),
    ".limit": (lambda ctx: ctx.db.query("a").limit(5), r"expected \.take\(n\)"),
    ".all": (lambda ctx: ctx.db.query("a").all(), r"expected \.collect\(\)"),
    ".one": (lambda ctx: ctx.db.query("a").one(), r"expected \.unique\(\)"),
    ".last": (lambda ctx: ctx.db.query("a").last(), r'\.order\("desc"\)\.first\(\)'),
    ".offset": (lambda ctx: ctx.db.query("a").offset(5), r"\.paginate\("),
    ".exists": (lambda ctx: ctx.db.query("a").exists(), r"first\(\)` is not None|first\(\) is not None"),
    ".delete": (lambda ctx: ctx.db.query("a").delete(), r"ctx\.db\.delete\(document"),
    ".update": (lambda ctx: ctx.db.query("a").update(n=1), r"ctx\.db\.patch\(document"),
    ".withIndex": (lambda ctx: ctx.db.query("a").withIndex("by_n"), r"expected \.with_index"),
    "db.update": (lambda ctx: ctx.db.update("id", {"n": 1}), r"ctx\.db\.patch\(id, fields\)"),
    "db.upsert": (lambda ctx: ctx.db.upsert("a", {}), r"\.unique\(\)"),
    "db.find": (lambda ctx: ctx.db.find("a"), r"ctx\.db\.query"),
    "db.count": (lambda ctx: ctx.db.count("a"), r"\.count\(\)"),
    "db.insert_many": (lambda ctx: ctx.db.insert_many("a", []), r"ctx\.db\.insert\(table, document\)"),
    "db.remove": (lambda ctx: ctx.db.remove("id"), r"ctx\.db\.delete\(id\)"),
    "db.commit": (lambda ctx: ctx.db.commit(), "committed when it returns"),
    "db.execute": (lambda ctx: ctx.db.execute("select 1"), "there is no SQL"),
    "scheduler.run_in": (lambda ctx: ctx.scheduler.run_in(5, later), r"ctx\.scheduler\.run_after\(delay"),
    "scheduler.enqueue": (lambda ctx: ctx.scheduler.enqueue(later), r"ctx\.scheduler\.run_after\(delay"),
    "scheduler.runAfter": (lambda ctx: ctx.scheduler.runAfter(0, later), "expected ctx.scheduler.run_after"),
    "scheduler.every": (lambda ctx: ctx.scheduler.every(5, later), r"crons\.interval"),
    "scheduler.status": (lambda ctx: ctx.scheduler.status("id"), r"ctx\.db\.system\.get"),
    "ctx.runQuery": (lambda ctx: ctx.runQuery(look), r"expected ctx\.run_query"),
    "function.enqueue": (lambda ctx: later.delay(5), r"ctx\.scheduler\.run_after"),  # pyright: ignore
}


@pytest.mark.parametrize(("use", "instead"), NAMES.values(), ids=NAMES)
async def test_a_name_of_another_library_says_what_to_write_instead(use: Uses, instead: str) -> None:
    async with harness() as t:

        async def uses(ctx: MutationCtx) -> None:
            await use(ctx)

        with pytest.raises(AttributeError, match=instead):
            await t.transaction(uses)


CALLS: dict[str, tuple[Uses, str]] = {
    "filter(status=…)": (
        lambda ctx: ctx.db.query("a").filter(status="new").collect(),
        r"""filter: got status='new', expected a function: \.filter\(lambda q: q\.field\("status"\) == "new"\)""",
    ),
    "filter(q, …)": (lambda ctx: ctx.db.query("a").filter(lambda q: True, n=1).collect(), "filter: got n=1, expected"),
    "run_after(…, x=1)": (
        lambda ctx: ctx.scheduler.run_after(5, later, x=1),
        r"run_after: got x=1, expected a dict: run_after\(delay, ref, \{'x': 1\}\)",
    ),
    "run_at(…, x=1)": (
        lambda ctx: ctx.scheduler.run_at(5, later, x=1, y="b"),
        r"run_at\(when, ref, \{'x': 1, 'y': 'b'\}\)",
    ),
    "run_after(…, 1)": (
        lambda ctx: ctx.scheduler.run_after(5, later, {}, 1),
        "run_after: too many positional arguments",
    ),
    "run_after(5)": (
        lambda ctx: ctx.scheduler.run_after(5),
        r"run_after: missing .*'ref'.*run_after\(delay, ref, args\)",
    ),
    "patch(id, a=2)": (
        lambda ctx: ctx.db.patch("id", a=2),
        r"patch: got a=2, expected a dict: patch\(id, \{'a': 2\}\)",
    ),
    "patch(id)": (lambda ctx: ctx.db.patch("id"), r"patch: got no fields, expected patch\(id, fields\)"),
    "replace(id)": (lambda ctx: ctx.db.replace("id"), r"replace: got no document"),
    "patch()": (lambda ctx: ctx.db.patch(fields={}), r"patch: got no id"),
    "insert(a, n=1)": (lambda ctx: ctx.db.insert("a", n=1), r"insert: got n=1, expected a dict: insert\(\{'n': 1\}\)"),
    "run_query(x=1)": (lambda ctx: ctx.run_query(look, x=1), r"run_query\(ref, \{'x': 1\}\)"),
    "run_mutation(x=1)": (lambda ctx: ctx.run_mutation(later, x=1), r"run_mutation\(ref, \{'x': 1\}\)"),
    "crons.update(arg=…)": (
        lambda ctx: crons.update(ctx, "it", arg={}),  # pyright: ignore[reportCallIssue]
        r"update: got arg=\{\}, expected a dict: update\(id_or_name, schedule, \{'arg': \{\}\}\)",
    ),
    "cancel(id, force=True)": (
        lambda ctx: ctx.scheduler.cancel("id", force=True),
        r"cancel: got force=True, expected cancel\(",
    ),
}


@pytest.mark.parametrize(("call", "instead"), CALLS.values(), ids=CALLS)
async def test_a_call_with_arguments_that_are_not_there_shows_the_one_that_was_meant(call: Uses, instead: str) -> None:
    async with harness() as t:

        async def calls(ctx: MutationCtx) -> None:
            await call(ctx)

        with pytest.raises(DulyError, match=instead):
            await t.transaction(calls)


@action
async def schedules(ctx: ActionCtx) -> None:
    await ctx.scheduler.run_after(5, later, x=1)  # pyright: ignore[reportCallIssue]


@action
def schedules_in_a_thread(ctx: SyncActionCtx) -> None:
    ctx.scheduler.run_after(5, later, x=1)  # pyright: ignore[reportCallIssue]


@action
def queries_in_a_thread(ctx: SyncActionCtx) -> None:
    ctx.run_query(look, x=1)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("acts", [schedules, schedules_in_a_thread, queries_in_a_thread])
async def test_actions_are_told_the_same(acts: Any) -> None:
    async with harness(acts=acts) as t:
        with pytest.raises(FunctionError, match=r"got x=1, expected a dict: run_(after|query)\(.*ref, \{'x': 1\}\)"):
            await t.action("app:acts")


def test_an_index_with_a_keyword_says_what_to_do_instead() -> None:
    table: Any = define_table({"email": v.string()})
    with pytest.raises(DulyError, match=r"index: got unique=True, which no index has: .*\.first\(\) is None"):
        table.index("by_email", ["email"], unique=True)
    with pytest.raises(DulyError, match=r"index: got descending=True, expected \.index\(name"):
        table.index("by_email", ["email"], descending=True)
    with pytest.raises(DulyError, match=r"index: .*expected \.index\(name"):
        table.index("by_email", "email", "name")


@pytest.mark.parametrize(
    ("decorator", "keyword", "instead"),
    [
        (mutation, {"public": False}, "@mutation: got the keyword public=.*@internal_mutation is not"),
        (internal_mutation, {"internal": True}, "@internal_mutation: got the keyword internal=.*@mutation is public"),
        (query, {"arg": {}}, "@query: got the keyword arg=, expected args="),
        (action, {"retries": 3}, "@action: got the keyword retries=.*the next attempt"),
        (action, {"timeout": 3}, "action_seconds_max"),
        (mutation, {"schedule": "@daily"}, r"crons\.interval"),
        (mutation, {"handler": later}, "the function below the decorator"),
        (mutation, {"anything": 5}, "got the keyword anything=, expected args= or returns="),
    ],
)
def test_a_keyword_that_a_decorator_does_not_have_says_what_to_write_instead(
    decorator: Any, keyword: dict[str, Any], instead: str
) -> None:
    with pytest.raises(TypeError, match=instead):
        decorator(**keyword)


# What needs an event loop.


async def wait_for_a_lock() -> None:
    lock = asyncio.Lock()
    await lock.acquire()
    await lock.acquire()


async def sleep_in_a_group() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 1)


async def time_out() -> None:
    async with asyncio.timeout(1):
        await asyncio.sleep(0)


async def time_out_of_anyio() -> None:
    with anyio.fail_after(1):
        await anyio.lowlevel.checkpoint()


async def fail_as_clients_do() -> None:
    try:
        await anyio.sleep(1)
    except Exception as error:
        raise ConnectionError("Connection error.") from error


async def fail_later_as_clients_do() -> None:
    try:
        await asyncio.sleep(1)
    except Exception:
        raise ConnectionError("Connection error.")  # noqa: B904


async def connect_to_a_database() -> None:
    import asyncpg

    await asyncpg.connect("postgresql://127.0.0.1:9/none")  # pyright: ignore[reportUnknownMemberType]


async def ask_with_httpx() -> None:
    import httpx  # pyright: ignore

    async with httpx.AsyncClient() as client:  # pyright: ignore
        await client.get("http://127.0.0.1:9/")  # pyright: ignore


async def ask_with_aiohttp() -> None:
    import aiohttp  # pyright: ignore

    async with aiohttp.ClientSession() as client:  # pyright: ignore
        await client.get("http://127.0.0.1:9/")  # pyright: ignore


AWAITED: dict[str, Callable[[], Awaitable[Any]]] = {
    "asyncio": lambda: asyncio.sleep(1),
    "asyncio: a thread": lambda: asyncio.to_thread(print),
    "asyncio: a lock": wait_for_a_lock,
    "asyncio: a queue": lambda: asyncio.Queue[int]().get(),
    "asyncio: an event": lambda: asyncio.Event().wait(),
    "asyncio: a time limit": time_out,
    "asyncio: a connection": lambda: asyncio.open_connection("127.0.0.1", 9),
    "anyio": lambda: anyio.sleep(1),
    "anyio: a group": sleep_in_a_group,
    "anyio: a time limit": time_out_of_anyio,
    "anyio: a thread": lambda: anyio.to_thread.run_sync(print),
    "asyncpg": connect_to_a_database,
    "httpx": ask_with_httpx,
    "aiohttp": ask_with_aiohttp,
    "asyncio|anyio: wrapped": fail_as_clients_do,
    "asyncio|anyio: wrapped without a word": fail_later_as_clients_do,
}


@pytest.mark.parametrize("library", AWAITED)
@pytest.mark.parametrize("kind", ["query", "mutation"])
async def test_whatever_needs_an_event_loop_is_pointed_to_actions(kind: str, library: str) -> None:
    named = library.partition(":")[0]
    if importlib.util.find_spec(named.partition("|")[0]) is None:
        pytest.skip(f"{named} is not installed")

    @query
    async def reads(ctx: QueryCtx) -> None:
        await AWAITED[library]()

    @mutation
    async def writes(ctx: MutationCtx) -> None:
        await AWAITED[library]()

    async with harness(reads=reads, writes=writes) as t:
        with pytest.raises(FunctionError, match=rf"awaited something of ({named}), expected only calls.*in an action"):
            await (t.query("app:reads") if kind == "query" else t.mutation("app:writes"))


async def test_an_app_error_is_what_it_is_whatever_was_caught_before_it() -> None:
    async with harness() as t:

        async def tries(ctx: MutationCtx) -> None:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                raise AppError("on purpose")  # noqa: B904

        with pytest.raises(AppError, match="on purpose"):
            await t.transaction(tries)


async def test_an_error_of_the_application_that_looks_like_one_of_a_loop_stays_what_it_is() -> None:
    async with harness() as t:

        async def fails(ctx: MutationCtx) -> None:
            nothing: Any = None
            nothing.create_future()

        with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'create_future'"):
            await t.transaction(fails)


# Steps that are taken twice.


@pytest.mark.parametrize(
    "twice",
    [
        lambda q: q.order("asc").order("desc"),
        lambda q: q.order("desc").filter(lambda f: f.field("n") > 1).order("desc"),
        lambda q: q.with_index("by_id").with_index("by_creation_time"),
    ],
)
async def test_a_query_has_one_order_and_one_index(twice: Any) -> None:
    async with harness() as t:
        with pytest.raises(DulyError, match=r"a: got \.(order|with_index)\(…\) twice in one query, expected it once"):
            await t.transaction(lambda ctx: twice(ctx.db.query("a")).collect())


# Functions that call each other.


@query
async def goes_down(ctx: QueryCtx, left: int) -> int:
    return 0 if left == 0 else 1 + await ctx.run_query(goes_down, {"left": left - 1})


@action
async def acts_down(ctx: ActionCtx, left: int) -> int:
    return 0 if left == 0 else 1 + await ctx.run_action(acts_down, {"left": left - 1})


async def test_eight_nested_calls_pass_and_nine_fail() -> None:
    async with harness(goes_down=goes_down, acts_down=acts_down) as t:
        for call, name in ((t.query, "app:goes_down"), (t.action, "app:acts_down")):
            assert await call(name, {"left": 8}) == 8
            with pytest.raises(DulyError, match=r"got 9 calls of functions by functions.*\(CALL_DEPTH_MAX\)"):
                await call(name, {"left": 9})


# Declared arguments.


@mutation(args=v.any())
async def takes_anything(ctx: MutationCtx, **args: Any) -> Any:
    return args


@mutation(args=v.any())
async def takes_what_it_names(ctx: MutationCtx, a: Any, b: Any = 5) -> Any:
    return [a, b]


@mutation(args=v.union({"kind": v.literal("text"), "text": v.string()}, {"kind": v.literal("n"), "n": v.int64()}))
async def takes_one_of_two(ctx: MutationCtx, kind: str, text: str = "", n: int = 0) -> Any:
    return [kind, text, n]


@mutation(args=v.union(v.object({"a": v.string()}), v.any()))
async def takes_an_object_or_anything(ctx: MutationCtx, **args: Any) -> Any:
    return args


@mutation(args=v.record(v.string(), v.number()))
async def takes_a_record(ctx: MutationCtx, **args: float) -> Any:
    return args


@mutation(args=v.object({"a": v.optional(v.string())}))
async def takes_an_object(ctx: MutationCtx, a: str | None = None) -> Any:
    return a


DECLARED: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "any": (takes_anything, {"x": [1], "y": None}, {"x": [1], "y": None}),
    "any, nothing": (takes_anything, {}, {}),
    "any, named": (takes_what_it_names, {"a": {"x": 1}}, [{"x": 1}, 5]),
    "union, one": (takes_one_of_two, {"kind": "text", "text": "hi"}, ["text", "hi", 0]),
    "union, other": (takes_one_of_two, {"kind": "n", "n": 5.0}, ["n", "", 5]),
    "union with any": (takes_an_object_or_anything, {"z": 1}, {"z": 1}),
    "record": (takes_a_record, {"x": 1, "y": 2.5}, {"x": 1, "y": 2.5}),
    "object": (takes_an_object, {}, None),
}


@pytest.mark.parametrize(("function", "args", "expected"), DECLARED.values(), ids=DECLARED)
async def test_arguments_may_be_declared_by_any_validator_of_objects(
    function: Any, args: dict[str, Any], expected: Any
) -> None:
    async with harness(function=function) as t:
        assert await t.mutation("app:function", args) == expected
        await t.transaction(lambda ctx: ctx.scheduler.run_after(0, function, args))
        await t.run_until_idle()
        assert await t.failures() == []


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (takes_what_it_names, {}),
        (takes_what_it_names, {"a": 1, "c": 1}),
        (takes_one_of_two, {"kind": "text", "n": 5}),
        (takes_one_of_two, {"kind": "other"}),
        (takes_one_of_two, {}),
        (takes_a_record, {"x": "text"}),
        (takes_a_record, {"ctx": 5}),
        (takes_anything, {"ctx": 5}),
    ],
)
async def test_what_such_a_validator_does_not_let_through_does_not_reach_the_handler(
    function: Any, args: dict[str, Any]
) -> None:
    async with harness(function=function) as t:
        with pytest.raises(DulyError, match="app:function: "):
            await t.mutation("app:function", args)


@mutation(args=v.union({"a": v.string()}, {"b": v.string()}))
async def lacks_one(ctx: MutationCtx, a: str = "") -> None: ...


@mutation(args=v.union({"a": v.string()}, {"b": v.string()}))
async def needs_both(ctx: MutationCtx, a: str, b: str) -> None: ...


@mutation(args=v.record(v.string(), v.any()))
async def names_one(ctx: MutationCtx, a: str = "") -> None: ...


@mutation(args=v.string())
async def takes_a_text(ctx: MutationCtx) -> None: ...


@mutation(args=v.union())
async def takes_nothing_at_all(ctx: MutationCtx) -> None: ...


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (lacks_one, "has no parameter for the declared argument b"),
        (needs_both, "has no default and no declared argument"),
        (names_one, r"has no `\*\*rest`"),
        (takes_a_text, r"got a string as args=, expected an object, a union of objects or v\.any\(\)"),
        (takes_nothing_at_all, "expected an object"),
    ],
)
async def test_a_handler_that_does_not_take_what_is_declared_does_not_load(function: Any, problem: str) -> None:
    with pytest.raises(LoadError, match=problem):
        async with harness(function=function):
            pass


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda q: q.with_index("by_v", v=1),
            'with_index: got v=1, expected a function of the range: .with_index("by_status", lambda q: q.eq("status",',
        ),
        (lambda q: q.with_index(), "with_index: missing a required argument: 'name', expected a function of the range"),
        (
            lambda q: q.count(status="x"),
            "count: got status='x', expected what to count before it: .with_index(\"by_status\", lambda q: q.eq(",
        ),
        (lambda q: q.paginate(numItems=3), "paginate: got numItems=3, expected .paginate(num_items=…, cursor=…)"),
        (lambda q: q.paginate(limit=3), "paginate: got limit=3, expected .paginate(num_items=…, cursor=…)"),
        (lambda q: q.paginate(None, 3), "paginate: too many positional arguments, expected .paginate(num_items=…,"),
        (lambda q: q.order(), "order: missing a required argument: 'direction', expected .order(\"asc\") or"),
        (lambda q: q.order(by="v"), 'order: got by=\'v\', expected .order("asc") or .order("desc"), of the index'),
    ],
)
async def test_a_step_of_a_query_with_arguments_that_it_does_not_have_says_what_to_write(
    call: Any, message: str
) -> None:
    async def asks(ctx: QueryCtx) -> None:
        with pytest.raises(QueryError, match=re.escape(message)):
            call(ctx.db.query("notes"))

    async with Harness({}) as t:
        await t.transaction(asks)
