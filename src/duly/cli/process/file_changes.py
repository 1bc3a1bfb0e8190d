"""Watches the Python files of a folder, and the files they import, for `duly dev`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final

from duly.declare.loading import foreign_modules_changed

_CHECK_SECONDS: Final = 1.0
"""How often to check that a folder is still the same one: there is no notification of that."""


class FileChanges:
    """Changes of the Python files of a folder. None is missed between two calls of `next`.

    The removal of the folder is a change, and so is a new folder. The files that the modules import from elsewhere are
    few. They are checked now and then, because a watch of their folders would report too much.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._watch()

    def _watch(self) -> None:
        # Imported here: it would slow the start of the other commands.
        from watchfiles import PythonFilter, awatch  # pyright: ignore[reportUnknownVariableType]

        self._watched = _identity_of(self._folder)
        self._is_lost = False
        self._changes = awatch(
            self._folder,
            watch_filter=PythonFilter(),
            debounce=200,
            rust_timeout=int(_CHECK_SECONDS * 1000),
            yield_on_timeout=True,
        )
        self._next = asyncio.ensure_future(anext(self._changes))

    async def next(self) -> None:
        """Wait for a change."""
        if not self._is_lost:
            changed = False
            while not changed and self._is_same:
                changed = bool(await self._next) or foreign_modules_changed()
                self._next = asyncio.ensure_future(anext(self._changes))
            self._is_lost = not self._is_same
            return
        await _until(lambda: _identity_of(self._folder) is not None)
        self.close()
        self._watch()  # the old watch is of another folder
        await asyncio.sleep(0)

    @property
    def _is_same(self) -> bool:
        return _identity_of(self._folder) == self._watched

    def close(self) -> None:
        self._next.cancel()


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  there is no notification
        await asyncio.sleep(_CHECK_SECONDS)


def _identity_of(path: str) -> object:
    """Return what distinguishes a file or a folder from another one at the same path; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
