"""The pages of the documentation: their programs run and print what the pages say, and their links lead somewhere."""

from __future__ import annotations

import asyncio
import http.client
import importlib
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

import duly
from duly import App, Limits, MutationCtx, limits
from duly.cli.process.serve import serve
from duly.testing import Harness
from tests import page_shell, pages
from tests.page_shell import Shell
from tests.pages import LINES_MAX, ROOT, Command, Fragment, Program, blocks, programs, read

PAGES: Final = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))

NO_TASKS: Final = {
    "docs/index.md": "lists the others",
    "docs/api.md": "is made from docstrings",
    "docs/architecture.md": "is about the inside",
    "docs/benchmarks.md": "is figures and how to get them",
    "docs/clients.md": "is about programs of others, which tests/clients runs",
    "docs/guarantees.md": "is a reference",
    "docs/failures.md": "is a reference",
    "docs/postgresql.md": "is a reference",
    "docs/production.md": "is options, and files of other programs",
    "docs/scaling.md": "is on paper",
    **{page: "is a record" for page in PAGES if page.startswith("docs/decisions/")},
}
"""Pages that need no program, and why."""

TASKS: Final = [page for page in PAGES if page not in NO_TASKS]

ELSEWHERE: Final = {
    "README.md": {"backend/orders.py", "backend/crons.py"},  # test_the_functions_of_the_readme_run and those below it
    "docs/running.md": {"service.py"},  # test_a_service_runs_until_it_gets_a_signal
    "docs/deploying.md": {"node.py"},  # the same
}
"""Programs that no session of their page runs, and which test does."""

INSIDE: Final = {page for page in PAGES if page.startswith(("docs/architecture", "docs/decisions/"))}
"""Pages about the code, which name more than limits."""

LONG: Final = {"docs/architecture.md", "docs/benchmarks.md"}
"""Pages for which others set the length."""


def folder_of(page: str, folder: Path) -> Path:
    """A folder with all programs of a page."""
    for block in blocks(read(page)):
        if isinstance(block, Program):
            pages.write(block, folder)
    return folder


def make_store(path: Path) -> None:
    """As `duly dev` does, which the reader has started."""

    async def make() -> None:
        async with App({}, f"sqlite:///{path}", executor=False):
            pass

    asyncio.run(make())


def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, *args], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    with page_shell.opened() as opened:
        yield opened


# All pages.


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_the_sessions_of_a_page_print_what_it_says(page: str, tmp_path: Path, shell: Shell) -> None:
    for block in blocks(read(page)):
        match block:
            case Program():
                pages.write(block, tmp_path)
            case Command():
                wrong = pages.run(block, tmp_path, shell)
                assert wrong is None, f"{page}:\n{wrong}"
            case Fragment():
                pages.compiles(block)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", *(page for page in TASKS if "# backend/" in read(page))])
async def test_the_modules_of_a_page_load(page: str, tmp_path: Path) -> None:
    async with Harness(folder_of(page, tmp_path) / "backend"):
        pass


@pytest.mark.parametrize("page", TASKS)
def test_a_page_of_a_task_begins_with_a_program_that_runs(page: str) -> None:
    first, *rest = blocks(read(page))
    assert isinstance(first, Program), f"{page} begins with {first}"
    if first.path not in ELSEWHERE.get(page, set()):
        after = [block for block in rest if not isinstance(block, Program)]
        assert after and isinstance(after[0], Command), f"no session follows the first programs of {page}"


@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_each_program_of_a_page_is_run(page: str) -> None:
    """By a session, as a module that such a program imports, or in a test of its own."""
    text = read(page)
    said = " ".join(block.line for block in blocks(text) if isinstance(block, Command))
    imported = "\n".join(block.text for block in blocks(text) if isinstance(block, Program))
    for path in programs(text).keys() - ELSEWHERE.get(page, set()):
        if not path.startswith("backend/"):
            stem = path.removesuffix(".py")
            is_run = path in said or re.search(rf"\b(from|import) {stem}\b|[\"']{stem}[\"':]", imported)
            assert is_run or path in ("gunicorn.conf.py", "tests/test_orders.py"), f"{page}: {path}"


@pytest.mark.parametrize("page", [page for page in ["README.md", *PAGES] if page not in LONG])
def test_a_page_is_short(page: str) -> None:
    assert len(read(page).splitlines()) <= LINES_MAX


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "examples/orders/README.md", *PAGES])
def test_links_lead_somewhere(page: str) -> None:
    for link, _, anchor in re.findall(r"\]\(([^)#:]*)(#([^)]+))?\)", (ROOT / page).read_text()):
        target = (ROOT / page).parent / link if link else ROOT / page
        assert target.exists(), f"{page}: {link}"
        assert not anchor or anchor in anchors(target), f"{page}: {link}#{anchor}"


