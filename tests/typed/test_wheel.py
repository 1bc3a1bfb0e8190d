"""The wheel holds all of the package, and its types pass the type checker of an application that reads them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from hatchling.build import build_wheel

from tests.typed.test_typed import HERE, planted

ROOT = HERE.parent.parent
APPLICATION = ["-p", "tests.typed.till", "-m", "tests.typed.wrong_till"]
ERROR = re.compile(r"(?P<file>[^:]+):(?P<line>\d+): error:")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this duly, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        with ZipFile(folder / build_wheel(str(folder))) as archive:
            archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def files_in(package: Path) -> set[str]:
    files = (path.relative_to(package) for path in package.rglob("*") if path.is_file())
    return {file.as_posix() for file in files if "__pycache__" not in file.parts}


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    packed = files_in(wheel / "duly")
    assert {"py.typed", "storage/postgres/1_tables.sql"} <= packed
    assert files_in(ROOT / "src" / "duly") == packed


@pytest.mark.slow
@pytest.mark.timeout(600)  # mypy reads all of pydantic the first time
def test_mypy_finds_the_mistakes_of_an_application_and_none_of_the_package(wheel: Path) -> None:
    # mypy shows no errors of a package in site-packages, but all errors of one on MYPYPATH. `--strict` only adds checks.
    options = ["--config-file=", "--strict", "--follow-imports=normal", "--python-version=3.11"]
    run = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *APPLICATION],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(wheel)},
        capture_output=True,
        text=True,
        timeout=590,
    )
    found = {(match["file"], int(match["line"])) for match in map(ERROR.match, run.stdout.splitlines()) if match}
    expected = {("tests/typed/wrong_till.py", one.line) for one in planted([HERE / "wrong_till.py"])}
    assert 6 == len(expected)
    assert expected == found, run.stdout + run.stderr
