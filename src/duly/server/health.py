"""Whether a server lives, and whether it does its work: for those who restart processes and route requests."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from duly.errors import StoreError
from duly.limits import READY_LAG_MS, READY_SECONDS
from duly.server.host import Host
from duly.server.http_api import Endpoint


async def alive(request: Request) -> Response:
    """Answer as long as the event loop does. A process that does not answer should be restarted."""
    return PlainTextResponse("ok")


def readiness(host: Host) -> Endpoint:
    """Return an endpoint whose status is 503 while no requests should come here, with the reason."""

    async def ready(request: Request) -> Response:
        problem = await _problem(host)
        return JSONResponse({"ready": problem is None, "problem": problem}, 200 if problem is None else 503)

    return ready


async def _problem(host: Host) -> str | None:
    if not host.is_open:
        return "the app is not open"
    try:
        async with asyncio.timeout(READY_SECONDS):
            backlog = await host.stats()
    except TimeoutError:
        return f"the store has not answered for {READY_SECONDS:g} s"
    except StoreError:
        return "the store is lost, or the app is being closed"
    if backlog.paused_since is None and backlog.lag_ms > READY_LAG_MS:
        return f"due functions have not been started for {backlog.lag_ms / 1000:.0f} s"
    return None
