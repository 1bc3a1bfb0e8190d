"""The wheel holds all of the package, and its types pass the type checker of an application that reads them."""

from __future__ import annotations

import compileall
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest
from hatchling.build import build_sdist, build_wheel

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
    assert {"py.typed", "storage/postgres/1_tables.sql", "cli/templates/app/.gitignore"} <= packed
    assert files_in(ROOT / "src" / "duly") == packed


def test_the_source_distribution_has_every_file_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with tarfile.open(tmp_path / build_sdist(str(tmp_path))) as archive:
        packed = {name.partition("/src/duly/")[2] for name in archive.getnames()}
    assert files_in(ROOT / "src" / "duly") == packed - {""}


def test_the_wheel_makes_an_application_when_an_installer_has_compiled_it(wheel: Path, tmp_path: Path) -> None:
    assert compileall.compile_dir(wheel / "duly" / "cli", quiet=1)
    command = [sys.executable, "-m", "duly", "init", "shop"]
    subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(wheel)}, check=True, timeout=60)
    packed = {name.partition("/")[2] for name in files_in(wheel / "duly" / "cli" / "templates") if name[:5] != "react"}
    assert files_in(tmp_path / "shop") == packed
    assert list((tmp_path / "shop").rglob("*.pyc")) == []


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
