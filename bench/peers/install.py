"""Each system in an environment of its own, made from files of this folder and kept until they change."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.peers.catalogue import Peer

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parent / ".peers"
SECONDS_MAX = 300


class Missing(Exception):
    """Why a system cannot be run here."""


def install(peer: Peer) -> list[str]:
    """The command that runs its driver, less the driver's arguments; run it in its folder."""
    folder = ENVIRONMENTS / peer.environment
    if peer.python is None:
        return [_with_node(folder), str(HERE / f"{peer.key}.mjs")]
    return [_with_python(folder, peer), str(HERE / f"{peer.key}_driver.py")]


def _with_python(folder: Path, peer: Peer) -> str:
    assert peer.python is not None
    requirements = HERE / f"requirements-{peer.environment}.txt"
    python = folder / "bin" / "python"
    if not _is_made(folder, [requirements]):
        _run([_python(peer.python), "-m", "venv", "--clear", str(folder)])
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--requirement", str(requirements)])
        _mark_made(folder, [requirements])
    return str(python)


def _with_node(folder: Path) -> str:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise Missing("needs Node and npm, which were not found")
    files = [HERE / "package.json", HERE / "package-lock.json"]
    if not _is_made(folder, files):
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(file, folder)
        _run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder)])
        _mark_made(folder, files)
    return node


def _python(oldest: tuple[int, int]) -> str:
    """An interpreter that is new enough: this one, one on the path, or one that pyenv has."""
    test = f"import sys, venv, ensurepip; sys.exit(sys.version_info < {oldest})"
    for python in _pythons():
        try:
            found = subprocess.run([python, "-c", test], capture_output=True, check=False)
        except OSError:
            continue
        if found.returncode == 0:
            return python
    raise Missing(f"needs Python {oldest[0]}.{oldest[1]} or newer, which was not found")


def _pythons() -> Iterator[str]:
    yield sys.executable
    yield from (f"python3.{minor}" for minor in (12, 13, 14))
    yield from ("python3", "python")
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from map(str, sorted(pyenv.glob("versions/3.*/bin/python")))


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"could not be installed: {error}") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        raise Missing(f"could not be installed: {lines[0] if lines else f'exit code {done.returncode}'}")


def _is_made(folder: Path, files: list[Path]) -> bool:
    stamp = folder / "made-from"
    return stamp.exists() and stamp.read_text() == _contents(files)


def _mark_made(folder: Path, files: list[Path]) -> None:
    (folder / "made-from").write_text(_contents(files))


def _contents(files: list[Path]) -> str:
    return "\n".join(file.read_text() for file in files)
