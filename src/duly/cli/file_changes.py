"""What `duly dev` watches: the Python files of a folder and those they import."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final

from duly.declare.loading import foreign_modules_changed

_LOOK_SECONDS: Final = 1.0
"""How often to look whether a folder is still the same one: nobody is told of that."""


class FileChanges:
    """Changes of the Python files of a folder, none of them missed while others are looked at.

    That the folder is gone is one, and that there is one again. The files that they import from elsewhere are few, and
    what else changes around those is nobody's affair: they are looked at now and then.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._watch()

    def _watch(self) -> None:
        # Here: it costs the other commands their start.
        from watchfiles import PythonFilter, awatch  # pyright: ignore[reportUnknownVariableType]

        self._watched = _identity_of(self._folder)
        self._is_lost = False
        self._changes = awatch(
            self._folder,
            watch_filter=PythonFilter(),
            debounce=200,
            rust_timeout=int(_LOOK_SECONDS * 1000),
            yield_on_timeout=True,
        )
        self._next = asyncio.ensure_future(anext(self._changes))

    async def next(self) -> None:
        if not self._is_lost:
            changed = False
            while not changed and self._is_there:
                changed = bool(await self._next) or foreign_modules_changed()
                self._next = asyncio.ensure_future(anext(self._changes))
            self._is_lost = not self._is_there
            return
        await _until(lambda: _identity_of(self._folder) is not None)
        self.close()
        self._watch()  # what was watched is another folder
        await asyncio.sleep(0)

    @property
    def _is_there(self) -> bool:
        return _identity_of(self._folder) == self._watched

    def close(self) -> None:
        self._next.cancel()


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  nobody can be asked to tell
        await asyncio.sleep(_LOOK_SECONDS)


def _identity_of(path: str) -> object:
    """What tells a file or a folder from another one at the same path; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
