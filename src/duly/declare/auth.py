"""`providers` in `auth.py`: the identity providers whose tokens an application accepts."""

from __future__ import annotations

import base64
import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final, cast
from urllib.parse import unquote_to_bytes, urlsplit

import orjson

from duly.declare.function import Function
from duly.errors import LoadError

KEY_TYPES: Final = {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
"""The algorithms of signatures, and the types of their keys. All of them have two keys, of which this server has the
public one: with HS256, whoever checks tokens can also make them.
"""
ALGORITHMS: Final = tuple(KEY_TYPES)


@dataclass(frozen=True, slots=True)
class Provider:
    """An identity provider, of either kind."""

    issuer: str
    """What its tokens have as `iss`. Of an OpenID Connect provider, also where its configuration is."""
    application_id: str | None
    """What its tokens have in `aud`; None if that does not matter."""
    algorithms: tuple[str, ...]
    is_oidc: bool
    """Whether it speaks OpenID Connect: then the claims of its tokens have the meaning that is standardized there."""
    jwks_url: str | None = None
    """Where its keys are. If there is neither this nor `jwks`, its configuration says it."""
    jwks: str | None = None
    """Its keys, as JSON."""

    def matches(self, issuer: str, audiences: Collection[str]) -> bool:
        """Return whether a token that says so of itself is one of this provider."""
        return same_issuer(issuer, self.issuer) and (self.application_id is None or self.application_id in audiences)


def same_issuer(one: str, other: str) -> bool:
    """Return whether two names stand for one issuer: some providers leave out the scheme, or add a slash."""
    return _with_scheme(one).rstrip("/") == _with_scheme(other).rstrip("/")


def _with_scheme(issuer: str) -> str:
    return issuer if "://" in issuer else f"https://{issuer}"


def is_safe_url(url: str) -> bool:
    """Return whether keys may be fetched from a URL: nobody on the way can replace them."""
    try:
        parts = urlsplit(url)
        has_user, _ = parts.username is not None, parts.port  # raises if it is no number
    except ValueError:
        return False
    is_local = parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
    return bool(parts.hostname) and not has_user and (parts.scheme == "https" or is_local)


def providers_of(modules: Mapping[str, object]) -> tuple[Provider, ...]:
    """Return the providers of an application: those in `providers` of its module `auth`. Raises LoadError."""
    given = getattr(modules.get("auth"), "providers", None)
    if given is None or isinstance(given, Function):
        return ()  # a module of functions that has this name
    if not isinstance(given, list | tuple):
        raise LoadError(f"auth: got {given!r:.80} as `providers`, expected a list of dicts")
    found = tuple(
        _Entry(entry, f"auth: providers[{number}]").provider()
        for number, entry in enumerate(cast("list[object]", given))
    )
    if found and find_spec("joserfc") is None:
        raise LoadError(
            'auth: got `providers`, expected joserfc too, which checks tokens; run pip install "duly[auth]"'
        )
    return found


_OIDC: Final = {"domain": True, "application_id": True, "jwks": False}
"""The keys of an entry, and whether they are required."""
_CUSTOM: Final = {"type": True, "issuer": True, "jwks": True, "algorithm": True, "application_id": False}
_JWKS_FORM: Final = 'expected {"keys": [{"kty": …, …}, …]}, or a URL of that: https://… or data:…'
_DOCUMENTED: Final = {"applicationID": "application_id"}
"""Keys as the Convex documentation spells them."""


class _Entry:
    """One entry of `providers`, with its place for errors."""

    def __init__(self, entry: object, place: str) -> None:
        self._place = place
        if not isinstance(entry, Mapping):
            raise self._error(f"got {entry!r:.80} ({type(entry).__name__}), expected a dict")
        given = cast("Mapping[str, Any]", entry)  # so it should be: other keys are unknown ones
        self._fields = {_DOCUMENTED.get(key, key): value for key, value in given.items()}

    def provider(self) -> Provider:
        if "type" not in self._fields:
            self._check_keys(_OIDC)
            domain = self._safe("domain", _with_scheme(self._text("domain")))
            return Provider(domain, self._text("application_id"), ALGORITHMS, True, *self._jwks(ALGORITHMS))
        if self._fields["type"] != "customJwt":
            raise self._wrong("type", '"customJwt", or no type for a provider with OpenID Connect')
        self._check_keys(_CUSTOM)
        issuer, algorithms = self._text("issuer"), (self._algorithm(),)
        application_id = self._text("application_id") if "application_id" in self._fields else None
        return Provider(issuer, application_id, algorithms, False, *self._jwks(algorithms))

    def _check_keys(self, known: Mapping[str, bool]) -> None:
        for key in self._fields:
            if key not in known:
                similar = difflib.get_close_matches(str(key), known, n=1)
                hint = f"did you mean {similar[0]!r}?" if similar else f"expected {', '.join(map(repr, known))}"
                if not similar and key in _CUSTOM:
                    hint += '; an entry with an issuer of its own has "type": "customJwt"'
                raise self._error(f"got the key {key!r:.80}; {hint}")
        for key, is_required in known.items():
            if is_required and key not in self._fields:
                raise self._error(f"got no {key!r}, expected {', '.join(repr(one) for one in known if known[one])}")

    def _text(self, key: str) -> str:
        value = self._fields[key]
        if not isinstance(value, str) or not value.strip():
            raise self._wrong(key, "a text that is not empty")
        return value

    def _safe(self, key: str, url: str) -> str:
        if not is_safe_url(url):
            raise self._wrong(key, "an address that begins with https:// (or http://localhost, in development)")
        return url

    def _algorithm(self) -> str:
        if (algorithm := self._text("algorithm")) not in ALGORITHMS:
            reason = ""
            if algorithm.upper().startswith("HS"):
                reason = ": with a shared secret, whoever checks tokens can also make them"
            elif algorithm.lower() == "none":
                reason = ": anybody makes tokens that nobody has signed"
            raise self._wrong("algorithm", f"{', '.join(ALGORITHMS[:-1])} or {ALGORITHMS[-1]}{reason}")
        return algorithm

    def _jwks(self, algorithms: tuple[str, ...]) -> tuple[str | None, str | None]:
        """Return where the keys are, or the keys as JSON."""
        if "jwks" not in self._fields:
            return None, None
        given: Any = self._fields["jwks"]
        if isinstance(given, str) and not given.startswith("data:"):
            return self._safe("jwks", given), None
        keys = self._keys(self._decoded(given) if isinstance(given, str) else given)
        for key in keys:
            if key.get("kty") == "oct" or "d" in key:
                raise self._error("got a secret key in 'jwks', expected public keys: to check tokens takes no other")
        if not any(key.get("kty") == KEY_TYPES[algorithm] for key in keys for algorithm in algorithms):
            types = ", ".join(sorted({KEY_TYPES[algorithm] for algorithm in algorithms}))
            raise self._error(f"got no key in 'jwks' for {' or '.join(algorithms)}, expected one with the kty {types}")
        try:
            return None, orjson.dumps({"keys": keys}).decode()
        except TypeError as error:
            raise self._error(f"got 'jwks' that is no JSON: {error}") from None

    def _keys(self, jwks: object) -> list[dict[str, Any]]:
        keys: object = cast("Mapping[str, object]", jwks).get("keys") if isinstance(jwks, Mapping) else None
        if not isinstance(keys, list | tuple) or not all(isinstance(one, dict) for one in cast("list[object]", keys)):
            got = type(self._fields["jwks"]).__name__  # and not what is in it, which may be a secret key
            raise self._error(f"got 'jwks' of another form ({got}), {_JWKS_FORM}")
        return list(cast("list[dict[str, Any]]", keys))

    def _decoded(self, url: str) -> object:
        """Return the JSON that is in a `data:` URL."""
        head, _, data = url.partition(",")
        try:
            content = unquote_to_bytes(data)
            return orjson.loads(base64.b64decode(content, validate=True) if head.endswith(";base64") else content)
        except ValueError:
            return None

    def _wrong(self, key: str, expected: str) -> LoadError:
        value = self._fields[key]
        return self._error(f"got {value!r:.80} ({type(value).__name__}) for {key!r}, expected {expected}")

    def _error(self, text: str) -> LoadError:
        return LoadError(f"{self._place}: {text}")
