"""The public keys of identity providers: as the application has them, or fetched, kept, and fetched again."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from http.client import HTTPException, HTTPMessage
from importlib.metadata import version
from typing import IO, Any, Final, cast
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener, getproxies

import orjson
from joserfc.jwk import JWKRegistry, Key, RSAKey

from duly.clock import Clock
from duly.declare.auth import KEY_TYPES, Provider, is_safe_url, same_issuer
from duly.errors import DulyError
from duly.limits import (
    KEYS_AGE_MS_MAX,
    KEYS_BYTES_MAX,
    KEYS_PAUSE_MS,
    KEYS_RETRY_MS,
    KEYS_SECONDS_MAX,
    RSA_BITS_MIN,
)
from duly.logs import log_of

_log: Final = log_of("duly.server")
_CONFIGURATION: Final = "/.well-known/openid-configuration"


class KeysError(DulyError):
    """The keys of an identity provider are not available."""


class KeySet:
    """The keys by which one provider signs tokens."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = tuple(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, kid: str | None) -> Key | None:
        """Return the key of an id. Without an id, return the only key."""
        if kid is None:
            return self._keys[0] if len(self._keys) == 1 else None
        return next((key for key in self._keys if key.kid == kid), None)


def key_set_of(jwks: object) -> KeySet:
    """Return the keys that a JWK Set has for signatures. Keys of other kinds are left out. Raises KeysError."""
    found: object = cast("dict[str, object]", jwks).get("keys") if isinstance(jwks, dict) else None
    if not isinstance(found, list):
        raise KeysError(f"got {jwks!r:.80}, expected a JWK Set")
    keys = [key for one in cast("list[object]", found) if (key := _key_of(one)) is not None]
    if not keys:
        raise KeysError(f"got a JWK Set without a key for {', '.join(KEY_TYPES)}")
    return KeySet(keys)


def _key_of(jwk: Any) -> Key | None:
    try:
        if jwk["kty"] not in KEY_TYPES.values() or jwk.get("use", "sig") != "sig":
            return None
        key = JWKRegistry.import_key(jwk)
        is_short = isinstance(key, RSAKey) and key.public_key.key_size < RSA_BITS_MIN
    except Exception:  # joserfc and what is below it raise many; a set may also have keys that are made after this
        return None
    return None if is_short else key


class KeySets:
    """The keys of all providers of an app. Used in its event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._remote: dict[str, _RemoteKeys] = {}

    async def get(self, provider: Provider, kid: str | None) -> KeySet:
        """Return the keys of a provider: newer ones if they were old, or if the key of an id was not there.

        Raises KeysError if there are none.
        """
        if provider.jwks is not None:
            return _inline(provider.jwks)
        if provider.jwks_url is not None:
            address, load = provider.jwks_url, partial(_load, provider.jwks_url)
        else:
            address, load = provider.issuer, partial(_discover, provider.issuer)
        if address not in self._remote:
            self._remote[address] = _RemoteKeys(self._clock, address, load)
        return await self._remote[address].get(kid)


@lru_cache(maxsize=64)
def _inline(jwks: str) -> KeySet:
    return key_set_of(orjson.loads(jwks))


class _RemoteKeys:
    """Keys that are fetched. `load` does so, in a thread."""

    def __init__(self, clock: Clock, address: str, load: Callable[[], KeySet]) -> None:
        self._clock = clock
        self._address = address
        self._load = load
        self._keys: KeySet | None = None
        self._fetched_at = self._tried_at = -math.inf
        self._fetching: asyncio.Task[None] | None = None

    async def get(self, kid: str | None) -> KeySet:
        if self._keys is None or self._is_past(self._fetched_at, KEYS_AGE_MS_MAX) or not self._knows(kid):
            await self._refresh()
        if self._keys is None:
            raise KeysError("its keys could not be fetched, and are tried again soon")
        return self._keys

    def _knows(self, kid: str | None) -> bool:
        return kid is None or (self._keys is not None and self._keys.find(kid) is not None)

    def _is_past(self, time: float, milliseconds: float) -> bool:
        return not 0 <= self._clock.now() - time < milliseconds  # also after the clock was set back

    async def _refresh(self) -> None:
        """Fetch the keys, unless that was done a moment ago. All who need them at once share one fetch."""
        if self._fetching is None:
            if not self._is_past(self._tried_at, KEYS_RETRY_MS if self._keys is None else KEYS_PAUSE_MS):
                return
            self._fetching = asyncio.get_running_loop().create_task(self._fetch())
        await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(KEYS_SECONDS_MAX):
                self._keys = await asyncio.to_thread(self._load)
            self._fetched_at = self._clock.now()
        except (KeysError, OSError, HTTPException, ValueError) as error:  # among them TimeoutError and wrong JSON
            what = "no user of it can log in" if self._keys is None else "the keys from before stay"
            _log.warning("the keys of %s could not be fetched, so %s: %s", self._address, what, error or "no answer")
        finally:
            self._tried_at = self._clock.now()
            self._fetching = None


def _discover(issuer: str) -> KeySet:
    """Fetch the keys of an OpenID Connect provider, whose configuration says where they are."""
    address = f"{issuer.rstrip('/')}{_CONFIGURATION}"
    found: Any = _json_at(address)
    configuration = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    named, url = configuration.get("issuer"), configuration.get("jwks_uri")
    if not isinstance(named, str) or not same_issuer(named, issuer):
        raise KeysError(f"got the issuer {named!r:.200} at {address}, expected {issuer!r}")
    if not isinstance(url, str):
        raise KeysError(f"got the jwks_uri {url!r:.200} at {address}, expected a URL")
    return _load(url)


def _load(url: str) -> KeySet:
    return key_set_of(_json_at(url))


def _json_at(url: str) -> Any:
    if not is_safe_url(url):
        raise KeysError(f"got the address {url:.200}, expected one with https:// (or http://localhost)")
    request = Request(url, headers={"Accept": "application/json", "User-Agent": f"duly/{version('duly')}"})
    try:
        with _opener().open(request, timeout=KEYS_SECONDS_MAX) as response:
            body: bytes = response.read(KEYS_BYTES_MAX + 1)
    except HTTPError as error:
        error.close()
        raise KeysError(f"got the status {error.code} at {url}") from None
    if len(body) > KEYS_BYTES_MAX:
        raise KeysError(f"got more than {KEYS_BYTES_MAX:,} bytes at {url} (KEYS_BYTES_MAX)")
    return orjson.loads(body)


class _SafeRedirects(HTTPRedirectHandler):
    """Follows redirects to addresses that are as safe as the first one."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if not is_safe_url(newurl) or not newurl.startswith(f"{req.type}:"):
            fp.close()
            raise KeysError(f"got a redirect from {req.full_url} to {newurl:.200}, expected one that is as safe")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@lru_cache(maxsize=1)
def _opener() -> Any:
    proxies = {name: url for name, url in getproxies().items() if name == "https"}  # localhost is behind none
    return build_opener(ProxyHandler(proxies), _SafeRedirects)
