"""The programs of the README run as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAM = re.compile(r"```python\n# (\S+\.py)\n(.*?)```", re.DOTALL)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, program in PROGRAM.findall((ROOT / "README.md").read_text()):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(program)
    return tmp_path


def run(project: Path, *args: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, *args], cwd=project, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_the_functions_of_the_readme_run(project: Path) -> None:
    added = run(project, "-m", "duly", "run", "orders:create_order", '{"items": ["tea"]}')
    status = run(project, "-m", "duly", "run", "orders:status", f'{{"order_id": {added.stdout.strip()}}}')
    assert status.stdout == '"new"\n'


def test_the_program_of_the_readme_runs(project: Path) -> None:
    assert run(project, "main.py").stdout == "the order is new\n"


def test_the_test_of_the_readme_passes(project: Path) -> None:
    assert "1 passed" in run(project, "-m", "pytest", "-q", "test_orders.py").stdout


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / link).exists(), f"{page}: {link}"
