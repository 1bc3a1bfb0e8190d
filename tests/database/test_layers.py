"""Layers of writes that are not committed yet: each reads its own writes over those below, down to the store.

The layers are the store, the batch, a transaction and its sub-transactions. `tests/functions/test_database_model.py`
plays whole calls; this one plays the layers themselves, which is a hundred times as fast.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from duly import define_schema, define_table, v
from duly.database.batch import Batch
from duly.database.index_scan import IndexScan
from duly.database.transaction import Transaction
from duly.storage.requests import Count, Scan
from duly.testing import Harness
from duly.values.index_keys import EVERYTHING, Cut, Interval
from duly.values.json import dumps, loads
from duly.values.schema.tables import Index, Table

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.one_engine]

SCHEMA = define_schema({"notes": define_table(v.any()).index("by_n", ["n"])})
NUMBERS = 8  # so few that many notes have the same
Rows = dict[int, int]
"""The number of each note, by its id."""


class Undone(Exception):
    """A transaction is to leave nothing behind."""


class Player:
    """Writes at random, and compares what is read with what is known."""

    def __init__(self, seed: int, notes: Table) -> None:
        self._chance = Random(seed)
        self._notes = notes
        self.rows: Rows = {}
        self.compared = 0

    def play(self, batch: Batch) -> None:
        """Run some transactions in one batch, each on what those before it have left."""
        for _ in range(3):
            rows = dict(self.rows)
            try:
                batch.attempt(self._transaction, rows)
            except Undone:
                continue
            self.rows = rows

    async def _transaction(self, transaction: Transaction, rows: Rows) -> None:
        await self._steps(transaction, rows, depth=2)
        if self._chance.random() < 0.25:
            raise Undone

    async def _steps(self, layer: Transaction, rows: Rows, depth: int) -> None:
        for _ in range(self._chance.randrange(12)):
            act = self._chance.choice((self._insert, self._write, self._compare, self._compare, self._iterate))
            if depth and self._chance.random() < 0.15:
                await self._child(layer, rows, depth - 1)
            else:
                await act(layer, rows)

    async def _child(self, layer: Transaction, rows: Rows, depth: int) -> None:
        child, seen = layer.child(), dict(rows)
        await self._steps(child, seen, depth)
        if self._chance.random() < 0.7:
            layer.merge(child)
            rows.clear()
            rows.update(seen)
        child.end()

    async def _insert(self, layer: Transaction, rows: Rows) -> None:
        id, n = layer.new_id(), self._chance.randrange(NUMBERS)
        layer.write(self._notes, id, None, dumps({"n": n}))
        rows[id] = n

    async def _write(self, layer: Transaction, rows: Rows) -> None:
        if not rows:
            return
        id = self._chance.choice(list(rows))
        old = await layer.get(self._notes, id)
        assert isinstance(old, str) and loads(old) == {"n": rows[id]}
        if self._chance.random() < 0.4:
            layer.write(self._notes, id, old, None)
            del rows[id]
        else:
            rows[id] = self._chance.randrange(NUMBERS)
            layer.write(self._notes, id, old, dumps({"n": rows[id]}))

    async def _compare(self, layer: Transaction, rows: Rows) -> None:
        """Scan, count, and read by id."""
        order, interval, expected = self._interval(rows)
        descending, limit = self._chance.random() < 0.5, self._chance.randrange(1, 6)
        found = await layer.scan(Scan(self._notes, order, interval, descending, limit))
        assert numbers(found) == (expected[::-1] if descending else expected)[:limit]
        for most in (len(expected), 1_000):
            assert await layer.count(Count(self._notes, order, interval, most)) == len(expected)
        ids = {*self._chance.sample(list(rows), min(3, len(rows))), 5}
        by_id = await layer.get_many(self._notes, ids)
        assert dict(numbers(list(by_id.items()))) == {id: rows[id] for id in ids if id in rows}
        self.compared += 1

    async def _iterate(self, layer: Transaction, rows: Rows) -> None:
        """Read an interval row by row, and delete what lies ahead on the way; then in steps of some rows."""
        order, interval, expected = self._interval(rows)
        descending = self._chance.random() < 0.5
        scan = IndexScan(layer, self._notes, order, interval, descending, ahead=self._chance.choice((1, 2, 8)))
        ahead = expected[::-1] if descending else expected
        met: list[tuple[int, int]] = []
        while (row := await scan.next_row()) is not None:
            met += numbers([row])
            if self._chance.random() < 0.3 and (left := [pair for pair in ahead if pair not in met]):
                id, n = self._chance.choice(left)
                within = layer.child() if self._chance.random() < 0.5 else layer
                within.write(self._notes, id, dumps({"n": n}), None)
                if within is not layer:
                    layer.merge(within)
                del rows[id]
                ahead.remove((id, n))
        assert met == ahead
        scan = IndexScan(layer, self._notes, order, interval, descending, ahead=1)
        some = [numbers(await scan.rows(3)) for _ in range(len(ahead) // 3 + 1)]
        assert [pair for part in some for pair in part] == ahead

    def _interval(self, rows: Rows) -> tuple[Index | None, Interval, list[tuple[int, int]]]:
        """An index, an interval of it, and the notes that are in it, in order."""
        pairs = sorted(rows.items())
        if self._chance.random() < 0.3:
            id = self._chance.choice([id for id, _ in pairs] or [1])
            inside = [pair for pair in pairs if pair[0] > id]
            return None, Interval(Cut((), after=True, id=id), EVERYTHING.upper), inside
        low, high = (self._chance.randrange(NUMBERS) for _ in range(2))
        interval = Interval(Cut((low,), after=False), Cut((high,), after=True))
        inside = sorted((pair for pair in pairs if low <= pair[1] <= high), key=lambda pair: (pair[1], pair[0]))
        return self._notes.indexes[0], interval, inside


def numbers(found: list[tuple[int, Any]]) -> list[tuple[int, int]]:
    return [(id, loads(row)["n"]) for id, row in found]


@pytest.mark.parametrize("seed", range(6))
async def test_each_layer_reads_its_own_writes_over_those_below(seed: int) -> None:
    async with Harness({"schema": SCHEMA}) as t:
        player = Player(seed, t.app.database.catalog.tables["notes"])
        for _ in range(25):
            await t.app.database.commit(player.play)
            [stored] = await t.app.database.commit(lambda batch: [batch.attempt(everything, player)])
            assert stored == player.rows
        assert player.compared > 50


async def everything(transaction: Transaction, player: Player) -> Rows:
    notes = transaction.catalog.tables["notes"]
    return dict(numbers(await transaction.scan(Scan(notes, None, EVERYTHING, False, 9_999))))
