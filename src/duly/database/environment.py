"""What a batch is given: the environment that all transactions of a store share, and what earlier batches left."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from duly.clock import Clock
from duly.database.catalog import Catalog, CatalogHistory
from duly.database.changes import Commit, RemoteChange
from duly.database.driver.watchdog import Watchdog
from duly.database.usage import SoftLimits
from duly.storage.engine import Engine, RemoteCommit
from duly.storage.rows import Job
from duly.values.ids import IdCodec, IdSource

Tracked = dict[str, set[int]]
"""Ids of documents that were written, by table."""
ALL_IDS: Final = -1
"""Stands for all ids of a table, where it is not known which were written."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What all batches and queries of an open store share."""

    engine: Engine
    codec: IdCodec
    ids: IdSource
    clock: Clock
    limits: SoftLimits
    random: Random
    watchdog: Watchdog


class CarriedOver:
    """What batches leave to the next ones. Commits of other nodes change it as well.

    Only the committer's thread uses it; other threads read `catalogs`.
    """

    __slots__ = ("catalogs", "claimed", "tracked")

    def __init__(self, catalogs: CatalogHistory) -> None:
        self.catalogs = catalogs
        self.tracked: Tracked = {}
        """What was written to the tables whose writes are tracked; see `Batch.track`."""
        self.claimed: dict[int, Job] = {}
        """Due functions that a batch has claimed and left to the next ones, in the order of their due time."""

    def replace(self, catalog: Catalog, tracked: Tracked) -> None:
        """Take over the state of a batch that has ended well."""
        self.catalogs.current, self.tracked = catalog, tracked

    def apply(self, remote: RemoteCommit) -> Commit:
        """Apply a commit of another node, and return it as the commit log has it."""
        if remote.due is not None:
            drop_due_after(self.claimed, remote.due)
        if remote.tables is not None:
            catalog = Catalog(remote.tables, self.catalogs.current.schema, remote.deploy)
            self.catalogs.add(remote.version, catalog)
            self.catalogs.current = catalog
        by_number = self.catalogs.current.by_number
        changes = [RemoteChange(by_number[number], remote) for number in remote.ids if number in by_number]
        for change in changes:
            if change.table in self.tracked:
                self.tracked[change.table] |= change.ids
        if not remote.is_complete:
            for ids in self.tracked.values():
                ids.add(ALL_IDS)
        return Commit(remote.version, changes, is_known=remote.is_complete)


def drop_due_after(claimed: dict[int, Job], due: float) -> None:
    """Drop the claimed functions that are due after a time; the next claim finds them again."""
    while claimed and (next(reversed(claimed.values())).due or 0.0) > due:
        claimed.popitem()
