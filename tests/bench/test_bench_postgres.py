"""What is measured on PostgreSQL runs, on one node and on two, and stands in one table with other systems."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests import postgres as servers

if reason := servers.unavailable():
    pytest.skip(reason, allow_module_level=True)

from bench import nodes, pending, postgres, stores
from bench.filling import fill
from bench.peers import run as peers
from bench.peers.catalogue import PEERS
from bench.peers.databases import PostgresDatabases
from bench.report import Measure, Result
from bench.workloads import Workload, measure

ON_ONE = [workload for workload in postgres.WORKLOADS if not workload.key.endswith("x2")]
ON_TWO = [workload for workload in postgres.WORKLOADS if workload.key in ("W4x2", "W5x2")]


@pytest.fixture
def address() -> str:
    return servers.shared_address()


@pytest.mark.parametrize("workload", ON_ONE, ids=lambda workload: workload.key)
def test_a_workload_and_its_floor_do_what_they_measure(workload: Workload, address: str) -> None:
    results = measure(workload, postgres.schemas_of(address), count=12, rounds=1)

    assert [result.measure for result in results] == list(workload.measures)
    assert all(result.measure.less_is_better or min(*result.product, *result.floor, 1) > 0 for result in results)


@pytest.mark.soak
@pytest.mark.parametrize("workload", ON_TWO, ids=lambda workload: workload.key)
def test_two_nodes_do_the_work(workload: Workload, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "REGROUP_SECONDS", 0.4)

    results = measure(workload, postgres.schemas_of(address), count=12, rounds=1)

    assert [result.measure for result in results] == list(workload.measures)


@pytest.mark.soak
def test_work_beside_pending_functions_is_compared_with_work_beside_none(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared, taken = pending.measure(postgres.schemas_of(address), 50, rounds=1, share=10_000, say=print)

    assert [each.title for each in compared] == [
        "job that does nothing",
        "job that reads, patches, inserts",
        "start after commit, p50",
        "start after commit, p99",
    ]
    assert all(len(each.small) == len(each.large) == 1 for each in (*compared, *taken))


def test_a_lost_and_a_doubled_job_are_noticed(address: str) -> None:
    async def count(*numbers: int) -> None:
        await fill(store, 0)
        async with stores.connection(store) as connection:
            counters, events = stores.table_of(store, "counters"), stores.table_of(store, "events")
            await connection.execute(f"""INSERT INTO {counters} VALUES (1, '{{"n":2}}')""")
            for id, n in enumerate(numbers):
                await connection.execute(f"""INSERT INTO {events} VALUES ({id}, '{{"n":{n}}}')""")

    for numbers, error in (((7, 8), None), ((7,), "got 1 events of 1 jobs"), ((7, 7), "got 2 events of 1 jobs")):
        with postgres.schemas_of(address)() as store:
            asyncio.run(count(*numbers))
            if error is None:
                stores.check_counted(store, 2)
            else:
                with pytest.raises(AssertionError, match=error):
                    stores.check_counted(store, 2)


def test_a_run_prints_a_table_and_saves_its_figures(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "figures.json"

    postgres.main([address, "--only", "W2", "--count", "12", "--rounds", "1", "--json", str(figures)])

    printed = capsys.readouterr().out
    assert "PostgreSQL " in printed and "Flush of 4 KiB" in printed
    assert "| W2 | scheduling, 1,000 a mutation | jobs/s |" in printed
    saved = json.loads(figures.read_text())
    assert [row["workload"] for row in saved["systems"]] == ["W2"]


def test_a_profile_tells_parts_and_functions(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    postgres.main([address, "--profile", "W1", "--count", "12"])

    printed = capsys.readouterr().out
    assert "commit: the call" in printed and "tottime" in printed


def test_a_system_that_is_missing_is_a_row_that_says_why(address: str) -> None:
    of_the_future = PEERS[0]._replace(key="none", name="Of the future", python=(9, 9))

    rows = asyncio.run(peers.measure([of_the_future], PostgresDatabases(address), peers.QUICK, print, peers.WORKLOADS))

    assert [(row["peer"], row["why"]) for row in rows] == [
        ("Of the future", "needs Python 9.9 or newer, which was not found")
    ]
    assert "- Of the future, all: needs Python 9.9 or newer, which was not found." in peers.table(rows)


def test_duly_stands_in_the_table_of_all_systems() -> None:
    results = [
        Result("W1", "", Measure("calls/s", 1), [9.0], []),
        Result("J1", "", Measure("jobs/s", 1), [1_000.0, 3_000.0, 2_000.0], []),
        Result("W4", "", Measure("jobs/s", 1), [4_000.0], []),
        Result("W5", "", Measure("ms", 1, "p99"), [1.25], []),
        Result("W5x2", "", Measure("ms", 1, "p99"), [9.0], []),
    ]

    head, _, line, *notes = peers.table(postgres._rows(results)).splitlines()

    cells = dict(zip(*(map(str.strip, text.split("|")) for text in (head, line)), strict=True))
    assert cells["jobs/s"] == "duly"
    assert (cells["W1"], cells["W2"], cells["W4"], cells["lost, doubled"]) == ("2,000", "–", "4,000", "0, 0")
    assert (cells["W5 p50 ms"], cells["W5 p99 ms"]) == ("–", "1.2")
    assert any(note.startswith("- duly: mutations exactly once") for note in notes)
