"""`duly init`, and what a newcomer does next with the application that it makes."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from convex.http_client import ConvexHttpClient
from fastapi import FastAPI

from duly import App
from duly.server.listen import listening
from tests.support import duly
from tests.test_cli import dev

ROOT = Path(__file__).parent.parent.parent
COMMON = {
    ".gitignore",
    "README.md",
    "backend/crons.py",
    "backend/schema.py",
    "backend/tasks.py",
    "pyproject.toml",
    "tests/test_tasks.py",
    "web/README.md",
    "web/index.html",
    "web/package.json",
    "web/style.css",
}
PAGES = {"plain": {"web/main.js"}, "react": {"web/src/App.jsx", "web/src/main.jsx", "web/vite.config.js"}}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    assert duly(tmp_path, "init", "shop").returncode == 0
    return tmp_path / "shop"


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# What is made.


@pytest.mark.parametrize("template", PAGES)
def test_a_folder_is_made_and_its_files_and_the_next_commands_are_printed(tmp_path: Path, template: str) -> None:
    made = duly(tmp_path, "init", "tea-shop", "--template", template)
    assert (made.returncode, made.stderr) == (0, "")
    assert files_in(tmp_path / "tea-shop") == COMMON | PAGES[template]
    first, *lines = made.stdout.splitlines()
    assert first == "Made tea-shop:"
    assert {line.strip() for line in lines[: lines.index("")]} == COMMON | PAGES[template]
    assert lines[lines.index("") :][:4] == ["", "Next:", "  cd tea-shop", "  duly dev"]
    assert lines[-2].startswith("  npm install && ")


@pytest.mark.parametrize("template", PAGES)
def test_the_name_is_filled_in_everywhere(tmp_path: Path, template: str) -> None:
    duly(tmp_path, "init", "tea-shop", "--template", template)
    shop = tmp_path / "tea-shop"
    assert tomllib.loads((shop / "pyproject.toml").read_text())["project"]["name"] == "tea-shop"
    assert (shop / "README.md").read_text().startswith("# tea-shop\n")
    assert "<title>tea-shop</title>" in (shop / "web" / "index.html").read_text()
    assert [name for name in files_in(shop) if "{{name}}" in (shop / name).read_text()] == []


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    assert duly(tmp_path, "init", "shop").returncode == 0
    assert files_in(tmp_path / "shop") == COMMON | PAGES["plain"]


def test_a_folder_that_is_not_empty_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "notes.txt").write_text("mine")
    refused = duly(tmp_path, "init", "shop")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"got 'shop', which is not empty ({tmp_path}/shop); take another name" in refused.stderr
    assert files_in(tmp_path) == {"shop/notes.txt"}


def test_a_file_of_that_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shop").write_text("mine")
    refused = duly(tmp_path, "init", "shop")
    assert (refused.returncode, "got 'shop', which is a file" in refused.stderr) == (1, True)
    assert (tmp_path / "shop").read_text() == "mine"


@pytest.mark.parametrize("name", ["my shop", "1shop", "", ".", "../shop", "a/b", "shop-", "Läden", "shop\n"])
def test_a_name_that_is_none_for_a_project_is_refused(tmp_path: Path, name: str) -> None:
    refused = duly(tmp_path, "init", name)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"got the name {name!r}, expected letters, digits, - and _, a letter first" in refused.stderr
    assert files_in(tmp_path) == set()


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    refused = duly(tmp_path, "init", "a" * 300)
    assert (refused.returncode, "File name too long" in refused.stderr) == (1, True)


def test_an_application_is_not_named_as_the_library(tmp_path: Path) -> None:
    refused = duly(tmp_path, "init", "duly")
    assert (refused.returncode, "got the name 'duly', which is that of the library" in refused.stderr) == (1, True)


def test_an_unknown_template_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    refused = duly(tmp_path, "init", "shop", "--template", "vue")
    assert (refused.returncode, "'vue' is not one of 'plain', 'react'" in refused.stderr) == (2, True)


@pytest.mark.parametrize("template", PAGES)
def test_pages_have_the_packages_that_the_browser_of_the_tests_has_tried(template: str) -> None:
    tried = json.loads((ROOT / "tests" / "clients" / "package.json").read_text())["dependencies"]
    template_folder = ROOT / "src" / "duly" / "cli" / "templates" / template
    package = json.loads((template_folder / "web" / "package.json").read_text())
    needed = {**package["dependencies"], **package.get("devDependencies", {})}
    assert needed == {name: tried[name] for name in needed}


# What a newcomer does next.


@pytest.mark.slow
def test_its_own_tests_pass(shop: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=shop, capture_output=True, text=True, timeout=120)
    assert (done.returncode, "3 passed" in done.stdout) == (0, True), done.stdout + done.stderr


WATCHING = """
import sys
from convex import ConvexClient

for count in ConvexClient(sys.argv[1]).subscribe("tasks:count_open"):
    print(int(count), flush=True)
"""


@pytest.mark.slow
def test_dev_serves_it_to_callers_and_to_those_who_watch(shop: Path) -> None:
    with dev(shop) as running:
        running.wait_for("runs 8 functions of backend on sqlite:///.duly/data.db")
        address = running.wait_for("Clients connect to ").split()[-1]
        command = [sys.executable, "-c", WATCHING, address]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
            try:
                assert watching.stdout is not None
                assert watching.stdout.readline() == "0\n"
                client = ConvexHttpClient(address)
                task_id = client.mutation("tasks:add", {"text": "make tea", "remind_after": 0})
                assert watching.stdout.readline() == "1\n"
                running.wait_for("│ tasks:notify: do not forget: make tea")
                assert duly(shop, "run", "tasks:finish", json.dumps({"task_id": task_id})).returncode == 0
                assert watching.stdout.readline() == "0\n"
            finally:
                watching.kill()


async def test_it_is_mounted_in_fastapi(shop: Path) -> None:
    app = App(shop / "backend", f"sqlite:///{shop}/shop.db")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with app:
            yield

    api = FastAPI(lifespan=lifespan)
    api.mount("/", app.asgi)
    async with (
        api.router.lifespan_context(api),
        listening(api, "127.0.0.1", [0]) as address,
        httpx2.AsyncClient(base_url=address) as http,
    ):
        added = await http.post("/api/mutation", json={"path": "tasks:add", "args": {"text": "make tea"}})
        assert added.json()["status"] == "success"
        first_page = {"paginationOpts": {"numItems": 10, "cursor": None}}
        answer = await http.post("/api/query", json={"path": "tasks:page", "args": first_page})
        [task] = answer.json()["value"]["page"]
        assert (task["text"], task["reminder_state"]) == ("make tea", "pending")
