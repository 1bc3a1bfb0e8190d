"""A client that speaks the protocol itself, for what the official ones never send and never show."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx2
from websockets.asyncio.client import ClientConnection, connect

from duly.app import App
from duly.server.listen import listening
from duly.sync.convex_json import decode_ts


class Socket:
    """One WebSocket."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.query_set = 0

    async def send(self, type: str, **fields: Any) -> None:
        await self.connection.send(json.dumps({"type": type, **fields}))

    async def hello(self, session: str | None = None, **fields: Any) -> None:
        fields = {"connectionCount": 0, "lastCloseReason": None, "clientTs": 0, **fields}
        await self.send("Connect", sessionId=session or str(uuid4()), **fields)

    async def modify(self, *modifications: dict[str, Any]) -> None:
        base, self.query_set = self.query_set, self.query_set + 1
        await self.send("ModifyQuerySet", baseVersion=base, newVersion=self.query_set, modifications=modifications)

    async def add(self, query_id: int, path: str, args: Any = None, **fields: Any) -> None:
        await self.modify({"type": "Add", "queryId": query_id, "udfPath": path, "args": [args or {}], **fields})

    async def mutate(self, request_id: int, path: str, **args: Any) -> None:
        await self.send("Mutation", requestId=request_id, udfPath=path, args=[args])

    async def next(self) -> Any:
        async with asyncio.timeout(20):
            return json.loads(await self.connection.recv())

    async def transition(self) -> dict[int, Any]:
        """The next message, which must be a Transition: its values and errors by query."""
        message = await self.next()
        assert message["type"] == "Transition", message
        self.ts = decode_ts(message["endVersion"]["ts"])
        return {
            one["queryId"]: one.get("value", one.get("errorMessage", "removed")) for one in message["modifications"]
        }

    async def closed(self) -> tuple[int, str]:
        """The code and the reason with which the server closes it."""
        async with asyncio.timeout(20):
            await self.connection.wait_closed()
        assert self.connection.close_code is not None
        return self.connection.close_code, self.connection.close_reason or ""


class Client:
    """A client of one app, over HTTP and WebSockets."""

    def __init__(self, app: App, address: str) -> None:
        self.app, self.address = app, address
        self.http = httpx2.AsyncClient(base_url=address)

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        """The status and the JSON of an answer."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = await self.http.post(path, content=content, headers=headers)
        return response.status_code, response.json()

    @asynccontextmanager
    async def socket(self, path: str = "/api/1.48.0/sync") -> AsyncGenerator[Socket]:
        async with connect(self.address.replace("http", "ws") + path, max_size=None) as connection:
            yield Socket(connection)


@asynccontextmanager
async def client_of(app: App) -> AsyncGenerator[Client]:
    """Serve an open app on any port."""
    async with listening(app.asgi, "127.0.0.1", [0]) as address:
        client = Client(app, address)
        try:
            yield client
        finally:
            await client.http.aclose()
