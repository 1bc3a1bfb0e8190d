"""Which pages may call a server: those of any origin, or of the origins that it names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Final

ORIGINS_VARIABLE: Final = "DULY_ALLOW_ORIGINS"
"""Names the origins, separated by commas, where no argument does: for an application that is mounted."""

_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@*\s,A-Z]+")


def allowed_origins(given: Iterable[str] | None) -> frozenset[str] | None:
    """Return the origins that may call a server, by default those of the environment; None for any.

    Raises ValueError for what a browser never sends as an origin: nothing would ever match it.
    """
    variable = os.environ.get(ORIGINS_VARIABLE, "")
    origins = frozenset(variable.replace(",", " ").split() if given is None else given)
    for origin in origins - {"*"}:
        check_origin(origin)
    return None if not origins or "*" in origins else origins


def check_origin(origin: str) -> str:
    """Return an origin as browsers send it. Raises ValueError for any other text."""
    if not _ORIGIN.fullmatch(origin):
        raise ValueError(
            f"got the origin {origin!r:.80}, expected a scheme, a host and perhaps a port, in lower case and without a"
            " path, such as 'https://shop.example'"
        )
    return origin
