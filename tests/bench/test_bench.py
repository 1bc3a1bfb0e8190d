"""Every workload runs, and what it and its floor leave in their stores is checked."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from bench import filling, killed, machine, pending, report, run, stores
from bench.peers import measuring
from bench.peers import run as peers
from bench.peers.catalogue import Peer
from bench.peers.databases import SqliteDatabases
from bench.report import Measure, Result
from bench.workloads import WORKLOADS, Workload, files_in, measure


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.key)
def test_a_workload_and_its_floor_do_what_they_measure(workload: Workload, tmp_path: Path) -> None:
    results = measure(workload, files_in(tmp_path), count=12, rounds=1)

    assert [result.measure for result in results] == list(workload.measures)
    assert all(result.measure.less_is_better or min(*result.product, *result.floor) > 0 for result in results)
    assert list(tmp_path.iterdir()) == []


def test_a_run_prints_a_table_and_saves_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures.json"

    run.main(["--only", "W1", "--count", "12", "--json", str(figures), "--folder", str(tmp_path / "stores")])

    assert "| W1 | calls, one after another | calls/s |" in capsys.readouterr().out
    assert json.loads(figures.read_text())["results"][0]["workload"] == "W1"
    assert list((tmp_path / "stores").iterdir()) == []


def test_what_size_costs_is_a_table_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures.json"

    arguments = ["--only", "scale", "--count", "6000", "--rounds", "1", "--quick", "--json", str(figures)]
    run.main([*arguments, "--folder", str(tmp_path / "stores")])

    printed = capsys.readouterr().out
    assert "| page of 100 in the middle" in printed
    assert "A commit that one of 100 subscriptions reads wakes 1." in printed
    titles = [compared["title"] for compared in json.loads(figures.read_text())["scale"]]
    assert titles[0] == "get by id, in a query" and titles[-1] == "commit of one document"


def test_work_beside_pending_functions_is_compared_with_work_beside_none(tmp_path: Path) -> None:
    compared, taken = pending.measure(files_in(tmp_path), 50, rounds=1, share=10_000, say=print)

    assert [each.title for each in compared] == [
        "job that does nothing",
        "job that reads, patches, inserts",
        "start after commit, p50",
        "start after commit, p99",
    ]
    assert [each.title for each in taken] == [
        "from the start of the process to the first job, ms",
        "memory at most, MiB",
    ]
    assert all(len(each.small) == len(each.large) == 1 for each in (*compared, *taken))


def test_a_filled_store_is_one_that_duly_could_have_written(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/data.db"
    asyncio.run(filling.fill(store, 2_000))

    [(indexes, ids, times)] = stores.read(
        store,
        "SELECT (SELECT count(*) FROM sqlite_schema WHERE tbl_name = 'scheduled_functions' AND type = 'index'),"
        " count(DISTINCT id), count(DISTINCT due) FROM scheduled_functions",
    )
    asyncio.run(filling.fill(f"sqlite:///{tmp_path}/empty.db", 0))
    [(indexes_of_empty,)] = stores.read(
        f"sqlite:///{tmp_path}/empty.db",
        "SELECT count(*) FROM sqlite_schema WHERE tbl_name = 'scheduled_functions' AND type = 'index'",
    )
    assert (indexes, ids, times) == (indexes_of_empty, 2_000, 2_000)
    assert stores.read(store, "PRAGMA integrity_check") == [("ok",)]
    assert stores.states(store) == {}


def test_calls_in_a_storm_are_measured_and_its_jobs_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures.json"

    arguments = ["--only", "storm", "--count", "400", "--rounds", "1", "--json", str(figures)]
    run.main([*arguments, "--folder", str(tmp_path / "stores")])

    printed = capsys.readouterr().out
    assert "| mutation, meanwhile" in printed
    assert "All 400 jobs ran once each" in printed
    [found] = json.loads(figures.read_text())["storm"]
    assert min(len(found[when][kind]) for when in ("quiet", "meanwhile") for kind in ("mutation", "query")) > 0


def test_killed_workers_of_duly_lose_and_double_nothing(tmp_path: Path) -> None:
    assert asyncio.run(killed.run(f"sqlite:///{tmp_path}/data.db", 40)) == (0, 0)


def test_what_a_killed_worker_of_another_system_loses_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "ENVIRONMENTS", tmp_path)
    (tmp_path / "forgetful").mkdir()
    unfinished = "SELECT EXISTS (SELECT 1 FROM jobs)"
    peer = Peer("forgetful", "Forgetful", 40, 40, unfinished, settings="none", guarantee="none")
    command = [sys.executable, str(Path(__file__).parent / "forgetful_driver.py")]
    system = measuring.Measuring(peer, command, SqliteDatabases(tmp_path), peers.QUICK)

    async def lost(kills: bool) -> tuple[int, int]:
        await system.set_up()
        drained = await system.killed(40) if kills else (await system.drains("count", 40, rounds=1))[0]
        return drained.lost, drained.doubled

    assert asyncio.run(lost(kills=False)) == (0, 0)
    assert 0 < asyncio.run(lost(kills=True))[0] <= 30  # of the 40 it had taken, the first 10 had been written


def test_duly_stands_in_the_table_of_all_systems() -> None:
    results = [
        Result("W1", "", Measure("calls/s", 1), [9.0], []),
        Result("W3", "", Measure("jobs/s", 1), [1_000.0, 3_000.0, 2_000.0], []),
        Result("W4", "", Measure("jobs/s", 1), [4_000.0], []),
        Result("W5", "", Measure("ms", 1, "p99"), [1.25], []),
    ]
    rows = [{**run.DULY, **row} for row in run.duly_rows(results)]
    rows.append({**run.DULY, "workload": "killed", "lost": 3, "doubled": 2})

    head, _, line, *notes = peers.table(rows, peers.SQLITE_COLUMNS).splitlines()

    cells = dict(zip(*(map(str.strip, text.split("|")) for text in (head, line)), strict=True))
    assert (cells["jobs/s"], cells["W3"], cells["W4"], cells["lost, doubled"]) == ("duly", "2,000", "4,000", "0, 0")
    assert (cells["by 3 kills"], cells["W5 p50 ms"], cells["W5 p99 ms"]) == ("3, 2", "–", "1.2")
    assert any(note.startswith("- duly: mutations exactly once") for note in notes)


def test_a_profile_tells_parts_and_functions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run.main(["--profile", "W1", "--count", "12", "--folder", str(tmp_path)])

    printed = capsys.readouterr().out
    assert "wall µs/job" in printed
    assert "tottime" in printed


def test_less_of_a_latency_and_more_of_a_rate_is_a_higher_share_of_the_floor() -> None:
    rate = Result("R", "", Measure("jobs/s", 1), [50.0, 10.0, 20.0], [100.0, 100.0, 100.0])
    latency = Result("L", "", Measure("ms", 1), [2.0, 4.0, 4.0], [1.0, 1.0, 1.0])

    assert (rate.of_floor, latency.of_floor) == (0.2, 0.25)


def test_where_there_is_no_floor_there_is_no_share_of_it() -> None:
    result = Result("R", "two nodes", Measure("jobs/s", 1), [50.0], [])

    assert result.of_floor is None
    assert report.table([result]).splitlines()[-1].split("|")[6:8] == ["     – ", "        – "]


def test_percentiles_are_values_that_were_measured() -> None:
    assert report.percentiles(range(1, 102)) == (51, 100)
    assert report.percentiles([7.0]) == (7.0, 7.0)


def test_the_machine_is_told_in_two_lines(tmp_path: Path) -> None:
    assert len(machine.sentence(machine.describe(tmp_path, flushes=3)).splitlines()) == 2
