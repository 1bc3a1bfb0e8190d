"""What a server needs of the app that it serves."""

from __future__ import annotations

from typing import Any, Protocol

from duly.database.database import Database
from duly.run.failure import ClientError
from duly.run.runner import Runner
from duly.workers.executor import Executor


class Backlog(Protocol):
    """How far behind the executors of a store are."""

    @property
    def lag_ms(self) -> float: ...

    @property
    def paused_since(self) -> float | None: ...


class Host(Protocol):
    """An app."""

    development: bool

    @property
    def is_open(self) -> bool: ...

    @property
    def database(self) -> Database: ...

    @property
    def runner(self) -> Runner: ...

    @property
    def executor(self) -> Executor: ...

    def client_error(self, error: BaseException) -> ClientError:
        """Return what a remote client may know of an error, and log all of it."""
        ...

    def new_request_id(self) -> str: ...

    async def stats(self) -> Backlog: ...

    async def run(self, ref: Any, args: dict[str, Any] | None = None) -> Any:
        """Run a function of any kind for a trusted caller."""
        ...
