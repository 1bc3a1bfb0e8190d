"""Payment reminders and background jobs with progress, as examples/patterns has them."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from duly.testing import Harness

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.one_engine]

PATTERNS = Path(__file__).parents[2] / "examples" / "patterns"
WEEK = timedelta(days=7)
MINUTE = timedelta(minutes=1)


def patterns() -> Harness:
    return Harness(PATTERNS, start=datetime(2029, 12, 31, 12, tzinfo=UTC))


def external() -> Any:
    """The service elsewhere, of the application that is open."""
    return sys.modules["patterns.external"]


# Payment reminders.


async def test_who_does_not_pay_is_reminded_after_one_two_and_three_weeks() -> None:
    async with patterns() as t:
        await t.mutation("invoices:send", {"customer": "ada", "amount": 42})
        for reminders in (1, 2, 3, 3):
            await t.advance(WEEK)
            assert external().received == [f"ada: 42 is due, reminder {n}" for n in range(1, reminders + 1)]
        assert await t.failures() == []


async def test_who_pays_is_not_reminded_any_more() -> None:
    async with patterns() as t:
        invoice = await t.mutation("invoices:send", {"customer": "ada", "amount": 42})
        await t.advance(WEEK)
        await t.mutation("invoices:pay", {"invoice_id": invoice})
        await t.mutation("invoices:pay", {"invoice_id": invoice})
        assert [job["state"]["kind"] for job in await t.jobs() if job["name"] == "invoices:remind"] == [
            "success",
            "canceled",
            "canceled",
        ]
        await t.advance(4 * WEEK)
        assert external().received == ["ada: 42 is due, reminder 1"]


async def test_a_payment_right_after_the_invoice_leaves_no_reminder() -> None:
    async with patterns() as t:
        await t.mutation(
            "invoices:pay", {"invoice_id": await t.mutation("invoices:send", {"customer": "x", "amount": 1})}
        )
        await t.advance(4 * WEEK)
        assert external().received == []


# A job with progress.


async def test_a_job_reports_each_part_that_is_done() -> None:
    async with patterns() as t:
        job = await t.mutation("imports:start", {"files": ["a", "b", "c", "d"]})
        seen: list[int] = []

        async def watch() -> None:
            async for progress in t.subscribe("imports:progress", {"job_id": job}):
                seen.append(progress["percent"])
                if progress["status"] == "done":
                    return

        watching = asyncio.ensure_future(watch())
        await t.run_until_idle()
        await watching
        assert external().received == ["a", "b", "c", "d"]
        assert seen[-1] == 100
        assert seen == sorted(seen)


async def test_a_job_that_is_stopped_does_no_further_part() -> None:
    async with patterns() as t:
        job = await t.mutation("imports:start", {"files": ["a", "b"]})
        await t.mutation("imports:stop", {"job_id": job})
        await t.advance(10 * MINUTE)
        assert external().received == []
        assert await t.query("imports:progress", {"job_id": job}) == {"status": "stopped", "percent": 0}


async def test_a_job_whose_worker_fails_goes_on_a_minute_later_where_it_was() -> None:
    async with patterns() as t:
        job = await t.mutation("imports:start", {"files": ["a", "b"]})
        external().outages = 1
        await t.run_until_idle()
        assert await t.query("imports:progress", {"job_id": job}) == {"status": "running", "percent": 0}
        assert len(await t.failures()) == 1
        await t.advance(MINUTE)
        assert external().received == ["a", "b"]
        assert await t.query("imports:progress", {"job_id": job}) == {"status": "done", "percent": 100}


async def test_a_job_whose_process_dies_is_looked_after_by_the_next_one() -> None:
    async with patterns() as t:
        job = await t.mutation("imports:start", {"files": ["a", "b"]})
        await t.crash()
        await t.advance(2 * MINUTE)
        assert external().received == ["a", "b"]
        assert await t.query("imports:progress", {"job_id": job}) == {"status": "done", "percent": 100}


async def test_a_job_that_is_done_is_no_longer_looked_after() -> None:
    async with patterns() as t:
        await t.mutation("imports:start", {"files": ["a"]})
        await t.advance(10 * MINUTE)
        assert [job["state"]["kind"] for job in await t.jobs() if job["name"] == "imports:look_after"] == [
            "success"
        ] * 2
