"""What the jobs of systems on SQLite write, each in a transaction of its own, as durably as duly writes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable

import protocol

BUSY_SECONDS = 30


class Effects:
    """One connection a thread, to the file `data.db` of a folder."""

    def __init__(self, folder: str) -> None:
        self._path = f"{folder}/data.db"
        self._threads = threading.local()

    def count(self, n: int) -> None:
        counter, run = n % protocol.COUNTERS, self._run()
        run("BEGIN IMMEDIATE", ())
        [found] = run("SELECT n FROM counters WHERE id = ?", (counter,)).fetchone()
        run(protocol.UPDATE.format("?", "?"), (found + 1, counter))
        run(protocol.INSERT.format("?", "?"), (n, counter))
        run("COMMIT", ())

    def _run(self) -> Callable[..., sqlite3.Cursor]:
        if not hasattr(self._threads, "connection"):
            connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
            for pragma in ("journal_mode=WAL", "synchronous=FULL"):
                connection.execute(f"PRAGMA {pragma}")
            self._threads.connection = connection
        return self._threads.connection.execute
