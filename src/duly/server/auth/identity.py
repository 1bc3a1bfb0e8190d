"""Who a remote client is, and what functions see of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, cast

from duly.clock import to_datetime
from duly.ctx.caller import Identity
from duly.errors import DulyError
from duly.values.json import NotAValueError, dumps

Claims = Mapping[str, Any]


class ClientIdentity(NamedTuple):
    """Under whom a client's functions run."""

    identity: Identity | None = None
    is_admin: bool = False
    """Whether it may call internal functions."""
    expires_at: float | None = None
    """When the token expires, in milliseconds since 1970; None for never."""


ANYONE: Final = ClientIdentity()


class IdentityError(DulyError):
    """A token or a key is refused. `code` is how HTTP clients know the reason."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


# The claims of tokens. The signature of a provider is on all of them, but users may have chosen some: so no claim takes
# the place of a field that functions rely on.

_STANDARD: Final = {
    "name": "name",
    "given_name": "givenName",
    "family_name": "familyName",
    "nickname": "nickname",
    "preferred_username": "preferredUsername",
    "profile": "profileUrl",
    "picture": "pictureUrl",
    "website": "websiteUrl",
    "email": "email",
    "email_verified": "emailVerified",
    "gender": "gender",
    "birthdate": "birthday",
    "zoneinfo": "timezone",
    "locale": "language",
    "phone_number": "phoneNumber",
    "phone_number_verified": "phoneNumberVerified",
    "address": "address",
    "updated_at": "updatedAt",
}
"""The claims of OpenID Connect, and the fields for them."""
_OF_THE_TOKEN: Final = {"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "fva"}
"""Claims about the token rather than its user. They change whenever it is refreshed; an identity does not."""


def identity_of(claims: Claims, is_oidc: bool) -> Identity:
    """Return the identity that functions see, of a token with an issuer and a subject."""
    own = {name: value for name, value in claims.items() if name not in _OF_THE_TOKEN and _is_value(name, value)}
    fields = _standard_fields(own) if is_oidc else {**dict(_flattened(own)), **own}
    issuer, subject = claims["iss"], claims["sub"]
    return {**fields, "tokenIdentifier": f"{issuer}|{subject}", "subject": subject, "issuer": issuer}


def _standard_fields(claims: Claims) -> Identity:
    fields = {name: value for name, value in claims.items() if name not in _STANDARD.keys() | set(_STANDARD.values())}
    for claim, field in _STANDARD.items():
        value: Any = claims.get(claim)
        if claim == "updated_at" and not isinstance(value, str):
            value = _iso(value)
        elif claim == "address" and isinstance(value, dict):
            value = cast("dict[str, Any]", value).get("formatted")
        if value is not None:
            fields[field] = value
    return fields


def _iso(seconds: object) -> str | None:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    try:
        return to_datetime(seconds * 1000).isoformat()
    except (ValueError, OverflowError, OSError):
        return None


def _flattened(claims: Claims, above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what is in nested objects under the path of its names: `{"org": {"id": 7}}` has `org.id`."""
    for name, value in claims.items():
        if above:
            yield f"{above}{name}", value
        if isinstance(value, dict):
            yield from _flattened(cast("Claims", value), f"{above}{name}.")


def _is_value(name: str, value: object) -> bool:
    """Return whether a function may store and return a claim: one that nests too deeply, say, is left out."""
    try:
        dumps({name: value})
    except NotAValueError:
        return False
    return True


# Administrators who act as somebody else.


def acting_as(given: Mapping[str, Any]) -> Identity:
    """Return the identity that an administrator wants to have, with the fields that follow from others.

    Raises IdentityError if it does not say whose it is.
    """
    identity = dict(given)
    try:
        dumps(identity)
    except NotAValueError as error:
        raise IdentityError("InvalidAuthHeader", f"got an identity to act as that is no value: {error}") from None
    if "tokenIdentifier" in identity:
        issuer, bar, subject = str(identity["tokenIdentifier"]).partition("|")
        identity = {"issuer": issuer, "subject": subject, **identity} if bar else identity
    elif "issuer" in identity and "subject" in identity:
        identity["tokenIdentifier"] = f"{identity['issuer']}|{identity['subject']}"
    for field in ("tokenIdentifier", "issuer", "subject"):
        if not isinstance(identity.get(field), str) or not identity[field]:
            raise IdentityError(
                "InvalidAuthHeader",
                f"got an identity to act as with {identity.get(field)!r:.80} for {field!r}, expected an issuer and a"
                " subject, or a tokenIdentifier 'issuer|subject'",
            )
    return identity