@pytest.mark.parametrize("page", [page for page in ["README.md", *PAGES] if page not in INSIDE])
def test_the_numbers_that_a_page_names_are_there(page: str) -> None:
    for name in re.findall(r"`([A-Z_]+_(?:MAX|MIN|MS|SECONDS))`", read(page)):
        assert hasattr(limits, name), f"{page}: {name}"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *PAGES])
def test_the_files_that_a_page_names_are_there(page: str) -> None:
    for path in re.findall(r"`((?:src|tests|examples|bench)/[\w/.]+\.\w+)`", read(page)):
        assert (ROOT / path).exists(), f"{page}: {path}"


def test_the_options_of_serve_that_a_page_names_are_there() -> None:
    known = {option for parameter in serve.params for option in parameter.opts}
    named = set(re.findall(r"`(?:duly serve )?(--[a-z-]+)", read("docs/production.md")))
    assert named
    assert named <= known


def test_the_index_and_the_menu_have_all_pages_of_tasks() -> None:
    menu = (ROOT / "mkdocs.yml").read_text()
    for page in TASKS:
        name = page.removeprefix("docs/")
        assert f": {name}\n" in menu, f"{page} has no place in mkdocs.yml"
        assert f"({name})" in read("docs/index.md"), f"{page} is not in docs/index.md"


# The convention.


@pytest.mark.parametrize(
    ("printed", "expected", "is_as_said"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\nb\n", "a\n", False),
        ("a 12 ms\n", "a … ms\n", True),
        ("a\nb\nc\n", "a\n…\n", True),
        ("b\nc\n", "a\n…\n", False),
        ("a.c\n", "abc\n", False),
        ("", "", True),
        ("a\n", "", False),
    ],
)
def test_a_session_is_compared_with_what_is_printed(printed: str, expected: str, is_as_said: bool) -> None:
    assert pages.fits(printed, expected) is is_as_said


@pytest.mark.slow
def test_a_command_that_fails_or_prints_something_else_is_reported(tmp_path: Path, shell: Shell) -> None:
    (tmp_path / "main.py").write_text("print('tea')")
    assert pages.run(Command("python main.py", "tea\n"), tmp_path, shell) is None
    assert "expected:\ncoffee" in (pages.run(Command("python main.py", "coffee\n"), tmp_path, shell) or "")
    assert "ended with 1" in (pages.run(Command("python nothing.py", ""), tmp_path, shell) or "")


def test_the_blocks_of_a_page_are_read_in_their_order() -> None:
    text = (
        "```python\n# a/b.py\nx = 1\n```\n\n```console\n$ python a/b.py\n$ ls\nb.py\n```\n\n```python\nawait x\n```\n"
    )
    assert blocks(text) == [
        Program("a/b.py", "# a/b.py\nx = 1\n"),
        Command("python a/b.py", ""),
        Command("ls", "b.py\n"),
        Fragment("await x\n"),
    ]


# The README.


@pytest.fixture
def readme(tmp_path: Path) -> Path:
    return folder_of("README.md", tmp_path)


@pytest.mark.slow
def test_the_functions_of_the_readme_run(readme: Path) -> None:
    make_store(readme / ".duly" / "data.db")
    added = run(readme, "-m", "duly", "run", "orders:create_order", '{"items": ["tea"]}')
    status = run(readme, "-m", "duly", "run", "orders:status", f'{{"order_id": {added.stdout.strip()}}}')
    assert status.stdout == '"new"\n'


@pytest.mark.slow
def test_the_cron_of_the_readme_is_there(readme: Path) -> None:
    make_store(readme / ".duly" / "data.db")
    run(readme, "-m", "duly", "run", "orders:create_order", '{"items": ["tea"]}')
    [_, cron] = run(readme, "-m", "duly", "crons", "list").stdout.splitlines()
    assert cron.startswith("delete archived orders  At 03:00 every day  Europe/Berlin  ")


async def test_the_cron_of_the_readme_deletes_more_orders_than_one_call_may_read(readme: Path) -> None:
    orders = [{"items": [], "status": "archived" if n % 3 else "new"} for n in range(1_700)]
    async with Harness(readme / "backend", limits=Limits(documents_read_max=1_000)) as t:

        async def add(ctx: MutationCtx) -> None:
            for order in orders:
                await ctx.db.insert("orders", order)

        async def left(ctx: MutationCtx) -> list[str]:
            return [order["status"] for order in await ctx.db.query("orders").collect()]

        await t.transaction(add)
        await t.advance(timedelta(days=1))
        assert await t.failures() == []
        assert await t.transaction(left) == ["new"] * 567


