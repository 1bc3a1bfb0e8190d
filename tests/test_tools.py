"""The tools of those who work on duly: what `make` lists, and the hooks of git."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pre_commit.clientlib import load_config

ROOT = Path(__file__).parent.parent


@pytest.fixture
def hooks() -> dict[str, dict[str, Any]]:
    repositories = load_config(str(ROOT / ".pre-commit-config.yaml"))["repos"]
    assert ["local"] == [one["repo"] for one in repositories]
    return {hook["id"]: hook for one in repositories for hook in one["hooks"]}


def test_no_hook_needs_the_network(hooks: dict[str, dict[str, Any]]) -> None:
    # These two install nothing. pre-commit reads `system` as `unsupported`, its newer name.
    assert {"unsupported", "pygrep"} == {hook["language"] for hook in hooks.values()}


def test_hooks_run_the_tools_of_make_check(hooks: dict[str, dict[str, Any]]) -> None:
    tools = {name for hook in hooks.values() for name in re.findall(r"\.venv/bin/(\w+)", hook["entry"])}
    assert {"mypy", "pyright", "pytest", "ruff"} == tools


@pytest.mark.parametrize(
    ("message", "is_refused"),
    [
        ("x" * 72, False),
        ("x" * 73, True),
        ("Say why\n\n" + "x" * 100, False),
    ],
)
def test_a_commit_has_a_short_subject(hooks: dict[str, dict[str, Any]], message: str, is_refused: bool) -> None:
    subject = hooks["subject"]
    assert ["--multiline"] == subject["args"]
    assert is_refused == bool(re.search(subject["entry"], message, re.MULTILINE))


@pytest.mark.parametrize("folder", ["tests/clients", "tests/clients/newest", "bench/peers"])
def test_lock_files_of_npm_name_no_registry(folder: str) -> None:
    assert '"resolved"' not in (ROOT / folder / "package-lock.json").read_text()


@pytest.mark.slow
def test_make_lists_every_target_in_a_group() -> None:
    makefile = (ROOT / "Makefile").read_text()
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    [own, *groups] = [group.splitlines() for group in listed.split("\n\n")]
    targets = [line.split()[1] for group in [own, *(group[1:] for group in groups)] for line in group]
    [phony] = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert sorted(phony.split()) == sorted(targets)
    assert ["  make help               Show this help"] == own
    assert {"Everyday", "Examples", "Measure", "Hunt for defects"} <= {group[0] for group in groups}
