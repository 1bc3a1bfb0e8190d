"""Processes that share a store leave only what a serial order explains, and the same workloads find it if they do not.

More of it: `python -m tests.nodes.serializable`.
"""

from __future__ import annotations

import pytest

from tests import postgres

pytest.importorskip("asyncpg")

from tests.database.workloads import (
    WORKLOADS,
    Workload,
    disorder_of_lists,
    disorder_of_reads,
    lost_update,
    phantom,
    phantom_in_a_range,
    write_skew,
)
from tests.nodes.serializable import NOTHING, SNAPSHOTS, processes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(postgres.unavailable()), reason=str(postgres.unavailable())),
]

COUNT = 400  # calls: four lists get a hundred each
PLENTY = 20  # anomalies that a control finds, at least
TRIES = 10

SKEWS = (write_skew, phantom, phantom_in_a_range, disorder_of_reads)
"""What snapshot isolation lets happen."""


async def test_calls_of_several_processes_are_explained_by_a_serial_order() -> None:
    async with processes(3) as some:
        outcomes = {workload.__name__: await some.run(workload, count=COUNT) for workload in WORKLOADS}
    assert {name: outcome.violations for name, outcome in outcomes.items()} == {name: [] for name in outcomes}
    assert sum(outcome.conflicts for outcome in outcomes.values()) > 0


@pytest.mark.parametrize(
    ("compared", "workloads"),
    [(NOTHING, (lost_update, disorder_of_lists)), (SNAPSHOTS, SKEWS)],
    ids=["nothing is compared", "only what was written is compared"],
)
async def test_anomalies_are_found_when_less_is_compared_than_was_read(
    compared: str, workloads: tuple[Workload, ...]
) -> None:
    async with processes(2) as some:
        for workload in workloads:
            found = 0
            for _ in range(TRIES):  # where a process is held up, calls that should meet do not
                found += len((await some.run(workload, compared, COUNT)).violations)
                if found >= PLENTY:
                    break
            assert found >= PLENTY, workload.__name__
