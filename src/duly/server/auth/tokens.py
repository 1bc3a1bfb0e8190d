"""Checks the tokens of users: JSON Web Tokens, signed by one of the identity providers of the application.

Nothing that a token says of itself decides how it is checked. Its issuer and its audience choose a provider; the
provider says which algorithms count, the key has to be one for the algorithm, and all keys are public ones. Every other
header, such as a key that comes with the token, is ignored, and one that must not be ignored is refused.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast

import orjson
from joserfc import jws
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwk import Key

from duly.clock import Clock
from duly.declare.auth import ALGORITHMS, Provider
from duly.limits import TOKEN_LEEWAY_MS, TOKEN_LENGTH_MAX
from duly.server.auth.identity import Claims, ClientIdentity, IdentityError, identity_of
from duly.server.auth.key_sets import KeysError, KeySets


class _Token(NamedTuple):
    """A token as it is written. Whether it is true is not known."""

    text: str
    header: Claims
    claims: Claims


class TokenChecker:
    """Checks tokens for one app, in its event loop. It keeps the keys of providers."""

    def __init__(self, clock: Clock, names_providers: bool) -> None:
        self._clock = clock
        self._key_sets = KeySets(clock)
        self._names_providers = names_providers
        """Whether a client whose token is of no provider learns which ones there are: in development."""

    async def check(self, text: str, providers: Sequence[Provider]) -> ClientIdentity:
        """Return whose token it is. Raises IdentityError if it is not good."""
        token = _parse(text)
        provider = self._provider_of(token.claims, providers)
        algorithm = token.header.get("alg")
        if algorithm not in provider.algorithms:
            raise _refused(f"signed with {algorithm!r:.80}, expected {' or '.join(provider.algorithms)}")
        _check_signature(token, algorithm, await self._key_of(token, provider))
        # From here on the claims are those of the provider, among them those by which it was chosen.
        expires_at = self._check_times(token.claims)
        subject = token.claims.get("sub")
        if not isinstance(subject, str) or not subject:
            raise _refused(f"with {subject!r:.80} for 'sub', expected the subject whom it stands for")
        return ClientIdentity(identity_of(token.claims, provider.is_oidc), expires_at=expires_at)

    def _provider_of(self, claims: Claims, providers: Sequence[Provider]) -> Provider:
        issuer, audience = claims.get("iss"), claims.get("aud")
        audiences = cast("list[object]", audience) if isinstance(audience, list) else [audience]
        texts = [one for one in audiences if isinstance(one, str)]
        for provider in providers:
            if isinstance(issuer, str) and provider.matches(issuer, texts):
                return provider
        message = "No auth provider found matching the given token"
        if self._names_providers:
            known = ", ".join(
                f"{one.issuer}" + (f" (application_id {one.application_id})" if one.application_id else "")
                for one in providers
            )
            message += f", with the issuer {issuer!r:.200} and the audience {audience!r:.200}; auth.py has {known}"
        raise IdentityError("NoAuthProvider", message)

    async def _key_of(self, token: _Token, provider: Provider) -> Key:
        kid = token.header.get("kid")
        if kid is not None and not isinstance(kid, str):
            raise _refused(f"with {kid!r:.80} for 'kid', expected the id of a key")
        try:
            keys = await self._key_sets.get(provider, kid)
        except KeysError as error:
            raise _refused(f"of {provider.issuer}, but {error}") from None
        key = keys.find(kid)
        if key is None and kid is None:
            raise _refused(f"without 'kid', expected the id of one of the {len(keys)} keys of its provider")
        if key is None:
            raise _refused(f"signed by the key {kid!r:.80}, expected one that its provider has")
        return key

    def _check_times(self, claims: Claims) -> float:
        """Return when a token expires, in milliseconds."""
        now, expires, begins = self._clock.now(), _time_of(claims, "exp"), _time_of(claims, "nbf")
        if expires is None:
            raise _refused("without 'exp', expected the time when it expires")
        if now >= expires + TOKEN_LEEWAY_MS:
            raise IdentityError("TokenExpired", f"got a token that expired {(now - expires) / 1000:,.0f} s ago")
        if begins is not None and now < begins - TOKEN_LEEWAY_MS:
            raise _refused(f"that is valid in {(begins - now) / 1000:,.0f} s, and not before ('nbf')")
        return expires + TOKEN_LEEWAY_MS


def _refused(what: str) -> IdentityError:
    return IdentityError("Unauthenticated", f"got a token {what}")


def _time_of(claims: Claims, name: str) -> float | None:
    """Return a time in milliseconds since 1970; None if there is none."""
    seconds = claims.get(name)
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
        raise _refused(f"with {seconds!r:.80} for {name!r}, expected seconds since 1970")
    return seconds * 1000.0


# The form of a token.

_SEGMENT: Final = re.compile("[A-Za-z0-9_-]+")


def _parse(text: str) -> _Token:
    if len(text) > TOKEN_LENGTH_MAX:
        raise _malformed(f"{len(text):,} characters, expected at most {TOKEN_LENGTH_MAX:,} (TOKEN_LENGTH_MAX)")
    segments = text.split(".")
    if len(segments) != 3:
        raise _malformed(f"{len(segments)} parts, expected three: header.claims.signature")
    header, claims, _ = map(_decoded, segments)
    token = _Token(text, _object(header), _object(claims))
    for name in ("crit", "b64"):  # extensions, which change what a signature means
        if name in token.header:
            raise _malformed(f"{name!r} in its header, expected a token without extensions")
    return token


def _decoded(segment: str) -> bytes:
    """Return what is encoded in a segment. Only one text stands for each content, so that no signature has a second."""
    if _SEGMENT.fullmatch(segment) is None or len(segment) % 4 == 1:
        raise _malformed("a part that is no base64url")
    content = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    if base64.urlsafe_b64encode(content).rstrip(b"=") != segment.encode():
        raise _malformed("a part that is no base64url")
    return content


def _object(content: bytes) -> Claims:
    try:
        found: Any = orjson.loads(content)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise _malformed("a part that is no JSON object")
    return cast("Claims", found)


def _malformed(what: str) -> IdentityError:
    return IdentityError("InvalidAuthHeader", f"got a token with {what}")


# Its signature.


class _OneAlgorithm(jws.JWSRegistry):
    """What joserfc needs to check signatures by one algorithm, whatever a token says."""

    max_header_length = max_payload_length = max_signature_length = TOKEN_LENGTH_MAX

    def __init__(self, name: str) -> None:
        super().__init__(algorithms=[name], strict_check_header=False)  # providers add headers of their own
        self._name = name

    def get_alg(self, name: str) -> Any:
        if name != self._name:
            raise UnsupportedAlgorithmError(f"got {name!r:.80}, expected {self._name}")
        return self.algorithms[name]  # without the warning that EdDSA now has another name, which providers do not use


_REGISTRIES: Final = {name: _OneAlgorithm(name) for name in ALGORITHMS}


def _check_signature(token: _Token, algorithm: str, key: Key) -> None:
    try:
        jws.deserialize_compact(token.text, key, registry=_REGISTRIES[algorithm])
    except (JoseError, ValueError, TypeError, RecursionError):  # the last one by JSON that is nested without end
        raise _refused(f"whose signature is not the one of its provider ({algorithm})") from None
