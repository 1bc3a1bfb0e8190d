"""Instructions per job are counted, compared with the last figures, and a loss is an error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import callgrind, floor, instructions
from bench.instructions import Sizes
from bench.workloads import files_in, run


def test_the_total_of_a_part_is_read_from_its_file(tmp_path: Path) -> None:
    for suffix, total in (("", 5), (".2", 20), (".10", 100), (".20", 200)):
        (tmp_path / f"out{suffix}").write_text(f"events: Ir\nfn=(1) main\n16 3\n\ntotals: {total}\n")

    assert [callgrind.total(tmp_path, part) for part in (2, 20)] == [20, 200]


def test_a_part_that_has_no_total_or_no_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "out.1").write_text("events: Ir\n")

    for part in (1, 2):
        with pytest.raises(callgrind.CallgrindError, match=f"got no totals of part {part}"):
            callgrind.total(tmp_path, part)


def test_a_figure_is_a_loss_from_three_percent_on() -> None:
    before = {"W3": {"duly": 100.0, "floor": 50.0}, "W4": {"duly": 200.0, "floor": 50.0}}
    now = {"W2": {"duly": 9.0, "floor": 3.0}, "W3": {"duly": 103.0, "floor": 60.0}, "W4": {"duly": 206.2, "floor": 1.0}}

    assert instructions.losses(before, now) == [
        "W3, floor: 60.0 ki, 20.0% more than the 50.0 in instructions.json; mend it, or write it down with --update"
        " and say why",
        "W4, duly: 206.2 ki, 3.1% more than the 200.0 in instructions.json; mend it, or write it down with --update"
        " and say why",
    ]


def test_the_table_has_the_figures_of_before_and_now_with_their_ratios() -> None:
    before = {"W3": {"duly": 100.0, "floor": 50.0}}

    lines = instructions.table(before, {"W3": {"duly": 72.0, "floor": 50.0}, "W4": {"duly": 265.0, "floor": 62.0}})

    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines.splitlines()[2:]]
    assert cells == [
        ["W3", "jobs that do nothing", "100.0", "72.0", "0.720", "50.0", "50.0", "1.000", "1.4"],
        ["W4", "jobs that read, patch, insert", "–", "265.0", "–", "–", "62.0", "–", "4.3"],
    ]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Have W3 measured without valgrind: what duly and the floor are said to take can be changed."""
    figures = {"duly": 100.0, "floor": 50.0}
    monkeypatch.setattr(callgrind, "is_installed", lambda: True)
    monkeypatch.setattr(callgrind, "version", lambda: "valgrind-3")
    monkeypatch.setattr(instructions, "measure", lambda keys, folder: {"W3": dict(figures)})
    return figures


def test_a_loss_ends_with_an_error_until_the_file_is_updated(
    tmp_path: Path, counted: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--only", "W3", "--file", str(tmp_path / "instructions.json")]
    (tmp_path / "instructions.json").write_text(
        json.dumps({"versions": instructions.versions(), "figures": {"W4": {"duly": 1.0, "floor": 1.0}}})
    )
    instructions.main([*arguments, "--update"])
    counted["duly"] = 104.0

    with pytest.raises(SystemExit, match="W3, duly: 104.0 ki, 4.0% more than the 100.0"):
        instructions.main(arguments)
    instructions.main([*arguments, "--update"])
    instructions.main(arguments)

    saved = json.loads((tmp_path / "instructions.json").read_text())
    assert saved["figures"] == {"W3": {"duly": 104.0, "floor": 50.0}, "W4": {"duly": 1.0, "floor": 1.0}}
    assert "That alone changes figures" not in capsys.readouterr().out


@pytest.mark.usefixtures("counted")
def test_figures_of_another_python_are_compared_with_a_remark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "instructions.json"
    file.write_text(json.dumps({"versions": {"python": "3.99"}, "figures": {}}))

    instructions.main(["--only", "W3", "--file", str(file)])

    assert "Before: python 3.99. Now: python 3." in capsys.readouterr().out


def test_without_valgrind_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(SystemExit, match="valgrind is missing.*apt install valgrind"):
        instructions.main(["--only", "W3"])


def test_the_figures_in_the_repository_are_of_all_workloads() -> None:
    figures = json.loads(instructions.FIGURES.read_text())["figures"]

    assert {key: list(sides) for key, sides in figures.items()} == {
        key: ["duly", "floor"] for key in ("W1", "W1x64", "W2", "W3", "W4", "actions")
    }


@pytest.mark.soak
@pytest.mark.timeout(900)  # it runs fifty times slower than other tests
@pytest.mark.skipif(not callgrind.is_installed(), reason="valgrind is not installed")
def test_a_job_that_does_nothing_takes_thousands_of_instructions(tmp_path: Path) -> None:
    figures = instructions.measure(["W3"], tmp_path, {"W3": Sizes(20, 200)})

    assert 5 < figures["W3"]["floor"] < figures["W3"]["duly"] < 1_000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not callgrind.is_installed(), reason="valgrind is not installed")
def test_a_run_that_fails_says_what_it_printed(tmp_path: Path) -> None:
    with pytest.raises(callgrind.CallgrindError, match="ended with 3:\nno such thing"):
        callgrind.count(["/bin/sh", "-c", "echo no such thing; exit 3"], {}, tmp_path)


def test_the_floor_of_calls_without_pauses_leaves_the_same_rows(tmp_path: Path) -> None:
    [rate] = run(floor.inserts_without_pauses, files_in(tmp_path), 12)

    assert rate > 0
