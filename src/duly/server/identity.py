"""Who a remote client is: nobody in particular, a user with a token, or the administrator."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from typing import Any, Final, NamedTuple, cast

import orjson

from duly.ctx.caller import Identity
from duly.errors import DulyError
from duly.sync.protocol import Authenticate

ADMIN_KEY_VARIABLE: Final = "DULY_ADMIN_KEY"


class ClientIdentity(NamedTuple):
    """Under whom a client's functions run."""

    identity: Identity | None = None
    is_admin: bool = False
    """Whether it may call internal functions."""


ANYONE: Final = ClientIdentity()


class IdentityError(DulyError):
    """A token or a key is refused. `code` is how HTTP clients know the reason."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def of_header(authorization: str | None) -> ClientIdentity:
    """Return whom the header `Authorization` names. Raises IdentityError."""
    if not authorization:
        return ANYONE
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() == "convex":
        key, _, acting_as = credentials.strip().rpartition("|")[2].partition(":")
        return administrator(key, _decoded(acting_as) if acting_as else None)
    if scheme.lower() == "bearer":
        return user(credentials.strip())
    raise IdentityError(
        "InvalidAuthHeader", f"got the authorization scheme {scheme!r:.40}, expected 'Bearer' or 'Convex'"
    )


def of_message(message: Authenticate) -> ClientIdentity:
    """Return whom a message over a WebSocket names. Raises IdentityError."""
    if message.token_type == "Admin":
        key = message.value.rpartition("|")[2].partition(":")[0]
        return administrator(key, None if message.acting_as is None else dict(message.acting_as))
    return user(message.value)


def user(token: str) -> ClientIdentity:
    """Return the user of a token of an identity provider."""
    raise IdentityError(
        "NoAuthProvider",
        f"No auth provider found matching the given token ({len(token):,} characters): this application names none",
    )


def administrator(key: str, acting_as: Identity | None) -> ClientIdentity:
    """Return the administrator, as somebody else if wanted."""
    known = os.environ.get(ADMIN_KEY_VARIABLE, "")
    if not known or not hmac.compare_digest(key.encode(), known.encode()):
        raise IdentityError("BadAdminKey", f"got an admin key that is not the one in {ADMIN_KEY_VARIABLE}")
    return ClientIdentity(acting_as, is_admin=True)


def _decoded(text: str) -> dict[str, Any]:
    try:
        found: object = orjson.loads(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error):
        found = None
    if not isinstance(found, dict):
        raise IdentityError("InvalidAuthHeader", "got an identity to act as that is no JSON object in base64")
    return cast("dict[str, Any]", found)
