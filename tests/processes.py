"""Which tests start processes or use a server: those have the marks `slow` and `server`, for `make quick` to leave out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from tests import postgres

_STARTS: Final = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn")

_started: list[str] = []


def watch() -> None:
    """Take note of each process that this one starts."""

    def note(event: str, args: tuple[Any, ...]) -> None:
        if _STARTS and event in _STARTS:  # nothing is left of this module when the interpreter ends
            _started.append(f"{event}{args[:2]!r:.200}")

    sys.addaudithook(note)


@contextmanager
def marked(item: pytest.Item) -> Iterator[None]:
    """Fail if a test that is to be quick starts a process or makes a store on a server."""
    _started.clear()
    stores = postgres.stores_made
    yield
    if any(item.get_closest_marker(name) for name in ("slow", "crash", "server")):
        return
    if postgres.stores_made > stores:
        pytest.fail(f"{item.nodeid} uses a server, expected the mark `server`")
    if _started:
        pytest.fail(f"{item.nodeid} starts a process, expected the mark `slow`: {_started[0]}")
