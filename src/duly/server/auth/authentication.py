"""Finds out who a remote client is: nobody in particular, a user with a token, or the administrator."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, cast

import orjson

from duly.model import admin_key, job_admin
from duly.server.auth.identity import ANYONE, ClientIdentity, IdentityError, acting_as
from duly.server.host import Host
from duly.sync.protocol import Authenticate

if TYPE_CHECKING:
    from duly.server.auth.tokens import TokenChecker

ADMIN_KEY_VARIABLE: Final = "DULY_ADMIN_KEY"


class Authentication:
    """Of the clients of one open app."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def of_header(self, authorization: str | None) -> ClientIdentity:
        """Return whom the header `Authorization` names. Raises IdentityError."""
        if not authorization:
            return ANYONE
        scheme, _, credentials = authorization.partition(" ")
        if scheme.lower() == "convex":
            key, _, identity = credentials.strip().rpartition("|")[2].partition(":")
            return await self._administrator(key, _decoded(identity) if identity else None)
        if scheme.lower() == "bearer":
            return await self._user(credentials.strip())
        raise IdentityError(
            "InvalidAuthHeader", f"got the authorization scheme {scheme!r:.40}, expected 'Bearer' or 'Convex'"
        )

    async def of_message(self, message: Authenticate) -> ClientIdentity:
        """Return whom a message over a WebSocket names. Raises IdentityError."""
        if message.token_type == "Admin":
            return await self._administrator(message.value.rpartition("|")[2].partition(":")[0], message.acting_as)
        return await self._user(message.value)

    async def _user(self, token: str) -> ClientIdentity:
        """Return the user of a token of an identity provider."""
        providers = self._host.runner.registry.providers  # of the newest code: a reload may change them
        if not providers:
            raise IdentityError(
                "NoAuthProvider",
                "No auth provider found matching the given token: this application has no `providers` in auth.py",
            )
        return await self._tokens.check(token, providers)

    @cached_property
    def _tokens(self) -> TokenChecker:
        from duly.server.auth.tokens import TokenChecker  # an extra: only an application with providers needs it

        return TokenChecker(self._host.runner.clock, names_providers=self._host.development)

    async def _administrator(self, key: str, identity: Mapping[str, Any] | None) -> ClientIdentity:
        """Return the administrator, as somebody else if wanted."""
        if not (key and (_is_in_environment(key) or await self._is_stored(key))):
            raise IdentityError(
                "BadAdminKey",
                f"got an admin key that is neither the one in {ADMIN_KEY_VARIABLE} nor the one of `duly admin-key`",
            )
        return ClientIdentity(None if identity is None else acting_as(identity), is_admin=True)

    async def _is_stored(self, key: str) -> bool:
        stored = await job_admin.read(self._host.database, admin_key.stored_hash)
        return stored is not None and hmac.compare_digest(admin_key.hash_of(key), stored)


def _is_in_environment(key: str) -> bool:
    known = os.environ.get(ADMIN_KEY_VARIABLE, "")
    return hmac.compare_digest(admin_key.hash_of(key), admin_key.hash_of(known))  # as long for each key


def _decoded(text: str) -> dict[str, Any]:
    try:
        found: object = orjson.loads(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error):
        found = None
    if not isinstance(found, dict):
        raise IdentityError("InvalidAuthHeader", "got an identity to act as that is no JSON object in base64")
    return cast("dict[str, Any]", found)
