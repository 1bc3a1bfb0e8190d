"""`providers` of `auth.py`: what is understood, and what is wrong with the others."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest

from duly import LoadError, QueryCtx, query
from duly.declare.auth import Provider, is_safe_url, providers_of
from duly.declare.registry import Registry
from duly.testing import Harness

JWKS = {"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "one"}]}
TEXT = '{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA","kid":"one"}]}'
OIDC = {"domain": "https://login.example", "application_id": "shop"}
CUSTOM = {"type": "customJwt", "issuer": "https://me.example", "jwks": JWKS, "algorithm": "ES256"}
ANY = ("RS256", "ES256", "EdDSA")


def read(*entries: Any) -> tuple[Provider, ...]:
    return providers_of({"auth": SimpleNamespace(providers=list(entries))})


def problem(providers: Any) -> str:
    with pytest.raises(LoadError) as wrong:
        providers_of({"auth": SimpleNamespace(providers=providers)})
    return str(wrong.value)


def test_both_kinds_of_providers_are_understood() -> None:
    assert read(
        OIDC,
        {**OIDC, "jwks": JWKS},
        CUSTOM,
        {**CUSTOM, "application_id": "shop", "algorithm": "EdDSA", "jwks": "https://me.example/keys"},
        {"domain": "http://localhost:8080", "applicationID": "shop"},
        {"domain": "tenant.auth0.com", "applicationID": "shop"},
        {**CUSTOM, "issuer": "my-backend", "jwks": "http://127.0.0.1:1/keys"},
    ) == (
        Provider("https://login.example", "shop", ANY, True),
        Provider("https://login.example", "shop", ANY, True, None, TEXT),
        Provider("https://me.example", None, ("ES256",), False, None, TEXT),
        Provider("https://me.example", "shop", ("EdDSA",), False, "https://me.example/keys"),
        Provider("http://localhost:8080", "shop", ANY, True),
        Provider("https://tenant.auth0.com", "shop", ANY, True),
        Provider("my-backend", None, ("ES256",), False, "http://127.0.0.1:1/keys"),
    )


@pytest.mark.parametrize(
    "url",
    [
        f"data:application/json,{quote(TEXT)}",
        f"data:text/plain;charset=utf-8;base64,{base64.b64encode(TEXT.encode()).decode()}",
        f"data:,{TEXT}",
    ],
)
def test_keys_may_be_in_a_data_url(url: str) -> None:
    assert read({**CUSTOM, "jwks": url}) == read(CUSTOM)


@query
async def mine(ctx: QueryCtx) -> None: ...


async def test_a_module_of_functions_may_have_this_name() -> None:
    async with Harness({"auth": SimpleNamespace(mine=mine)}) as t:
        assert await t.query("auth:mine") is None
        assert t.app.runner.registry.providers == ()
    assert Registry({"auth": SimpleNamespace(providers=mine)}).providers == ()
    assert Registry({"admin/auth": SimpleNamespace(providers=[3])}).providers == ()


async def test_a_module_may_have_functions_and_providers_and_a_reload_reads_both() -> None:
    auth = SimpleNamespace(mine=mine, providers=[OIDC])
    async with Harness({"auth": auth}) as t:
        assert await t.query("auth:mine") is None
        auth.providers = [CUSTOM]
        await t.app.reload()
        assert t.app.runner.registry.providers == read(CUSTOM)
        auth.providers = [{}]
        with pytest.raises(LoadError):
            await t.app.reload()
        assert t.app.runner.registry.providers == read(CUSTOM)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("https://login.example", "got 'https://login.example' (str), expected a dict"),
        ({}, "got no 'domain', expected 'domain', 'application_id'"),
        ({"domain": "https://x.example"}, "got no 'application_id', expected 'domain', 'application_id'"),
        ({**OIDC, "aplication_id": 1}, "got the key 'aplication_id'; did you mean 'application_id'?"),
        ({**OIDC, "clientID": "x"}, "got the key 'clientID'; expected 'domain', 'application_id', 'jwks'"),
        ({**OIDC, 7: 1}, "got the key 7; expected 'domain', 'application_id', 'jwks'"),
        (
            {"issuer": "x", "jwks": JWKS, "algorithm": "ES256"},
            "got the key 'issuer'; expected 'domain', 'application_id', 'jwks'; an entry with an issuer of its own has"
            ' "type": "customJwt"',
        ),
        (
            {**CUSTOM, "type": "jwt"},
            "got 'jwt' (str) for 'type', expected \"customJwt\", or no type for a provider with OpenID Connect",
        ),
        (
            {"type": "customJwt", "issuer": "x"},
            "got no 'jwks', expected 'type', 'issuer', 'jwks', 'algorithm'",
        ),
        ({**CUSTOM, "algoritm": "x"}, "got the key 'algoritm'; did you mean 'algorithm'?"),
        ({**OIDC, "application_id": 7}, "got 7 (int) for 'application_id', expected a text that is not empty"),
        ({**OIDC, "application_id": " "}, "got ' ' (str) for 'application_id', expected a text that is not empty"),
        (
            {**CUSTOM, "application_id": None},
            "got None (NoneType) for 'application_id', expected a text that is not empty",
        ),
        (
            {**CUSTOM, "algorithm": "HS256"},
            "got 'HS256' (str) for 'algorithm', expected RS256, ES256 or EdDSA: with a shared secret, whoever checks"
            " tokens can also make them",
        ),
        (
            {**CUSTOM, "algorithm": "none"},
            "got 'none' (str) for 'algorithm', expected RS256, ES256 or EdDSA: anybody makes tokens that nobody has signed",
        ),
        ({**CUSTOM, "algorithm": "RS512"}, "got 'RS512' (str) for 'algorithm', expected RS256, ES256 or EdDSA"),
        (
            {**OIDC, "domain": "http://login.example"},
            "got 'http://login.example' (str) for 'domain', expected an address that begins with https://"
            " (or http://localhost, in development)",
        ),
        (
            {**CUSTOM, "jwks": "keys.json"},
            "got 'keys.json' (str) for 'jwks', expected an address that begins with https://"
            " (or http://localhost, in development)",
        ),
        (
            {**CUSTOM, "jwks": JWKS["keys"]},
            'got \'jwks\' of another form (list), expected {"keys": [{"kty": …, …}, …]}, or a URL of that:'
            " https://… or data:…",
        ),
        (
            {**CUSTOM, "jwks": "data:application/json,nonsense"},
            'got \'jwks\' of another form (str), expected {"keys": [{"kty": …, …}, …]}, or a URL of that:'
            " https://… or data:…",
        ),
        (
            {**CUSTOM, "algorithm": "RS256"},
            "got no key in 'jwks' for RS256, expected one with the kty RSA",
        ),
        (
            {**OIDC, "jwks": {"keys": []}},
            "got no key in 'jwks' for RS256 or ES256 or EdDSA, expected one with the kty EC, OKP, RSA",
        ),
        (
            {**CUSTOM, "jwks": {"keys": [{**JWKS["keys"][0], "x": b"AA"}]}},
            "got 'jwks' that is no JSON: Type is not JSON serializable: bytes",
        ),
    ],
    ids=str,
)
def test_a_wrong_entry_does_not_load(entry: Any, message: str) -> None:
    assert problem([OIDC, entry]) == f"auth: providers[1]: {message}"


@pytest.mark.parametrize("key", [{"kty": "oct", "k": "c2VjcmV0"}, {**JWKS["keys"][0], "d": "c2VjcmV0"}])
@pytest.mark.parametrize("form", [dict, lambda jwks: f"data:,{quote(json.dumps(jwks))}"])
def test_a_secret_key_does_not_load_and_is_not_shown(key: dict[str, str], form: Any) -> None:
    message = problem([{**CUSTOM, "jwks": form({"keys": [*JWKS["keys"], key]})}])
    assert message == (
        "auth: providers[0]: got a secret key in 'jwks', expected public keys: to check tokens takes no other"
    )


@pytest.mark.parametrize("providers", [OIDC, "https://login.example", 7])
def test_providers_are_a_list(providers: Any) -> None:
    assert problem(providers) == f"auth: got {providers!r:.80} as `providers`, expected a list of dicts"


def test_without_joserfc_an_application_with_providers_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duly.declare.auth.find_spec", lambda name: None)
    assert problem([OIDC]) == (
        'auth: got `providers`, expected joserfc too, which checks tokens; run pip install "duly[auth]"'
    )
    assert providers_of({"auth": SimpleNamespace(providers=[])}) == ()


@pytest.mark.parametrize(
    ("url", "is_safe"),
    [
        ("https://login.example/keys", True),
        ("https://login.example:8443", True),
        ("http://localhost", True),
        ("http://127.0.0.1:1/x", True),
        ("http://[::1]:1/x", True),
        ("http://login.example", False),
        ("http://localhost.evil.example", False),
        ("http://localhost@evil.example", False),
        ("http://evil.example\\@localhost", False),
        ("https://ada:secret@login.example", False),
        ("https://", False),
        ("https://login.example:port", False),
        ("https://[", False),
        ("file:///etc/passwd", False),
        ("ftp://login.example", False),
        ("//login.example", False),
        ("", False),
    ],
)
def test_keys_come_by_a_way_on_which_nobody_replaces_them(url: str, is_safe: bool) -> None:
    assert is_safe_url(url) is is_safe
