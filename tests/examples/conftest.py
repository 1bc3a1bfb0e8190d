"""What stands for the world outside begins each test as if nothing had been asked of it."""

from __future__ import annotations

import sys
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def the_world_outside_is_new() -> None:
    """The modules stay imported from one app to the next, and so does what they remember."""
    external: Any = sys.modules.get("patterns.external")
    if external is not None:
        external.outages = 0
        external.received.clear()
    outside: Any = sys.modules.get("recurring.outside")
    if outside is not None:
        outside.done.clear()
