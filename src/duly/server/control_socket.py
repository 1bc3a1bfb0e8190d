"""A door for other processes of this user: `duly run` calls functions through it while `duly dev` owns the store.

A Unix socket beside the store. One line of JSON asks, `{"function": …, "args": {…}}`, one line answers,
`{"value": …}` or `{"error": …}`. Whoever may write the store's folder is trusted, as the command line is.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, cast

from duly.app import App
from duly.errors import DulyError, FunctionNotFoundError
from duly.limits import CALL_NOTICE_SECONDS, DEFAULTS, OF_ANY_SIZE
from duly.logs import log_of
from duly.run.failure import describe
from duly.storage.sqlite.ownership import owner_of
from duly.values.json import dumps, loads

_log: Final = log_of("duly.door")
_LINE_BYTES_MAX: Final = 2 * DEFAULTS.arguments_bytes_max + 4096  # in a line, bytes take a third more than they count


@asynccontextmanager
async def serve(app: App, store: str) -> AsyncGenerator[None]:
    """Answer calls for an app while the context lasts."""
    path = _socket_path(store)
    with suppress(FileNotFoundError):
        os.unlink(path)  # the store's lock says that nobody else is behind it
    try:
        server = await asyncio.start_unix_server(lambda r, w: _serve_connection(app, r, w), path, limit=_LINE_BYTES_MAX)
    except OSError as error:
        _log.warning("%s: there is no door for `duly run` here: %s", path, error)
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
    """The path of the door of the store in a file."""
    path = f"{os.path.realpath(store_path)}-door"
    # A socket's path has about 100 characters: beyond, the one from here may be shorter.
    return min(path, os.path.relpath(path), key=len)


async def _serve_connection(app: App, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while line := await reader.readline():
            writer.write((await _answer(app, line)).encode() + b"\n")
            await writer.drain()
    except (ConnectionError, ValueError, asyncio.CancelledError):
        pass  # the caller left, or sent a line without end, or this process ends: asyncio would print a traceback
    finally:
        writer.close()


async def _answer(app: App, line: bytes) -> str:
    try:
        asked = loads(line.decode())
        _check_known(app, asked["function"])
        # Put together by hand: inside another object, the deepest of values would be too deep.
        return f'{{"value":{dumps(await app.run(asked["function"], asked["args"]), OF_ANY_SIZE)}}}'
    except Exception as error:
        return dumps({"error": describe(error).encode("utf-8", "replace").decode()})


def _check_known(app: App, function: str) -> None:
    """What is refused otherwise is a run, which is logged: the owner learns of this one, too."""
    try:
        app.runner.registry.find(function)
    except FunctionNotFoundError as error:
        _log.warning("refused a call: %s", error)
        raise


class RemoteError(DulyError):
    """A call through the door failed; the message is the owner's."""


class NotServedError(DulyError):
    """There is no app behind the door; nothing was asked."""


def call(store: str, function: str, args: str, waits: Callable[[int | None], None]) -> Any:
    """Call a function of the app that owns a store, with arguments in JSON.

    `waits` is called with the process id of the owner, in another thread, when there is no answer for a while.
    NotServedError: nothing was asked. RemoteError: it failed, or nobody knows how it ended.
    """
    timer = threading.Timer(CALL_NOTICE_SECONDS, lambda: waits(owner_of(os.path.realpath(store))))
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
        raise ConnectionError("the owner of the store closed the door")
    return line.decode()
