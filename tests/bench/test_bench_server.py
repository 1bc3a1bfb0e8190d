"""The measurement of a server runs, and says of each figure what stands beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.server import run


def test_a_small_run_has_a_line_for_each_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ("--sockets", "5", "--subscriptions", "3", "--rounds", "2", "--callers", "2", "--calls", "20")

    run.main([*sizes, "--folder", str(tmp_path)])

    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [line.strip("|").split("|")[0].strip() for line in table[2:]] == [
        "KB per idle socket, 3 subscriptions of everybody",
        "KB per idle socket, 3 subscriptions of its own",
        "ms until 5 watchers of one query have it, p50",
        "ms until 5 watchers of one query have it, p99",
        "ms until 5 watchers of a query of its own each have it, p50",
        "ms until 5 watchers of a query of its own each have it, p99",
        "mutations/s over 2 sockets",
        "mutations/s over 2 HTTP connections",
    ]
    assert list(tmp_path.iterdir()) == []
