"""`app.asgi` as a part of another application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
from fastapi import FastAPI
from websockets.asyncio.client import connect

from duly import App, QueryCtx, query
from duly.server.listen import listening
from tests.server.support import Socket
from tests.support import app_of


@query
async def hello(ctx: QueryCtx) -> str:
    return "hello"


async def test_a_fastapi_application_serves_clients_beside_its_own_routes(tmp_path: Path) -> None:
    app = App(app_of(hello), f"sqlite:///{tmp_path}/data.db")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with app:
            yield

    api = FastAPI(lifespan=lifespan)

    @api.get("/own")
    async def own() -> str:
        return await app.query("app:hello")

    api.mount("/", app.asgi)
    async with api.router.lifespan_context(api), listening(api, "127.0.0.1", [0]) as address:
        async with httpx2.AsyncClient(base_url=address) as http:
            assert (await http.get("/own")).json() == "hello"
            assert (await http.post("/api/query", json={"path": "app:hello"})).json()["value"] == "hello"
        async with connect(address.replace("http", "ws") + "/api/sync") as connection:
            socket = Socket(connection)
            await socket.hello()
            await socket.add(0, "app:hello")
            assert await socket.transition() == {0: "hello"}


async def test_a_mount_below_a_path_works_for_http_and_javascript(tmp_path: Path) -> None:
    async with App(app_of(hello), f"sqlite:///{tmp_path}/data.db") as app:
        api = FastAPI()
        api.mount("/live", app.asgi)
        async with listening(api, "127.0.0.1", [0]) as address:
            async with httpx2.AsyncClient(base_url=address) as http:
                assert (await http.post("/live/api/query", json={"path": "app:hello"})).json()["value"] == "hello"
            for path in ("/live/api/1.48.0/sync", "/live//api/1.48.0/sync"):
                async with connect(address.replace("http", "ws") + path) as connection:
                    socket = Socket(connection)
                    await socket.hello()
                    await socket.add(0, "app:hello")
                    assert await socket.transition() == {0: "hello"}
