"""What docs/deploying.md promises: one program, started twice on one store, of which one dies."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from duly import App
from tests.nodes.serializable import connect

SHOP: Final = Path(__file__).parents[2] / "examples" / "orders"
PATIENCE: Final = 60.0
ITEMS: Final = [f"tea no. {number}" for number in range(2_000)]
ADA: Final = "ada@example.com"

Process = asyncio.subprocess.Process


@asynccontextmanager
async def node(store: str) -> AsyncGenerator[Process]:
    """A node, once it works."""
    environment = {**os.environ, "DULY_STORE": store}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SHOP / "node.py"), env=environment, stdout=pipe, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout
    said: list[bytes] = []
    try:
        async with asyncio.timeout(PATIENCE):
            while b"this node works" not in b"".join(said):
                said.append(await process.stdout.readline())
                assert said[-1], b"".join(said).decode()
        reading = asyncio.create_task(process.stdout.read())  # or it would wait for a reader
        yield process
        if process.returncode is None:
            process.kill()
        await reading
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def seen(app: App, name: str, is_so: Callable[[Any], bool], args: dict[str, Any] | None = None) -> Any:
    async with asyncio.timeout(PATIENCE):
        async for value in app.subscribe(name, args):
            if is_so(value):
                return value
    raise AssertionError("the app was closed")


async def count(app: App) -> None:
    """Have each item counted, once."""
    for first in range(0, len(ITEMS), 1_000):
        await app.mutation("stocktaking:begin", {"items": ITEMS[first : first + 1_000], "minutes_each": 0})


async def test_one_of_two_nodes_is_killed_and_the_other_does_the_rest_once(store_of: Callable[[str], str]) -> None:
    store = store_of("postgres")
    async with node(store) as one, node(store) as other, App(SHOP / "backend", store, executor=False) as client:
        counting = asyncio.create_task(count(client))
        await seen(client, "stocktaking:result", lambda result: result["counted"] > 0)
        one.send_signal(signal.SIGKILL)
        await counting

        result = await seen(client, "stocktaking:result", lambda result: result["counted"] >= len(ITEMS))
        assert result == {"expected": len(ITEMS), "counted": len(ITEMS), "doubled": 0, "missing": 0}

        order = await client.mutation("orders:create_order", {"items": ["tea"], "customer": ADA})
        await seen(client, "orders:get", lambda order: order["status"] == "confirmed", {"order_id": order})
        assert await client.query("emails:sent_to", {"to": ADA}) == ["Your order: tea"]

        other.send_signal(signal.SIGTERM)
        assert await other.wait() == 0


async def test_a_role_that_may_not_make_schemas_uses_one_that_was_made_for_it(store_of: Callable[[str], str]) -> None:
    store = store_of("postgres")
    connection, schema = await connect(store)
    role = f"r{schema}"
    await connection.execute(f"CREATE ROLE {role} LOGIN; CREATE SCHEMA {schema} AUTHORIZATION {role}")
    try:
        parts = urlsplit(store)
        theirs = parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}")
        async with App(SHOP / "backend", theirs.geturl()) as app:
            assert await app.query("orders:overview") == {}
    finally:
        await connection.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")
        await connection.close()


async def test_dev_shows_no_password(store_of: Callable[[str], str]) -> None:
    parts = urlsplit(store_of("postgres"))
    server = parts.netloc.rpartition("@")[2]
    store = parts._replace(netloc=f"{parts.username}:hunter2@{server}").geturl()
    command = (sys.executable, "-u", "-m", "duly", "dev", str(SHOP / "backend"), "--store", store)
    dev = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert dev.stdout
    try:
        line = (await dev.stdout.readline()).decode()
        assert line.endswith(f" on postgresql://{server}{parts.path}?{parts.query}\n")
    finally:
        dev.terminate()
        await dev.communicate()
