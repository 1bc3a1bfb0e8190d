"""Identity providers for tests: keys, the tokens that they sign, and a provider on a port of its own."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Mapping
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

NOW = 1_893_456_000
"""The time at which a Harness starts, in seconds since 1970."""
ISSUER = "https://login.example"
APPLICATION = "shop"


def base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def unsigned(header: Mapping[str, Any], claims: Mapping[str, Any] | bytes) -> str:
    content = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return f"{base64url(json.dumps(header).encode())}.{base64url(content)}"


@cache
def _key(algorithm: str, kid: str) -> Key:
    if algorithm == "RS256":
        return RSAKey.generate_key(2_048)
    if algorithm == "ES256":
        return ECKey.derive_key(kid, "P-256")
    return OKPKey.derive_key(kid, "Ed25519")


class Signer:
    """A key, and the tokens that it signs."""

    def __init__(self, algorithm: str = "ES256", kid: str = "one") -> None:
        self.algorithm, self.kid, self.key = algorithm, kid, _key(algorithm, kid)

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key."""
        return {**self.key.as_dict(private=False), "kid": self.kid, "use": "sig"}

    @property
    def pem(self) -> bytes:
        assert isinstance(self.key, RSAKey | ECKey | OKPKey)
        return self.key.as_pem(private=False)

    def sign(self, header: Mapping[str, Any], claims: Mapping[str, Any] | bytes) -> str:
        text = unsigned(header, claims)
        return f"{text}.{base64url(JWSRegistry.algorithms[self.algorithm].sign(text.encode(), self.key))}"

    def token(self, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """A token that is good unless the claims make it a bad one. A claim or header that is None is left out."""
        usual = {"iss": ISSUER, "aud": APPLICATION, "sub": "ada", "iat": NOW, "exp": NOW + 3_600, **claims}
        head = {"alg": self.algorithm, "kid": self.kid, "typ": "JWT", **(header or {})}
        return self.sign(
            {name: value for name, value in head.items() if value is not None},
            {name: value for name, value in usual.items() if value is not None},
        )


def jwks(*signers: Signer) -> dict[str, Any]:
    return {"keys": [signer.jwk for signer in signers]}


def oidc(*signers: Signer, **more: Any) -> dict[str, Any]:
    """An entry of `providers` with the keys in it."""
    return {"domain": ISSUER, "application_id": APPLICATION, "jwks": jwks(*signers), **more}


def custom(*signers: Signer, **more: Any) -> dict[str, Any]:
    entry = {"type": "customJwt", "issuer": ISSUER, "jwks": jwks(*signers), "algorithm": signers[0].algorithm}
    return {**entry, **more}


class Site:
    """An identity provider that answers over HTTP."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        """The paths that were asked for."""
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.waits = threading.Event()
        """What an answer waits for."""
        self.waits.set()

    def __enter__(self) -> Site:
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.requests.append(self.path)
                site.waits.wait(20)
                status, headers, body = site.answers.get(self.path, (404, {}, b""))
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self.waits.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def has(self, *signers: Signer) -> None:
        """Have these keys from now on, and a configuration that says where."""
        configuration = {"issuer": self.address, "jwks_uri": f"{self.address}/keys"}
        self.show("/.well-known/openid-configuration", configuration)
        self.show("/keys", jwks(*signers))

    def show(self, path: str, content: object, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.answers[path] = status, headers, body
