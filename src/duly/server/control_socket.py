"""The control socket: `duly run` calls functions through it while `duly dev` owns the store.

It is a Unix socket next to the store. A request is one line of JSON, `{"function": …, "args": {…}}`; the answer is one
line, `{"value": …}` or `{"error": …}`. A user who may write to the folder of the store is trusted, as on the command
line. The file of the socket, `<path>-door`, and the logger keep the older name.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, cast

from duly.errors import DulyError, FunctionNotFoundError
from duly.limits import CALL_NOTICE_SECONDS, DEFAULTS, OF_ANY_SIZE
from duly.logs import log_of
from duly.run.failure import describe
from duly.server.host import Host
from duly.storage.sqlite.ownership import owner_of
from duly.values.json import dumps, loads

_log: Final = log_of("duly.door")
_LINE_BYTES_MAX: Final = 2 * DEFAULTS.arguments_bytes_max + 4096  # bytes are base64 here: a third longer


@asynccontextmanager
async def serve(app: Host, store: str) -> AsyncGenerator[None]:
    """Answer calls of an app's functions while the context lasts."""
    path = _socket_path(store)
    with suppress(FileNotFoundError):
        os.unlink(path)  # no other process serves it: this one has the lock of the store
    try:
        server = await asyncio.start_unix_server(lambda r, w: _serve_connection(app, r, w), path, limit=_LINE_BYTES_MAX)
    except OSError as error:
        _log.warning("%s: there is no control socket for `duly run`: %s", path, error)
        yield
        return
    os.chmod(path, 0o600)
    try:
        yield
    finally:
        server.close()
        with suppress(FileNotFoundError):
            os.unlink(path)


def _socket_path(store_path: str) -> str:
    """Return the path of the control socket of a store."""
    path = f"{os.path.realpath(store_path)}-door"
    # A path of a socket has at most about 100 characters. The relative one may be shorter.
    return min(path, os.path.relpath(path), key=len)


async def _serve_connection(app: Host, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while line := await reader.readline():
            writer.write((await _answer(app, line)).encode() + b"\n")
            await writer.drain()
    except (ConnectionError, ValueError, asyncio.CancelledError):
        pass  # the caller closed it or sent a line without end, or this process ends: asyncio would print a traceback
    finally:
        writer.close()


async def _answer(app: Host, line: bytes) -> str:
    try:
        request = loads(line.decode())
        _check_known(app, request["function"])
        # The object is not built by `dumps`: one level deeper, the deepest of values would exceed the limit.
        return f'{{"value":{dumps(await app.run(request["function"], request["args"]), OF_ANY_SIZE)}}}'
    except Exception as error:
        return dumps({"error": describe(error).encode("utf-8", "replace").decode()})


def _check_known(app: Host, function: str) -> None:
    """Log a call of an unknown function. Every other refused call is a run, and runs are logged anyway."""
    try:
        app.runner.registry.find(function)
    except FunctionNotFoundError as error:
        _log.warning("refused a call: %s", error)
        raise


class RemoteError(DulyError):
    """A call through the socket failed. The message is that of the owner."""


class NotServedError(DulyError):
    """No app serves the socket. The function was not called."""


def call(store: str, function: str, args: str, on_wait: Callable[[int | None], None]) -> Any:
    """Call a function of the app that owns a store, with arguments in JSON.

    `on_wait` is called with the process id of the owner, in another thread, if there is no answer for a while. Raises
    NotServedError if the function was not called; RemoteError if it failed, or if its outcome is unknown.
    """
    timer = threading.Timer(CALL_NOTICE_SECONDS, lambda: on_wait(owner_of(os.path.realpath(store))))
    timer.daemon = True
    timer.start()
    try:
        return _call(store, function, args)
    finally:
        timer.cancel()


def _call(store: str, function: str, args: str) -> Any:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(_socket_path(store))
        except OSError as error:
            raise NotServedError(str(error)) from error
        try:
            connection.sendall(f'{{"function":{dumps(function)},"args":{args}}}\n'.encode())
            answer = cast("dict[str, Any]", loads(_line(connection)))
        except OSError as error:
            raise RemoteError(
                f"{function}: the owner of the store ended before it answered ({error}); what became"
                " of the call is unknown"
            ) from error
    if "error" in answer:
        raise RemoteError(answer["error"])
    return answer["value"]


def _line(connection: socket.socket) -> str:
    with connection.makefile("rb") as file:
        line = file.readline()
    if not line:
        raise ConnectionError("the owner of the store closed the control socket")
    return line.decode()
