"""What looks for tests that fail by chance tells of those that do, and leaves nothing running."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # processes

ROOT = Path(__file__).parent.parent


def flaky(tmp_path: Path, runs: int, source: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.flaky", "--runs", str(runs), "--", sys.executable, "-c", source]
    environment = {"PATH": "", "TMPDIR": str(tmp_path)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)


def test_each_run_is_told_of_and_what_failed_in_it_is_named_and_kept(tmp_path: Path) -> None:
    source = f"""
from pathlib import Path
(count := Path({str(tmp_path)!r}, "count")).open("a").write("x")
if count.stat().st_size == 2:
    print("FAILED tests/test_a.py::test_b - AssertionError: no")
    raise SystemExit(1)
"""
    told = flaky(tmp_path, 3, source)

    assert told.returncode == 1, told.stderr
    lines = told.stdout.splitlines()
    assert [line.split()[:3] for line in lines if line.startswith("run")] == [
        ["run", "1", "passed"],
        ["run", "2", "failed"],
        ["run", "3", "passed"],
    ]
    assert "         tests/test_a.py::test_b - AssertionError: no" in lines
    [kept] = [line.split()[-1] for line in lines if line.startswith("         see ")]
    assert "FAILED tests/test_a.py::test_b" in Path(kept).read_text()
    assert lines[-1] == "1 of 3 runs failed"


def test_nothing_has_failed_when_all_runs_pass(tmp_path: Path) -> None:
    told = flaky(tmp_path, 2, "")

    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[-1] == "0 of 2 runs failed; no test failed by chance"


def test_a_run_goes_on_after_a_test_that_logs_what_no_encoding_can_tell(tmp_path: Path) -> None:
    (tmp_path / "test_odd.py").write_text(
        "import logging\n"
        "def test_fails(): logging.error('\\udce9'); assert '\\udce9' == '☕'\n"
        "def test_passes(): print('\\udce9')\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.conftest",
        "-n",
        "1",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["TMPDIR"] = str(tmp_path)
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)

    assert "INTERNALERROR" not in ran.stdout
    assert "1 failed, 1 passed" in ran.stdout
