"""What stands between clients and a server: TLS, proxies, and the browsers of pages of other origins."""

from __future__ import annotations

import datetime
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from duly import ActionCtx, Limits, QueryCtx, http_router, query
from duly.server.asgi import application
from duly.server.listen import PLAIN, ListenError, Transport, listening
from duly.testing import Harness
from tests.server.support import Client, Socket
from tests.support import app_of, duly


@query
async def hello(ctx: QueryCtx) -> str:
    return "hello"


http = http_router()


@http.route("/caller", methods=["GET"])
async def caller(ctx: ActionCtx, request: Request) -> Response:
    assert request.client is not None
    return PlainTextResponse(f"{request.client.host} {request.url.scheme}")


APP = {**app_of(hello), "http": http}


@asynccontextmanager
async def served(
    transport: Transport = PLAIN, origins: Any = None, **options: Any
) -> AsyncGenerator[tuple[Harness, Client]]:
    async with Harness(APP, **options) as t:
        asgi = application(t.app, allow_origins=origins)
        async with listening(asgi, "127.0.0.1", [0], transport) as address:
            client = Client(t.app, address)
            try:
                yield t, client
            finally:
                await client.http.aclose()


# TLS.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The files of a certificate for 127.0.0.1, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "certificate.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(folder / "certificate.pem"), str(folder / "key.pem")


async def test_a_server_with_a_certificate_speaks_tls(certificate: tuple[str, str]) -> None:
    trusted = ssl.create_default_context(cafile=certificate[0])
    async with served(Transport(*certificate)) as (_, client):
        assert client.address.startswith("https://127.0.0.1:")
        async with httpx2.AsyncClient(base_url=client.address, verify=trusted) as secure:
            assert (await secure.post("/api/query", json={"path": "app:hello"})).json()["value"] == "hello"
            assert (await secure.get("/http/caller")).text == "127.0.0.1 https"
        async with connect(client.address.replace("http", "ws") + "/api/sync", ssl=trusted) as connection:
            socket = Socket(connection)
            await socket.hello()
            await socket.add(0, "app:hello")
            assert await socket.transition() == {0: "hello"}


async def test_a_certificate_that_cannot_be_used_is_named(certificate: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "none.pem").write_text("nothing")
    for files in ((str(tmp_path / "none.pem"), None), (str(tmp_path / "missing.pem"), None), (certificate[0], None)):
        with pytest.raises(ListenError, match=f"^got {files[0]}, expected a certificate and its key as PEM"):
            async with listening(None, "127.0.0.1", [0], Transport(*files)):
                pass


# Proxies.


async def test_the_headers_of_a_proxy_count_only_if_they_are_to_be_believed() -> None:
    forwarded = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
    for transport, caller in (
        (PLAIN, "127.0.0.1 http"),
        (Transport(has_proxy=True), "192.0.2.7 https"),
        (Transport(has_proxy=True, proxies="192.0.2.1, 10.0.0.0/8"), "127.0.0.1 http"),
        (Transport(has_proxy=True, proxies="*"), "192.0.2.7 https"),
    ):
        async with served(transport) as (_, client):
            assert (await client.http.get("/http/caller", headers=forwarded)).text == caller


async def test_clients_behind_a_proxy_are_counted_by_their_own_addresses() -> None:
    async with AsyncExitStack() as stack:
        limits = Limits(sockets_per_address_max=1)
        _, client = await stack.enter_async_context(served(Transport(has_proxy=True), limits=limits))
        sync = client.address.replace("http", "ws") + "/api/sync"
        first, other, second = [
            Socket(await stack.enter_async_context(connect(sync, additional_headers={"X-Forwarded-For": address})))
            for address in ("192.0.2.7", "192.0.2.8", "192.0.2.7")
        ]
        assert await second.closed() == (1013, "TooManyConcurrentRequests")
        for socket in (first, other):
            await socket.hello()
            await socket.add(0, "app:hello")
            assert await socket.transition() == {0: "hello"}


# Origins.


async def test_only_pages_of_the_named_origins_may_call() -> None:
    async with served(origins=["https://shop.example", "http://localhost:5173"]) as (_, client):
        for origin, allowed in (("https://shop.example", True), ("https://other.example", False)):
            asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            assert (await client.http.options("/api/query", headers=asks)).status_code == (200 if allowed else 400)
            answer = await client.http.post("/api/query", json={"path": "app:hello"}, headers={"Origin": origin})
            assert answer.headers.get("access-control-allow-origin") == (origin if allowed else None)
        assert (await client.http.post("/api/query", json={"path": "app:hello"})).json()["value"] == "hello"


async def test_sockets_of_pages_of_other_origins_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    async with served(origins=["https://shop.example"]) as (_, client):
        address = client.address.replace("http", "ws") + "/api/sync"
        with pytest.raises(InvalidStatus, match="403"):
            async with connect(address, origin="https://other.example"):  # type: ignore[arg-type]
                pass
        [warning] = caplog.messages
        assert "refused: its page is of 'https://other.example', expected an origin of --allow-origin" in warning
        for origin in ("https://shop.example", None):
            async with connect(address, origin=origin) as connection:  # type: ignore[arg-type]
                socket = Socket(connection)
                await socket.hello()
                await socket.add(0, "app:hello")
                assert await socket.transition() == {0: "hello"}


async def test_the_environment_names_the_origins_of_an_application_that_is_mounted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DULY_ALLOW_ORIGINS", "https://shop.example, https://desk.example")
    for origins, allowed in ((None, False), (["https://other.example"], True), (["*"], True)):
        async with served(origins=origins) as (_, client):
            answer = await client.http.get("/version", headers={"Origin": "https://other.example"})
            assert ("access-control-allow-origin" in answer.headers) is allowed


@pytest.mark.parametrize("origin", ["shop.example", "https://shop.example/", "HTTPS://shop.example", "https://", ""])
async def test_what_is_no_origin_is_refused(origin: str) -> None:
    async with Harness(APP) as t:
        with pytest.raises(ValueError, match=f"^got the origin '{origin}', expected a scheme, a host"):
            application(t.app, allow_origins=[origin])


# The command line.


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--ssl-keyfile", "key.pem"], "got --ssl-keyfile, which needs --ssl-certfile"),
        (["--forwarded-allow-ips", "*"], "got --forwarded-allow-ips, which needs --proxy-headers"),
        (["--allow-origin", "shop.example"], "got the origin 'shop.example', expected a scheme, a host"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "dev"])
def test_options_that_cannot_be_are_refused(command: str, options: list[str], problem: str, tmp_path: Path) -> None:
    done = duly(tmp_path, command, *options)
    assert (done.returncode, problem in done.stderr) == (2, True)


@pytest.mark.slow
def test_serve_does_not_start_without_its_certificate(tmp_path: Path) -> None:
    (tmp_path / "backend").mkdir()
    command = [sys.executable, "-m", "duly", "serve", "--port", "0", "--ssl-certfile", "nothing.pem"]
    (tmp_path / ".duly").mkdir()
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 1
    assert "Error: ListenError: got nothing.pem, expected a certificate and its key as PEM (" in done.stderr
