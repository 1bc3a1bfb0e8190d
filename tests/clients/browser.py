"""A real browser: Chromium, driven by scripts for Node, and the pages that `duly init` makes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.clients.node import FOLDER, NODE, USUAL, Script
from tests.support import duly

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_SERVED_AT = re.compile(r"port (\d+)")


def why_not() -> str:
    """Why no browser can be run here; empty if one can."""
    if reason := USUAL.why_not():
        return reason
    if not all((FOLDER / "node_modules" / name).is_dir() for name in ("playwright-core", "react", "vite")):
        return "React and the driver of the browser are not installed: `make setup`"
    if CHROMIUM is None:
        return (
            "there is no `chromium` on this machine, so pages were not tried in a browser: `apt-get install chromium`"
        )
    return ""


needs_browser = pytest.mark.skipif(bool(why_not()), reason=why_not())


def new_shop(folder: Path, template: str) -> Path:
    """Make an application as a newcomer does, with the packages of these tests in place of those of `npm install`."""
    assert duly(folder, "init", "shop", "--template", template).returncode == 0
    (folder / "shop" / "web" / "node_modules").symlink_to(FOLDER / "node_modules")
    return folder / "shop"


def build(web: Path, address: str) -> Path:
    """Build a page with Vite for a server at an address. Return the folder of what was built."""
    subprocess.run(
        [NODE, "node_modules/vite/bin/vite.js", "build", "--logLevel", "warn"],
        cwd=web,
        env={**os.environ, "VITE_CONVEX_URL": address, "NODE_DISABLE_COMPILE_CACHE": "1"},  # which a test would leave
        check=True,
        timeout=120,
    )
    return web / "dist"


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder of files, as the README of the page says. Its address."""
    command = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(folder), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            found = _SERVED_AT.search(process.stdout.readline())
            assert found is not None
            yield f"http://127.0.0.1:{found[1]}"
        finally:
            process.kill()


def in_browser(page: str, address: str, pictures: Path, source: str) -> Script:
    """A script with a browser in which it opens tabs of a page, whose server is at an address."""
    assert CHROMIUM is not None
    pictures.mkdir(exist_ok=True)
    print("pictures are in", pictures)
    return Script(FOLDER, page, source, "browser.mjs", (address, CHROMIUM, str(pictures)))
