"""What `duly dev` prints is told to whoever reads it, and fails nobody where that is nobody."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from duly.cli.terminal import print_runs
from duly.functions.call_log import APP_LOG


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """The logger of duly, as `duly dev` sets it up, and as it was afterwards."""
    loggers = [logging.getLogger(name) for name in ("duly", APP_LOG, "duly.run")]
    levels = [log.level for log in loggers]
    monkeypatch.setattr(loggers[0], "handlers", [])
    monkeypatch.setattr(loggers[0], "propagate", True)
    print_runs()
    yield loggers[0]
    for log, level in zip(loggers, levels, strict=True):
        log.setLevel(level)


def test_a_line_is_printed_with_its_logger(log: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    log.warning("the disk is full")

    assert capsys.readouterr().out.endswith("│ duly: warning the disk is full\n")


def test_a_line_that_nobody_reads_any_more_fails_nobody(log: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **options: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("click.echo", broken)

    log.warning("the disk is full")
