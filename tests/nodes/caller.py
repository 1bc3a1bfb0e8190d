"""A process that shares a store with others and calls its application on request: one order and one answer per line."""

from __future__ import annotations

import asyncio
import json
import sys
from random import Random
from typing import Any

from duly import App
from duly.database import batch
from duly.database.pending_batch import ConflictBackoff
from tests.database.workloads import SOURCE, make

# Long batches, so that much is committed while each is under way.
CALLERS = 200
batch.BATCH_SECONDS_MAX = batch.BATCH_SECONDS_ALONE_MAX = 1.0


async def obey(number: int) -> None:
    """Obey until there are no more orders: open a store, close it, or make calls."""
    conflicts = count_conflicts()
    app: App | None = None
    while line := await asyncio.to_thread(sys.stdin.readline):
        order: dict[str, Any] = json.loads(line)
        answer: dict[str, int] = {}
        if "open" in order:
            app = App(SOURCE, order["open"])
            await app.__aenter__()
        elif "close" in order:
            assert app
            await app.close()
        else:
            assert app
            while app.database.commit_log.version < order["since"]:  # else a control may not find what it is to change
                await asyncio.sleep(0.001)
            conflicts.clear()
            answer["returned"] = await make(app, order["calls"], Random(number), CALLERS)
        print(json.dumps(answer | {"conflicts": len(conflicts)}), flush=True)


def count_conflicts() -> list[None]:
    """A list that grows with each batch that meets a conflict."""
    conflicts: list[None] = []
    on_conflict = ConflictBackoff.on_conflict

    def count(caution: ConflictBackoff) -> None:
        conflicts.append(None)
        on_conflict(caution)

    ConflictBackoff.on_conflict = count
    return conflicts


if __name__ == "__main__":
    asyncio.run(obey(int(sys.argv[1])))
