"""What a type checker tells the user of duly: of a sound application nothing, of mistakes each at its line."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from duly import (
    ArgumentValidationError,
    FunctionError,
    FunctionNotFoundError,
    InvalidScheduleError,
    QueryError,
    SchemaValidationError,
    id_of,
)
from duly.testing import Harness
from tests.typed import unchecked
from tests.typed.shop import billing, customers, day, lookups, orders, schema
from tests.typed.till import day as till_day
from tests.typed.till import sales as till_sales
from tests.typed.till import schema as till_schema

HERE = Path(__file__).parent
TILL = {"sales": till_sales, "schema": till_schema}
MODULES = {
    "billing": billing,
    "customers": customers,
    "lookups": lookups,
    "orders": orders,
    "schema": schema,
    "unchecked": unchecked,
}
TEA = {"item": "tea", "pence": 350}


class Finding(NamedTuple):
    file: str
    line: int
    rule: str


def findings(paths: list[Path]) -> list[Finding]:
    """What pyright finds in strict mode."""
    command = [sys.executable, "-m", "pyright", "--project", str(HERE), "--pythonpath", sys.executable, "--outputjson"]
    quiet = {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}  # otherwise it asks the network for a newer pyright
    run = subprocess.run(command, env={**os.environ, **quiet}, capture_output=True, text=True, timeout=280)
    assert run.returncode in (0, 1), run.stderr
    report = json.loads(run.stdout)
    assert report["summary"]["filesAnalyzed"] == len(paths)
    return sorted(
        Finding(Path(one["file"]).name, one["range"]["start"]["line"] + 1, one.get("rule", one["message"]))
        for one in report["generalDiagnostics"]
    )


def planted(paths: list[Path]) -> list[Finding]:
    """The rules that comments at the ends of lines name."""
    lines = ((path, line) for path in paths for line in enumerate(path.read_text("utf-8").splitlines(), start=1))
    comments = ((path.name, number, re.search(r"  # (report[\w ]+)$", line)) for path, (number, line) in lines)
    return sorted(
        Finding(name, number, rule) for name, number, comment in comments if comment for rule in comment[1].split()
    )


@pytest.mark.slow
def test_a_type_checker_finds_each_mistake_at_its_line_and_nothing_else() -> None:
    if importlib.util.find_spec("pyright") is None:
        pytest.skip("pyright is not installed")
    folders = [*(HERE / "shop").glob("*.py"), *(HERE / "till").glob("*.py")]
    paths = [HERE / "mistakes.py", HERE / "wrong_till.py", HERE / "unchecked.py", *folders]
    expected = planted(paths)
    assert {"mistakes.py", "wrong_till.py"} == {finding.file for finding in expected}
    assert expected == findings(paths)


@pytest.mark.usefixtures("engine")
async def test_the_till_runs_as_it_is_typed() -> None:
    async with Harness(TILL) as t:
        found = await till_day.spend(t)
        assert found.by_kind == {till_schema.Kind.CASH: Decimal("3.50"), till_schema.Kind.CARD: Decimal("7.00")}
        assert found.best is not None and found.best.at == till_day.NINE + timedelta(hours=1)
        totals = await till_day.look(t.app, found.best.clerk)
        assert totals == list(map(Decimal, ("7.00", "3.50", "7.00", "7.00", "10.50")))
        assert await t.failures() == []


@pytest.mark.usefixtures("engine")
async def test_the_typed_shop_runs() -> None:
    async with Harness(MODULES) as t:
        assert [470, 470, 0] == await day.spend(t)
        order = await t.transaction(lambda ctx: ctx.db.query(schema.Order).first())
        assert order is not None
        summary = await t.query(orders.summary, {"text": id_of(order)})
        assert summary == {"note": "", "pence": 470, "first": "Ada", "jobs": 4}
        assert await t.query(orders.of_customer, {"customer_id": order["customer"]}) == [order]
        assert await t.mutation(customers.rename, {"email": "ada@example.com", "name": "Bea"})
        assert ["Bea"] == await day.watch(t.app, id_of(order))
        assert await t.query(customers.first_name) == "Bea"
        [event] = await t.query(customers.events, {"since": 0})
        assert event["who"] == {"name": "Ada"}


@pytest.mark.usefixtures("engine")
async def test_what_is_looked_up_has_the_types_that_it_is_said_to_have() -> None:
    async with Harness(MODULES) as t:
        ada = await t.mutation(customers.sign_up, {"name": "Ada", "email": "ada@example.com"})
        order_id = await t.mutation(orders.create, {"customer_id": ada, "lines": [TEA]})
        seen = await t.query(lookups.look, {"customer_ids": [ada, ada], "order_id": order_id})
        assert seen == {"names": ["Ada", "Ada"], "orders": 1, "first": "open"}
        page = await t.query(lookups.page, {"paginationOpts": {"numItems": 5, "cursor": None}})
        assert [order["status"] for order in page["page"]] == ["open"]
        assert await t.mutation(lookups.void, {"order_id": order_id})
        assert await t.query(lookups.visits, {"email": "ada@example.com"}) == 1
        await t.mutation(lookups.note_anything, {"anything": [1]})


NO_SUCH_FIELD = "not a declared field; declared are .customer, .lines, .status, .note"


@pytest.mark.one_engine
@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        ("misspells_a_name", FunctionNotFoundError, "did you mean 'orders:total'"),
        ("misspells_a_path", FunctionNotFoundError, "did you mean 'orders:total'"),
        ("misspells_an_argument", ArgumentValidationError, "orders:total: at .order_id: missing"),
        ("queries_a_mutation", FunctionNotFoundError, "orders:create is a mutation, expected a query"),
        ("schedules_a_query", InvalidScheduleError, "orders:total is a query, expected a mutation or an action"),
        ("patches_a_misspelled_field", SchemaValidationError, f"orders.patch: at .staus: {NO_SUCH_FIELD}"),
        ("inserts_anything_by_name", SchemaValidationError, "orders.insert: at .customer: missing required field"),
        ("inserts_another_class", SchemaValidationError, "customers.insert: at .name: missing"),
        ("reads_anything_by_name", KeyError, "staus"),
        ("reads_a_table_that_is_not_there", QueryError, "define_table(Forgotten)"),
        ("misspells_an_index", QueryError, "expected one of by_creation_time, by_customer"),
        ("misspells_an_index_field", QueryError, "got a comparison of 'custmer', expected one of 'customer'"),
        ("waits_for_something_else", FunctionError, "expected only calls of `ctx`"),
        ("runs_an_action_as_a_query", FunctionNotFoundError, "billing:pay is an action, expected a query"),
    ],
)
async def test_what_is_not_checked_before_it_runs_is_refused_when_it_runs(
    function: str, error: type[Exception], message: str
) -> None:
    async with Harness(MODULES) as t:
        ada = await t.mutation(customers.sign_up, {"name": "Ada", "email": "ada@example.com"})
        order_id = await t.mutation(orders.create, {"customer_id": ada, "lines": [TEA]})
        called: Any = getattr(unchecked, function)
        args = {"order_id": order_id} if "order_id" in called.handler.__annotations__ else {}
        with pytest.raises(error, match=re.escape(message)):
            await getattr(t, called.kind)(called, args)


@pytest.mark.one_engine
@pytest.mark.usefixtures("engine")
async def test_a_misspelled_field_of_a_filter_is_a_missing_one() -> None:
    async with Harness(MODULES) as t:
        ada = await t.mutation(customers.sign_up, {"name": "Ada", "email": "ada@example.com"})
        await t.mutation(orders.create, {"customer_id": ada, "lines": [TEA]})
        assert [] == await t.query(unchecked.misspells_a_filter_field)
