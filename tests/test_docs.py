"""The programs of the README and of the documentation run as they stand there."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from duly import App, Limits, MutationCtx
from duly.testing import Harness

pytestmark = pytest.mark.slow  # processes

ROOT = Path(__file__).parent.parent
PROGRAM = re.compile(r"```python\n# (\S+\.py)\n(.*?)```", re.DOTALL)
STATEMENT = re.compile(r"```sql\n(.*?)```", re.DOTALL)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for page in ("README.md", "docs/deploying.md", "docs/guide.md"):
        for name, program in PROGRAM.findall((ROOT / page).read_text()):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(program)
    return tmp_path


def run(project: Path, *args: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, *args], cwd=project, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def make_store(path: Path) -> None:
    """As `duly dev` does, which the reader has started."""

    async def make() -> None:
        async with App({}, f"sqlite:///{path}", executor=False):
            pass

    asyncio.run(make())


def test_the_functions_of_the_readme_run(project: Path) -> None:
    make_store(project / ".duly" / "data.db")
    added = run(project, "-m", "duly", "run", "orders:create_order", '{"items": ["tea"]}')
    status = run(project, "-m", "duly", "run", "orders:status", f'{{"order_id": {added.stdout.strip()}}}')
    assert status.stdout == '"new"\n'


def test_the_cron_of_the_readme_is_there(project: Path) -> None:
    make_store(project / ".duly" / "data.db")
    run(project, "-m", "duly", "run", "orders:create_order", '{"items": ["tea"]}')
    [_, cron] = run(project, "-m", "duly", "crons", "list").stdout.splitlines()
    assert cron.startswith("delete archived orders  At 03:00 every day  Europe/Berlin  ")


async def test_the_cron_of_the_readme_deletes_more_orders_than_one_call_may_read(project: Path) -> None:
    orders = [{"items": [], "status": "archived" if n % 3 else "new"} for n in range(1_700)]
    async with Harness(project / "backend", limits=Limits(documents_read_max=1_000)) as t:

        async def add(ctx: MutationCtx) -> None:
            for order in orders:
                await ctx.db.insert("orders", order)

        async def left(ctx: MutationCtx) -> list[str]:
            return [order["status"] for order in await ctx.db.query("orders").collect()]

        await t.transaction(add)
        await t.advance(timedelta(days=1))
        assert await t.failures() == []
        assert await t.transaction(left) == ["new"] * 567


def test_the_program_of_the_readme_runs(project: Path) -> None:
    assert run(project, "main.py").stdout == "the order is new\n"


def test_the_test_of_the_readme_passes(project: Path) -> None:
    assert "1 passed" in run(project, "-m", "pytest", "-q", "test_orders.py").stdout


def test_the_service_of_the_guide_answers(project: Path) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx")
    (project / "asks.py").write_text(ASKS)
    assert run(project, "asks.py").stdout == "200 new\n"


ASKS = """
from fastapi.testclient import TestClient
from service import api, app

with TestClient(api) as client:
    answer = client.post("/orders", json=["tea"])
    print(answer.status_code, client.portal.call(app.query, "orders:status", {"order_id": answer.json()}))
"""


def test_the_node_of_deploying_runs_until_it_is_told_to_end(project: Path) -> None:
    (project / "backend" / "clock.py").write_text(TICK)
    make_store(project / "node.db")
    run(project, "-m", "duly", "run", "clock:tick", "--store", "sqlite:///node.db")
    environment = {**os.environ, "DULY_STORE": "sqlite:///node.db"}
    node = subprocess.Popen(
        [sys.executable, "node.py"], cwd=project, env=environment, stderr=subprocess.PIPE, text=True
    )
    with node:
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


async def test_the_queries_of_deploying_are_answered(store_of: Callable[[str], str]) -> None:
    store = store_of("postgres")
    address, _, schema = store.partition("?schema=")
    statements = STATEMENT.findall((ROOT / "docs" / "deploying.md").read_text())
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


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / link).exists(), f"{page}: {link}"
