"""Every workload runs, and what it and its floor leave in their stores is checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import machine, report, run
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
