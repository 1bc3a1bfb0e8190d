"""A WSGI application over a store, for gunicorn: each request is a call of `tests.storage.owner`'s functions.

The app lives in an event loop in a thread of its own, from the start of a worker to its end. Each worker makes its own
loop: the master imports this module too, and workers that have its loop share the pipe that wakes it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from duly import App
from tests.storage.owner import MODULES

bind = f"unix:{os.environ.get('DULY_TEST_SOCKET')}"
workers = 1
graceful_timeout = 20
worker_tmp_dir = os.environ.get("TMPDIR")

loop: asyncio.AbstractEventLoop
app = App(MODULES, os.environ.get("DULY_TEST_STORE", "sqlite:///app.db"))


def post_worker_init(worker: object) -> None:
    global loop
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    asyncio.run_coroutine_threadsafe(app.__aenter__(), loop).result()


def worker_exit(server: object, worker: object) -> None:
    asyncio.run_coroutine_threadsafe(app.close(), loop).result()


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    name = environ["PATH_INFO"].lstrip("/")
    value = asyncio.run_coroutine_threadsafe(app.run(f"app:{name}"), loop).result()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {value}".encode()]
