"""The official clients log users in: with tokens that they refresh, and with ones that are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import test_python
from tests.clients.node import Client
from tests.clients.server import Server
from tests.clients.tokens import ONE, TOKENS, backend_that_trusts
from tests.server.signing import ISSUER, NOW, custom, oidc

pytestmark = pytest.mark.slow

MINE = "https://me.example"
ADA = {"issuer": ISSUER, "subject": "ada", "tokenIdentifier": f"{ISSUER}|ada"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, backend=backend_that_trusts(tmp_path, oidc(ONE), custom(ONE, issuer=MINE))) as started:
        yield started


def test_a_javascript_client_refreshes_its_token_before_it_expires(client: Client, server: Server) -> None:
    script = """
    const options = { unsavedChangesWarning: false, authRefreshTokenLeewaySeconds: 2 };
    const c = new ConvexClient(address, options), seen = changesOf(c, api.messages.me, {}), changes = [];
    c.setAuth(async () => token(3), (isIn) => changes.push(isIn));
    await happens(() => made === 4);  // the first one, a fresh one at once, and then one a second
    await c.mutation(api.messages.send, { body: "x" });
    print(seen);
    print(changes.every((isIn) => isIn));
    print(c.connectionState().connectionCount);
    c.client.clearAuth();
    await until(c, api.messages.me, {}, (user) => user === null);
    print(seen.length);
    await c.close();
    """
    assert client.run(server.address, TOKENS + script) == [[ADA], True, 1, 2]


def test_a_javascript_client_whose_token_is_refused_goes_on_without_one(client: Client, server: Server) -> None:
    script = """
    const c = client(), changes = [];
    c.setAuth(async () => token(60, { aud: "other" }), (isIn) => changes.push(isIn));
    await happens(() => changes.length > 0);
    print(changes);
    print(await c.mutation(api.messages.send, { body: "x" }));
    print(await c.query(api.messages.me, {}));
    await c.close();
    """
    assert client.run(server.address, TOKENS + script) == [[False], "x", None]


def test_the_javascript_client_for_http(client: Client, server: Server) -> None:
    script = f"""
    const http = new ConvexHttpClient(address);
    http.setAuth(token(60, {{ iss: "{MINE}", email: "ada@shop.example" }}));
    print(await http.query(api.messages.me, {{}}));
    http.setAuth(token(-60));
    print(JSON.parse((await failure(http.query(api.messages.me, {{}}))).message).code);
    http.clearAuth();
    print(await http.query(api.messages.me, {{}}));
    """
    mine = {**ADA, "issuer": MINE, "tokenIdentifier": f"{MINE}|ada", "email": "ada@shop.example"}
    assert client.run(server.address, TOKENS + script) == [mine, "TokenExpired", None]


def test_the_python_clients(server: Server) -> None:
    source = f"""
token = {ONE.token(exp=NOW + 100 * 365 * 86_400)!r}
client = ConvexClient(address)
users = client.subscribe("messages:me")
show(next(users))
client.set_auth(token)
show(next(users))
show(client.query("messages:me"))
http = ConvexHttpClient(address)
http.set_auth(token)
show(http.query("messages:me"))
http.set_auth(token + "AAAA")
show(failure(http.query, "messages:me")["message"].partition(":")[0])
"""
    assert test_python.run(server.address, source) == [None, ADA, ADA, ADA, "401 Unauthenticated"]
