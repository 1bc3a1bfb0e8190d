"""A TCP port on which an app is served."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncGenerator, Generator, Iterable, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final, NamedTuple

import uvicorn

from duly.errors import DulyError
from duly.limits import MESSAGE_BYTES_MAX
from duly.server.protocols import HttpConnection, WebSocketConnection


class ListenError(DulyError):
    """There is no port to listen on, or no certificate to listen with."""


class Transport(NamedTuple):
    """What is between the clients and a server."""

    certificate: str | None = None
    """A file of PEM. None: the server speaks plain HTTP."""
    key: str | None = None
    """A file of PEM; None if the key is in that of the certificate."""
    has_proxy: bool = False
    """Whether a proxy tells the addresses and the scheme of the clients."""
    proxies: str | None = None
    """The addresses of proxies that are believed, separated by commas, or `*`; None for the default of uvicorn."""


PLAIN: Final = Transport()


@asynccontextmanager
async def listening(
    application: Any,
    host: str,
    ports: Iterable[int],
    transport: Transport = PLAIN,
) -> AsyncGenerator[str]:
    """Serve an ASGI application on the first free port while the context lasts. Yields its address.

    At the end, clients are told that the server goes away, so that they reconnect, and requests may end. Raises
    ListenError if no port is free, or if the certificate cannot be used.
    """
    config = _config(application, transport)
    listener = _listener(host, list(ports))
    server = _Server(config)
    serving = asyncio.get_running_loop().create_task(server.serve([listener]))
    try:
        scheme = "http" if transport.certificate is None else "https"
        yield f"{scheme}://{_place(host, listener.getsockname()[1])}"
    finally:
        server.should_exit = True
        with suppress(asyncio.CancelledError):
            await serving
        listener.close()


def _config(application: Any, transport: Transport) -> uvicorn.Config:
    config = uvicorn.Config(
        application,
        log_config=None,
        access_log=False,
        lifespan="off",
        http=HttpConnection,
        ws=WebSocketConnection,
        ws_max_size=MESSAGE_BYTES_MAX,
        ws_per_message_deflate=False,  # it would take tens of KB for each client
        ws_ping_interval=20.0,
        ws_ping_timeout=120.0,
        timeout_graceful_shutdown=5,
        server_header=False,
        ssl_certfile=transport.certificate,
        ssl_keyfile=transport.key,
        proxy_headers=transport.has_proxy,
        forwarded_allow_ips=transport.proxies,
    )
    try:
        config.load()
    except OSError as error:  # as errors of TLS are
        files = " and ".join(filter(None, (transport.certificate, transport.key)))
        raise ListenError(f"got {files}, expected a certificate and its key as PEM ({error})") from error
    return config


def _listener(host: str, ports: Sequence[int]) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in ports:
        try:
            return socket.create_server((host, port), family=family, backlog=2_048)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or port == ports[-1]:
                raise ListenError(f"got {_place(host, port)}, on which nothing can listen {_why(error)}") from error
    raise ListenError("got no port to listen on")


def _why(error: OSError) -> str:
    number = error.errno or 0
    if number < 0 or number in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):  # below 0: the name of the host is unknown
        return "(no address of this machine); name another host: --host HOST"
    return f"({os.strerror(number)}); name another port: --port PORT"


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to the program."""
        yield