# Services.


@pytest.mark.slow
@pytest.mark.parametrize(("page", "program"), [("docs/running.md", "service.py"), ("docs/deploying.md", "node.py")])
def test_a_service_runs_until_it_gets_a_signal(page: str, program: str, tmp_path: Path) -> None:
    folder = folder_of(page, tmp_path)
    (folder / "backend").mkdir(exist_ok=True)
    (folder / "backend" / "clock.py").write_text(TICK)
    make_store(folder / "node.db")
    run(folder, "-m", "duly", "run", "clock:tick", "--store", "sqlite:///node.db")
    environment = {**os.environ, "DULY_STORE": "sqlite:///node.db"}
    node = subprocess.Popen([sys.executable, program], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    with node, killed_on_error(node):
        assert node.stderr
        assert any("clock:tock" in line for line in node.stderr), "it ended, or ran nothing"
        node.send_signal(signal.SIGTERM)
        assert node.wait(60) == 0


TICK = """
from duly import MutationCtx, internal, internal_mutation, mutation

@mutation
async def tick(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(0, internal.clock.tock)

@internal_mutation
async def tock(ctx: MutationCtx) -> None: ...
"""


@pytest.mark.slow
def test_the_service_of_fastapi_ends_though_a_client_reads_its_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder_of("docs/fastapi.md", tmp_path))  # the path of a socket has about 100 characters
    orders = Path("backend/orders.py")
    orders.write_text(orders.read_text().replace("run_after(100,", "run_after(3_600_000,"))  # its events have no end
    command = [sys.executable, "-m", "uvicorn", "service:api", "--uds", "api.sock", "--timeout-graceful-shutdown", "1"]
    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server,
        socket.socket(socket.AF_UNIX) as first,
        socket.socket(socket.AF_UNIX) as second,
        killed_on_error(server),
    ):
        assert server.stderr
        assert any("running on unix socket" in line for line in server.stderr), "it does not serve"
        order = answer(first, "POST", "/orders", '["tea"]').read().decode().strip('"')
        events = answer(second, "GET", f"/orders/{order}/events")
        assert events.readline() == b'data: "new"\n'
        server.send_signal(signal.SIGTERM)
        log = server.stderr.read()
        assert server.wait(60) in (0, -signal.SIGTERM), log  # uvicorn ends itself by the signal that it got
        assert "Application shutdown complete" in log
    assert not Path("shop.db-wal").exists()  # it was closed in order


@contextmanager
def killed_on_error(process: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        process.kill()
        raise


def answer(connection: socket.socket, method: str, url: str, body: str = "") -> http.client.HTTPResponse:
    connection.connect("api.sock")
    head = (
        f"{method} {url} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall((head + body).encode())
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response


# The queries.


@pytest.mark.server
async def test_the_queries_of_monitoring_are_answered(store_of: Callable[[str], str]) -> None:
    store = store_of("postgres")
    address, _, schema = store.partition("?schema=")
    statements = re.findall(r"```sql\n(.*?)```", read("docs/failures.md"), re.DOTALL)
    assert len(statements) == 6
    async with App({}, store):
        await answered(address, [statement.replace("duly.", f"{schema}.") for statement in statements])


async def answered(address: str, statements: list[str]) -> None:
    import asyncpg  # type: ignore[import-untyped]

    connection: Any = await asyncpg.connect(address)
    try:
        for statement in statements:
            await connection.fetch(statement)
    finally:
        await connection.close()


# The site.

HOOKS: Final = runpy.run_path(str(ROOT / "docs" / "assets" / "hooks.py"))
REFERENCED: Final = re.findall(r"^::: (\S+)", HOOKS["with_modules"](read("docs/api.md")), re.MULTILINE)


def test_the_reference_has_all_public_names() -> None:
    assert {name for name in REFERENCED if name.count(".") == 1} == {f"duly.{name}" for name in duly.__all__}


@pytest.mark.parametrize("name", REFERENCED)
def test_what_the_reference_names_is_there(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute)


@pytest.mark.slow
def test_the_site_is_built_strictly_and_needs_no_network(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    fetched = re.compile(
        r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"(?:https?:)?//[^\"]*\"|@import|url\(\"?http"
    )
    for path in (tmp_path / "site").rglob("*"):
        if path.suffix in (".html", ".css"):
            assert fetched.findall(path.read_text()) == [], path
    reference = (tmp_path / "site" / "api.html").read_text()
    for name in REFERENCED:
        assert f'id="{name}"' in reference, name
