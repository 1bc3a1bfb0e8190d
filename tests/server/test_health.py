"""`/healthz` and `/readyz`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from duly import MutationCtx, StoreError, mutation
from duly.testing import Harness
from tests.server.support import Client, client_of
from tests.support import app_of


@mutation
async def schedule(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(timedelta(seconds=1), "app:schedule")


APP = app_of(schedule)


async def ready(client: Client) -> tuple[int, Any]:
    answer = await client.http.get("/readyz")
    return answer.status_code, answer.json()["problem"]


async def test_a_server_is_alive_as_long_as_it_answers() -> None:
    async with Harness(APP) as t, client_of(t.app) as client:
        assert (await client.http.get("/healthz")).text == "ok"
        await t.app.close()
        assert (await client.http.get("/healthz")).text == "ok"


async def test_a_server_is_ready_while_its_app_is_open() -> None:
    async with Harness(APP) as t, client_of(t.app) as client:
        assert await ready(client) == (200, None)
        await t.app.close()
        assert await ready(client) == (503, "the app is not open")


async def test_a_server_is_not_ready_while_due_functions_are_not_started() -> None:
    async with Harness(APP) as t, client_of(t.app) as client:
        await t.mutation("app:schedule")
        t._clock.set(t._clock.now() + 20_000)  # pyright: ignore
        assert await ready(client) == (200, None)
        t._clock.set(t._clock.now() + 20_000)  # pyright: ignore
        assert await ready(client) == (503, "due functions have not been started for 39 s")


async def test_a_pause_is_no_reason_to_route_requests_elsewhere() -> None:
    async with Harness(APP) as t, client_of(t.app) as client:
        await t.mutation("app:schedule")
        await t.app.pause()
        t._clock.set(t._clock.now() + 90_000)  # pyright: ignore
        assert await ready(client) == (200, None)


async def test_a_server_whose_store_is_lost_is_not_ready() -> None:
    async def lost() -> Any:
        raise StoreError("no answer")

    async with Harness(APP) as t, client_of(t.app) as client:
        t.app.stats = lost  # type: ignore[method-assign]
        assert await ready(client) == (503, "the store is lost, or the app is being closed")
