"""Tokens that scripts for Node make, as an identity provider does, and a backend that trusts it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.clients.server import BACKEND
from tests.server.signing import APPLICATION, ISSUER, Signer

ONE = Signer("ES256", "one")

TOKENS = f"""
import {{ createPrivateKey, sign }} from "node:crypto";

const key = createPrivateKey({{ key: {json.dumps(ONE.key.as_dict(private=True))}, format: "jwk" }});
const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
let made = 0;

/** A token that lives so many seconds from now on. */
const token = (seconds, claims) => {{
  const iat = Math.floor(Date.now() / 1000);
  const usual = {{ iss: "{ISSUER}", aud: "{APPLICATION}", sub: "ada", iat, exp: iat + seconds, jti: `${{++made}}` }};
  const text = `${{part({{ alg: "ES256", kid: "one" }})}}.${{part({{ ...usual, ...claims }})}}`;
  return `${{text}}.${{sign("sha256", Buffer.from(text), {{ key, dsaEncoding: "ieee-p1363" }}).toString("base64url")}}`;
}};
"""


def backend_that_trusts(folder: Path, *providers: dict[str, Any]) -> Path:
    """Copy the backend of these tests into a folder, with an `auth.py`."""
    backend = folder / "backend"
    shutil.copytree(BACKEND, backend, ignore=shutil.ignore_patterns("__pycache__"))
    (backend / "auth.py").write_text(f"providers = {list(providers)!r}\n")
    return backend
