"""Keys that are fetched from identity providers: when, from where, and what becomes of checks meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from duly.clock import ManualClock
from duly.declare.auth import providers_of
from duly.limits import KEYS_BYTES_MAX
from duly.server.auth.identity import IdentityError
from duly.server.auth.tokens import TokenChecker
from tests.server.signing import NOW, Signer, Site, jwks
from tests.support import until

ONE, TWO, THREE = Signer("ES256", "one"), Signer("ES256", "two"), Signer("ES256", "three")
CONFIGURATION = "/.well-known/openid-configuration"
BOTH = [CONFIGURATION, "/keys"]


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        site.has(ONE)
        yield site


class Checks:
    """A server that knows one provider, whose time stands still."""

    def __init__(self, site: Site, **entry: Any) -> None:
        entry = entry or {"domain": site.address, "application_id": "shop"}
        self.providers = providers_of({"auth": SimpleNamespace(providers=[entry])})
        self.clock = ManualClock(NOW * 1000)
        self.checker = TokenChecker(self.clock, names_providers=False)
        self.issuer = site.address

    async def subject(self, signer: Signer, **header: Any) -> str:
        """Whose token it is that a key has signed now; why not, if it is refused."""
        token = signer.token(header, iss=self.issuer, exp=self.clock.now() / 1000 + 60)
        try:
            identity = (await self.checker.check(token, self.providers)).identity
        except IdentityError as error:
            return f"{error.code}: {error}"
        assert identity is not None
        return identity["subject"]

    def wait(self, seconds: float) -> None:
        self.clock.set(self.clock.now() + seconds * 1000)


def unknown(kid: str) -> str:
    return f"Unauthenticated: got a token signed by the key {kid!r}, expected one that its provider has"


def missing(site: Site) -> str:
    return (
        f"Unauthenticated: got a token of {site.address}, but its keys could not be fetched, and are tried again soon"
    )


async def test_keys_are_found_by_discovery_and_kept(site: Site) -> None:
    checks = Checks(site)
    assert [await checks.subject(ONE) for _ in range(3)] == ["ada"] * 3
    assert site.requests == BOTH


async def test_keys_are_fetched_from_the_address_that_is_given(site: Site) -> None:
    custom = {"type": "customJwt", "issuer": site.address, "algorithm": "ES256"}
    for entry in (custom, {"domain": site.address, "application_id": "shop"}):
        site.requests.clear()
        assert await Checks(site, **entry, jwks=f"{site.address}/keys").subject(ONE) == "ada"
        assert site.requests == ["/keys"]


async def test_a_new_key_is_known_as_soon_as_a_token_has_it(site: Site) -> None:
    checks = Checks(site)
    assert await checks.subject(ONE) == "ada"
    site.has(ONE, TWO)
    checks.wait(60)
    assert [await checks.subject(TWO), await checks.subject(ONE)] == ["ada", "ada"]
    assert site.requests == BOTH * 2


async def test_unknown_keys_cause_one_fetch_a_minute(site: Site) -> None:
    checks = Checks(site)
    assert await checks.subject(ONE) == "ada"
    for kid in ("a", "b", "c"):
        assert await checks.subject(TWO, kid=kid) == unknown(kid)
    assert site.requests == BOTH
    checks.wait(59.9)
    assert await checks.subject(TWO) == unknown("two")
    assert site.requests == BOTH
    checks.wait(0.1)
    for _ in range(3):
        assert await checks.subject(TWO) == unknown("two")
    assert site.requests == BOTH * 2


async def test_a_withdrawn_key_is_refused_within_an_hour(site: Site) -> None:
    checks = Checks(site)
    assert await checks.subject(ONE) == "ada"
    site.has(TWO)
    checks.wait(3_599)
    assert await checks.subject(ONE) == "ada"
    checks.wait(1)
    assert await checks.subject(ONE) == unknown("one")
    assert await checks.subject(TWO) == "ada"
    assert site.requests == BOTH * 2


async def test_checks_at_one_time_share_a_fetch(site: Site) -> None:
    checks = Checks(site)
    site.waits.clear()
    waiting = [asyncio.create_task(checks.subject(ONE)) for _ in range(20)]
    await until(lambda: bool(site.requests))
    waiting[0].cancel()  # one that gives up takes nothing from the others
    await asyncio.sleep(0)
    site.waits.set()
    assert await asyncio.gather(*waiting[1:]) == ["ada"] * 19
    assert site.requests == BOTH


async def test_while_a_provider_is_down_its_old_keys_stay(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    checks = Checks(site)
    assert await checks.subject(ONE) == "ada"
    site.show(CONFIGURATION, {}, 503)
    checks.wait(7_200)
    assert [await checks.subject(ONE), await checks.subject(ONE)] == ["ada", "ada"]
    assert await checks.subject(TWO) == unknown("two")
    assert site.requests == [*BOTH, CONFIGURATION]
    [warning] = caplog.records
    assert (warning.name, warning.levelno) == ("duly.server", logging.WARNING)
    assert warning.getMessage() == (
        f"the keys of {site.address} could not be fetched, so the keys from before stay: got the status 503 at"
        f" {site.address}{CONFIGURATION}"
    )
    site.has(TWO)
    checks.wait(60)
    assert [await checks.subject(TWO), await checks.subject(ONE)] == ["ada", unknown("one")]


async def test_without_any_keys_nobody_logs_in_until_the_provider_is_back(site: Site) -> None:
    checks = Checks(site)
    site.show("/keys", {}, 500)
    assert [await checks.subject(ONE) for _ in range(3)] == [missing(site)] * 3
    assert site.requests == BOTH
    site.has(ONE)
    checks.wait(4.9)
    assert await checks.subject(ONE) == missing(site)
    checks.wait(0.1)
    assert await checks.subject(ONE) == "ada"


async def test_a_provider_that_nothing_answers_for_is_down(site: Site) -> None:
    custom = {"type": "customJwt", "issuer": site.address, "algorithm": "ES256", "jwks": "http://127.0.0.1:1/keys"}
    assert await Checks(site, **custom).subject(ONE) == missing(site)


async def test_a_provider_that_does_not_answer_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duly.server.auth.key_sets.KEYS_SECONDS_MAX", 0.05)
    site.waits.clear()
    assert await Checks(site).subject(ONE) == missing(site)


async def test_a_clock_that_was_set_back_does_not_keep_keys_for_ever(site: Site) -> None:
    checks = Checks(site)
    assert await checks.subject(ONE) == "ada"
    checks.clock._now -= 86_400_000  # pyright: ignore[reportPrivateUsage]
    assert await checks.subject(ONE) == "ada"
    assert site.requests == BOTH * 2


@pytest.mark.parametrize(
    ("path", "answer", "why"),
    [
        (CONFIGURATION, b"<html>", "unexpected character"),
        (CONFIGURATION, [], "got the issuer None"),
        (CONFIGURATION, {"issuer": "https://evil.example", "jwks_uri": "x"}, "got the issuer 'https://evil.example'"),
        ("/keys", b"[", "unexpected end"),
        ("/keys", [], "got [], expected a JWK Set"),
        ("/keys", {"keys": []}, "got a JWK Set without a key for RS256, ES256, EdDSA"),
        ("/keys", {"keys": [{"kty": "oct", "k": "AAAA"}]}, "got a JWK Set without a key"),
        ("/keys", b" " * (KEYS_BYTES_MAX + 1), "got more than 1,048,576 bytes"),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_an_answer_that_is_none_counts_as_a_failure(
    site: Site, caplog: pytest.LogCaptureFixture, path: str, answer: object, why: str
) -> None:
    site.show(path, answer)
    assert await Checks(site).subject(ONE) == missing(site)
    [warning] = caplog.records
    assert why in warning.getMessage()


@pytest.mark.parametrize(
    "address", ["http://login.example/keys", "file:///etc/hosts", "ftp://127.0.0.1/keys", "/keys", "data:,{}", 7]
)
async def test_keys_are_fetched_from_safe_addresses_only(
    site: Site, caplog: pytest.LogCaptureFixture, address: object
) -> None:
    site.show(CONFIGURATION, {"issuer": site.address, "jwks_uri": address})
    assert await Checks(site).subject(ONE) == missing(site)
    [warning] = caplog.records
    assert "got the address" in warning.getMessage() or "got the jwks_uri" in warning.getMessage()
    assert site.requests == [CONFIGURATION]


@pytest.mark.parametrize(
    ("to", "why"),
    [
        ("http://login.example/keys", "got a redirect"),
        ("https://login.example/keys", "got a redirect"),  # a certificate would say nothing of the first address
        ("file:///etc/hosts", "got the status 302"),
    ],
)
async def test_a_redirect_leads_to_no_other_scheme(
    site: Site, caplog: pytest.LogCaptureFixture, to: str, why: str
) -> None:
    site.show("/keys", b"", 302, Location=to)
    assert await Checks(site).subject(ONE) == missing(site)
    [warning] = caplog.records
    assert why in warning.getMessage()


async def test_a_redirect_to_another_path_is_followed(site: Site) -> None:
    site.show("/keys", b"", 307, Location="/others")
    site.show("/others", jwks(ONE))
    assert await Checks(site).subject(ONE) == "ada"
    site.show("/others", b"", 302, Location="/others")
    checks = Checks(site)
    assert await checks.subject(ONE) == missing(site)  # it goes round in circles


async def test_a_proxy_is_not_asked_for_what_is_local(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from duly.server.auth import key_sets

    key_sets._opener.cache_clear()  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    try:
        assert await Checks(site).subject(ONE) == "ada"
    finally:
        key_sets._opener.cache_clear()  # pyright: ignore[reportPrivateUsage]
