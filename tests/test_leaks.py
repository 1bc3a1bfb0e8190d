"""What a test leaves open is an error of that test, and of no other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # processes

ROOT = Path(__file__).parent.parent

# What leaking.py leaves open, and what is said of it.
EXPECTED = {
    "socket": r"descriptor \d+, socket:\[\d+\] of \('0.0.0.0', 0\)",
    "socket_in_garbage": "unclosed <socket.socket",
    "socket_of_a_failure": "unclosed <socket.socket",
    "file": r"descriptor \d+, .*/tests/leaking.py",
    "pipe": r"descriptor \d+, pipe:",
    "server": r"descriptor \d+, socket:",
    "loop": r"descriptor \d+, anon_inode:\[eventpoll\]",
    "process": r"process \d+, .*input\(\)",
    "process_that_has_ended": r"process \d+, which has ended, and nobody has waited for it",
    "thread": r"this test left behind thread 'endless' \(\d+\)\n\Z",
    "coroutine": "coroutine 'never' was never awaited",
    "task": "Task exception was never retrieved",
    "temporary_file": "temporary file .*/left",
    "store": "the store postgresql://nobody@nowhere/nothing",
    "destructor": "ValueError: in __del__",
    "destructor_and_fixture": "ValueError: in __del__",
    "the_last": r"a fixture of tests.leaking left behind descriptor \d+, socket:.*\n=*\Z",
}
FINE = {
    "nothing_1",
    "nothing_2",
    "nothing_3",
    "nothing_4",
    "thread_that_is_just_ending",
    "with_a_fixture_of_the_module",
}


def test_what_a_test_leaves_open_is_reported_in_that_test_and_in_no_other(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "--tb=short", "tests/leaking.py"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    environment.pop("PYTEST_XDIST_WORKER", None)
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)

    told = dict(re.findall(r"^ERROR tests/leaking.py::test_(\w+) - (.*)$", run.stdout, re.MULTILINE))
    parts = re.split(
        r"^_+ ERROR at teardown of test_(\w+) _+$", run.stdout.split("= FAILURES =")[0], flags=re.MULTILINE
    )
    reports = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert told.keys() == reports.keys() == EXPECTED.keys(), run.stdout
    for test, message in EXPECTED.items():
        assert re.search(message, reports[test]), (test, reports[test])
    assert not [test for test in FINE if f"PASSED tests/leaking.py::test_{test}\n" not in run.stdout]
