"""What a type checker tells the user of duly: of a sound application nothing, of mistakes each at its line."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from functools import cache
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
)
from duly.testing import Harness
from tests.typed import unchecked
from tests.typed.shop import billing, customers, day, orders, schema

HERE = Path(__file__).parent
MODULES = {"billing": billing, "customers": customers, "orders": orders, "schema": schema, "unchecked": unchecked}
TEA = {"item": "tea", "pence": 350}


class Finding(NamedTuple):
    file: str
    line: int
    rule: str


@cache
def findings() -> list[Finding]:
    if importlib.util.find_spec("pyright") is None:
        pytest.skip("pyright is not installed")
    command = [sys.executable, "-m", "pyright", "--project", str(HERE), "--pythonpath", sys.executable, "--outputjson"]
    quiet = {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}  # otherwise it asks the network for a newer pyright
    run = subprocess.run(command, env={**os.environ, **quiet}, capture_output=True, text=True, timeout=110)
    found = json.loads(run.stdout)["generalDiagnostics"]
    return sorted(
        Finding(Path(one["file"]).name, one["range"]["start"]["line"] + 1, one.get("rule", one["message"]))
        for one in found
    )


def planted(file: str) -> list[Finding]:
    """The rules that the comments at the ends of lines name."""
    lines = (HERE / file).read_text("utf-8").splitlines()
    comments = ((number, re.search(r"  # (report[\w ]+)$", line)) for number, line in enumerate(lines, start=1))
    return sorted(Finding(file, number, rule) for number, comment in comments if comment for rule in comment[1].split())


@pytest.mark.slow
def test_each_mistake_is_found_at_its_line_and_nothing_else_is() -> None:
    assert planted("mistakes.py") == [finding for finding in findings() if finding.file == "mistakes.py"]


@pytest.mark.slow
def test_a_sound_application_checks_without_an_error_in_strict_mode() -> None:
    assert [] == [finding for finding in findings() if finding.file not in ("mistakes.py", "unchecked.py")]


@pytest.mark.slow
def test_what_the_guide_calls_unchecked_is_not_checked() -> None:
    assert [] == [finding for finding in findings() if finding.file == "unchecked.py"]


def test_there_are_mistakes_to_find() -> None:
    assert len(planted("mistakes.py")) > 80
    assert Finding("mistakes.py", 1, "reportCallIssue") not in planted("mistakes.py")


async def test_the_typed_shop_runs() -> None:
    async with Harness(MODULES) as t:
        assert [350 + 120, 470, 0] == await day.spend(t)
        order = await t.transaction(lambda ctx: ctx.db.query(schema.Order).first())
        assert order is not None
        summary = await t.query(orders.summary, {"text": order["_id"]})  # type: ignore[typeddict-item]
        assert summary == {"note": "", "pence": 470, "first": "Ada", "jobs": 4}
        assert await t.query(orders.of_customer, {"customer_id": order["customer"]}) == [order]
        assert await t.mutation(customers.rename, {"email": "ada@example.com", "name": "Bea"})
        assert ["Bea"] == await day.watch(t.app, order["_id"])
        [event] = await t.query(customers.events, {"since": 0})
        assert event["who"] == {"name": "Ada"}


NO_SUCH_FIELD = "not a declared field; declared are .customer, .lines, .status, .note"


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
        ("takes_a_result_for_an_instance", AttributeError, "'dict' object has no attribute 'name'"),
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


async def test_a_misspelled_field_of_a_filter_is_a_missing_one() -> None:
    async with Harness(MODULES) as t:
        ada = await t.mutation(customers.sign_up, {"name": "Ada", "email": "ada@example.com"})
        await t.mutation(orders.create, {"customer_id": ada, "lines": [TEA]})
        assert [] == await t.query(unchecked.misspells_a_filter_field)
