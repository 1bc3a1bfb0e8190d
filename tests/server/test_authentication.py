"""Who clients are, over HTTP and over WebSockets: users with tokens, and the administrator."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from duly import MutationCtx, QueryCtx, internal_query, mutation, query
from duly.database.transaction import Transaction
from duly.model import admin_key, job_admin
from duly.testing import Harness
from tests.server.signing import APPLICATION, ISSUER, NOW, Signer, custom, oidc
from tests.server.support import Client, Socket, client_of
from tests.support import app_of

pytestmark = pytest.mark.one_engine

ONE = Signer()
MINE = "https://me.example"
ADA = {"tokenIdentifier": f"{ISSUER}|ada", "subject": "ada", "issuer": ISSUER}
BOB = {"tokenIdentifier": f"{ISSUER}|bob", "subject": "bob", "issuer": ISSUER}


@query
async def me(ctx: QueryCtx) -> Any:
    return await ctx.auth.get_user_identity()


@mutation
async def sign(ctx: MutationCtx) -> str | None:
    identity = await ctx.auth.get_user_identity()
    await ctx.db.insert("names", {"name": None if identity is None else identity["subject"]})
    return None if identity is None else identity["subject"]


@query
async def names(ctx: QueryCtx) -> list[str | None]:
    return [row["name"] async for row in ctx.db.query("names")]


@internal_query
async def secret(ctx: QueryCtx) -> str:
    return "internal"


def app(*providers: Any) -> dict[str, Any]:
    return {**app_of(me, sign, names, secret), "auth": SimpleNamespace(providers=list(providers))}


@asynccontextmanager
async def served(*providers: Any, development: bool = False) -> AsyncGenerator[tuple[Harness, Client]]:
    providers = providers or (oidc(ONE), custom(ONE, issuer=MINE))
    async with Harness(app(*providers), development=development) as t, client_of(t.app) as client:
        yield t, client


@pytest.fixture(autouse=True)
def tokens_are_looked_at_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duly.server.outbox.LIVENESS_CHECK_SECONDS", 0.01)


async def call(client: Client, path: str, authorization: str) -> Any:
    """What a function returns; else the status and the code of the error."""
    status, answer = await client.post("/api/query", {"path": path}, Authorization=authorization)
    return answer["value"] if answer.get("status") == "success" else (status, answer.get("code"))


@asynccontextmanager
async def watching(client: Client) -> AsyncGenerator[Socket]:
    """A client that has logged in nobody yet, and watches who it is."""
    async with client.socket() as socket:
        await socket.hello()
        await socket.add(0, "app:me")
        assert await socket.transition() == {0: None}
        yield socket


async def login(socket: Socket, token: str, base: int = 0) -> None:
    await socket.send("Authenticate", baseVersion=base, tokenType="User", value=token)


# Over HTTP.


async def test_a_request_is_of_the_user_whose_token_it_has() -> None:
    async with served() as (_, client):
        assert await call(client, "app:me", f"Bearer {ONE.token()}") == ADA
        assert await call(client, "app:me", f"bearer  {ONE.token(sub='bob')}") == BOB
        mine = await call(client, "app:me", f"Bearer {ONE.token(iss=MINE, email='ada@shop.example')}")
        assert mine == {"tokenIdentifier": f"{MINE}|ada", "subject": "ada", "issuer": MINE, "email": "ada@shop.example"}
        body = {"path": "app:sign", "args": {}}
        assert (await client.post("/api/mutation", body, Authorization=f"Bearer {ONE.token()}"))[1]["value"] == "ada"
        assert await call(client, "app:names", "") == ["ada"]


@pytest.mark.parametrize(
    "path", ["query", "mutation", "action", "function", "run/app/me", "query_batch", "query_at_ts"]
)
async def test_a_request_with_a_bad_token_is_refused(path: str) -> None:
    body = {"path": "app:me", "args": {}, "queries": [], "ts": "AAAAAAAAAAA="}
    async with served() as (_, client):
        for token, code in (
            ("nonsense", "InvalidAuthHeader"),
            (ONE.token(aud="other"), "NoAuthProvider"),
            (ONE.token(exp=NOW - 6), "TokenExpired"),
            (ONE.token({"alg": "none"}), "Unauthenticated"),
        ):
            status, answer = await client.post(f"/api/{path}", body, Authorization=f"Bearer {token}")
            assert (status, answer["code"]) == (401, code)


async def test_a_header_of_another_scheme_is_refused() -> None:
    async with served() as (_, client):
        for header in ("Basic YWRhOng=", "Bearer", "nonsense", ONE.token()):
            assert await call(client, "app:me", header) == (401, "InvalidAuthHeader")


async def test_a_request_after_the_token_has_expired_is_refused() -> None:
    async with served() as (t, client):
        header = f"Bearer {ONE.token(exp=NOW + 60)}"
        await t.advance(64_999)
        assert await call(client, "app:me", header) == ADA
        await t.advance(1)
        assert await call(client, "app:me", header) == (401, "TokenExpired")


async def test_an_application_without_providers_has_no_users() -> None:
    async with Harness(app_of(me)) as t, client_of(t.app) as client:
        _, answer = await client.post("/api/query", {"path": "app:me"}, Authorization=f"Bearer {ONE.token()}")
        assert answer == {
            "code": "NoAuthProvider",
            "message": "No auth provider found matching the given token: this application has no `providers` in auth.py",
        }


async def test_the_error_names_the_providers_in_development_only() -> None:
    for development in (False, True):
        async with served(development=development) as (_, client):
            header = f"Bearer {ONE.token(aud='other')}"
            _, answer = await client.post("/api/query", {"path": "app:me"}, Authorization=header)
            assert (APPLICATION in answer["message"], ISSUER in answer["message"]) == (development, development)


async def test_providers_of_reloaded_code_count_at_once() -> None:
    auth = SimpleNamespace(providers=[oidc(ONE)])
    async with Harness({**app_of(me), "auth": auth}) as t, client_of(t.app) as client:
        assert await call(client, "app:me", f"Bearer {ONE.token()}") == ADA
        auth.providers = [oidc(ONE, application_id="other")]
        await t.app.reload()
        assert await call(client, "app:me", f"Bearer {ONE.token()}") == (401, "NoAuthProvider")
        assert await call(client, "app:me", f"Bearer {ONE.token(aud='other')}") == ADA


# Over WebSockets.


async def test_queries_run_again_whenever_a_client_logs_in_or_out() -> None:
    async with served() as (_, client), watching(client) as socket:
        await login(socket, ONE.token())
        assert await socket.transition() == {0: ADA}
        await login(socket, ONE.token(sub="bob"), 1)
        assert await socket.transition() == {0: BOB}
        await socket.mutate(0, "app:sign")
        assert (await socket.next())["result"] == "bob"
        await socket.transition()
        await socket.send("Authenticate", baseVersion=2, tokenType="None")
        assert await socket.transition() == {0: None}


async def test_a_refreshed_token_changes_no_result() -> None:
    async with served() as (_, client), watching(client) as socket:
        await login(socket, ONE.token())
        assert await socket.transition() == {0: ADA}
        await login(socket, ONE.token(jti="2", iat=NOW + 1), 1)
        message = await socket.next()
        assert (message["endVersion"]["identity"], message["modifications"]) == (2, [])


async def test_what_is_sent_after_a_token_waits_until_the_token_was_checked() -> None:
    async with served() as (t, client), client.socket() as socket:
        await socket.hello()
        await login(socket, ONE.token())
        await socket.mutate(0, "app:sign")
        await login(socket, ONE.token(sub="bob"), 1)
        await socket.mutate(1, "app:sign")
        await socket.send("Authenticate", baseVersion=2, tokenType="None")
        await socket.mutate(2, "app:sign")
        await until_named(t, ["ada", "bob", None])


async def until_named(t: Harness, expected: list[str | None]) -> None:
    async for found in t.subscribe("app:names"):
        if len(found) == len(expected):
            assert found == expected
            return


async def test_a_refused_token_ends_the_connection() -> None:
    async with served() as (_, client), watching(client) as socket:
        await login(socket, ONE.token())
        await socket.transition()
        await login(socket, ONE.token(aud="other"), 1)
        assert await socket.next() == {
            "type": "AuthError",
            "error": "No auth provider found matching the given token",
            "baseVersion": 1,
            "authUpdateAttempted": True,
        }
        assert await socket.closed() == (1000, "AuthError")


async def test_a_connection_ends_when_its_token_expires() -> None:
    async with served() as (t, client), watching(client) as socket:
        await login(socket, ONE.token(exp=NOW + 60))
        assert await socket.transition() == {0: ADA}
        await t.advance(64_999)
        await socket.mutate(0, "app:sign")
        assert (await socket.next())["result"] == "ada"
        await socket.transition()
        await t.advance(1)
        assert await socket.next() == {
            "type": "AuthError",
            "error": "the token has expired",
            "baseVersion": 1,
            "authUpdateAttempted": False,
        }
        assert await socket.closed() == (1000, "AuthError")


async def test_nothing_that_arrives_is_done_under_a_token_that_has_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duly.server.outbox.LIVENESS_CHECK_SECONDS", 60.0)
    async with served() as (t, client), watching(client) as socket:
        await login(socket, ONE.token(exp=NOW + 60))
        await socket.transition()
        await t.advance(65_000)
        await socket.mutate(0, "app:sign")
        assert (await socket.next())["error"] == "the token has expired"
        assert await t.query("app:names") == []


async def test_another_token_takes_the_place_of_one_that_expires() -> None:
    async with served() as (t, client), watching(client) as socket:
        await login(socket, ONE.token(exp=NOW + 60))
        await socket.transition()
        await login(socket, ONE.token(exp=NOW + 120), 1)
        await socket.transition()
        await t.advance(100_000)
        await socket.mutate(0, "app:sign")
        assert (await socket.next())["result"] == "ada"
        await socket.transition()
        await t.advance(25_000)
        assert (await socket.next())["type"] == "AuthError"


async def test_a_client_that_has_logged_out_stays_when_its_token_expires() -> None:
    async with served() as (t, client), watching(client) as socket:
        await login(socket, ONE.token(exp=NOW + 60))
        await socket.transition()
        await socket.send("Authenticate", baseVersion=1, tokenType="None")
        await socket.transition()
        await t.advance(100_000)
        await socket.mutate(0, "app:sign")
        assert (await socket.next())["result"] is None


async def test_a_client_that_has_logged_in_costs_no_task_of_its_own() -> None:
    async with served() as (t, client), watching(client) as socket:
        await login(socket, ONE.token())
        await socket.transition()
        assert not t.app.asgi.state.services._service._tasks  # pyright: ignore


# The administrator.


def admin(key: str, identity: object = None) -> str:
    """The header of an administrator who acts as somebody."""
    return f"Convex {key}" + (f":{base64.b64encode(json.dumps(identity).encode()).decode()}" if identity else "")


async def store_key(t: Harness, key: str | None) -> None:
    async def unit(transaction: Transaction) -> None:
        await admin_key.replace(transaction, None if key is None else admin_key.hash_of(key))

    await job_admin.commit(t.app.database, unit)


async def test_the_key_in_the_store_and_the_one_in_the_environment_both_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DULY_ADMIN_KEY", "environment")
    async with served() as (t, client):
        await store_key(t, "stored")
        for key in ("environment", "stored", "prod:shop|stored"):
            assert await call(client, "app:secret", admin(key)) == "internal"
        for key in (":", "store", "storedx", "STORED", admin_key.hash_of("stored")):
            assert await call(client, "app:secret", admin(key)) == (401, "BadAdminKey")
        await store_key(t, "newer")
        assert await call(client, "app:secret", admin("stored")) == (401, "BadAdminKey")
        await store_key(t, None)
        assert await call(client, "app:secret", admin("newer")) == (401, "BadAdminKey")
        assert await call(client, "app:secret", admin("environment")) == "internal"


@pytest.mark.parametrize(
    ("given", "identity"),
    [
        ({"issuer": ISSUER, "subject": "ada"}, ADA),
        ({"tokenIdentifier": f"{ISSUER}|ada"}, ADA),
        (
            {"tokenIdentifier": f"{ISSUER}|auth0|7", "x": 1},
            {"tokenIdentifier": f"{ISSUER}|auth0|7", "subject": "auth0|7", "issuer": ISSUER, "x": 1},
        ),
        ({**ADA, "email": "ada@shop.example"}, {**ADA, "email": "ada@shop.example"}),
        ({"tokenIdentifier": "ada", "issuer": ISSUER, "subject": "ada"}, {**ADA, "tokenIdentifier": "ada"}),
    ],
    ids=str,
)
async def test_the_administrator_acts_as_anybody(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], identity: dict[str, Any]
) -> None:
    monkeypatch.setenv("DULY_ADMIN_KEY", "key")
    async with served() as (_, client):
        assert await call(client, "app:me", admin("key", given)) == identity
        for name in ("impersonating", "acting_as"):
            async with watching(client) as socket:
                await socket.send("Authenticate", baseVersion=0, tokenType="Admin", value="key", **{name: given})
                assert await socket.transition() == {0: identity}
                await socket.add(1, "app:secret")
                assert await socket.transition() == {1: "internal"}
        assert await call(client, "app:me", admin("key")) is None


@pytest.mark.parametrize(
    "given",
    [
        {"x": 1},
        {"subject": "ada"},
        {"issuer": ISSUER},
        {"issuer": ISSUER, "subject": ""},
        {"issuer": ISSUER, "subject": 7},
        {"tokenIdentifier": "ada"},
        {"tokenIdentifier": 7},
        {"tokenIdentifier": f"{ISSUER}|"},
        {**ADA, "$x": 1},
        {**ADA, "x": json.loads("[" * 300 + "]" * 300)},
    ],
    ids=lambda given: str(given)[:60],
)
async def test_an_identity_of_nobody_in_particular_is_refused(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    monkeypatch.setenv("DULY_ADMIN_KEY", "key")
    async with served() as (_, client), watching(client) as socket:
        assert await call(client, "app:me", admin("key", given)) == (401, "InvalidAuthHeader")
        await socket.send("Authenticate", baseVersion=0, tokenType="Admin", value="key", impersonating=given)
        error = await socket.next()
        assert error["type"] == "AuthError"
        assert error["error"].startswith("got an identity to act as ")


async def test_a_wrong_key_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DULY_ADMIN_KEY", "key")
    async with served() as (_, client), watching(client) as socket:
        await socket.send("Authenticate", baseVersion=0, tokenType="Admin", value="kex")
        assert await socket.next() == {
            "type": "AuthError",
            "error": "got an admin key that is neither the one in DULY_ADMIN_KEY nor the one of `duly admin-key`",
            "baseVersion": 0,
            "authUpdateAttempted": True,
        }
        assert await socket.closed() == (1000, "AuthError")
