"""The example shop, on a virtual clock; and the demonstration as a whole, in real time."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from duly import AppError
from duly.testing import Harness
from tests.conftest import only_on_sqlite

pytestmark = pytest.mark.usefixtures("engine")

SHOP = Path(__file__).parents[2] / "examples" / "orders"
START = datetime(2030, 1, 1, 9, tzinfo=UTC)
ADA = "ada@example.com"


def shop() -> Harness:
    return Harness(SHOP / "backend", start=START)


async def trial(t: Harness) -> str:
    user = await t.mutation("billing:sign_up", {"name": "Ada", "email": ADA})
    await t.mutation("billing:start_trial", {"user_id": user})
    return user


async def payment(t: Harness, card: str) -> str:
    order = await t.mutation("orders:create_order", {"items": ["tea"]})
    return await t.mutation("payments:pay", {"order_id": order, "pence": 450, "card": card})


async def plan_of(t: Harness, user: str) -> str:
    return (await t.query("billing:get", {"user_id": user}))["plan"]


async def emails_to(t: Harness, to: str) -> list[str]:
    return await t.query("emails:sent_to", {"to": to})


async def jobs_of(t: Harness, name: str) -> list[dict[str, Any]]:
    return [job for job in await t.jobs() if job["name"] == name]


async def test_an_order_is_confirmed_by_email_at_once() -> None:
    async with shop() as t:
        order = await t.mutation("orders:create_order", {"items": ["tea", "honey"], "customer": ADA})
        assert (await t.query("orders:get", {"order_id": order}))["status"] == "pending"

        await t.run_until_idle()

        assert (await t.query("orders:get", {"order_id": order}))["status"] == "confirmed"
        assert await emails_to(t, ADA) == ["Your order: tea, honey"]
        assert t.now == START


async def test_an_order_is_archived_after_30_days() -> None:
    async with shop() as t:
        order = await t.mutation("orders:create_order", {"items": ["tea"]})

        await t.advance(timedelta(days=30) - timedelta(milliseconds=1))
        assert (await t.query("orders:get", {"order_id": order}))["status"] == "confirmed"

        await t.advance(timedelta(milliseconds=1))
        assert (await t.query("orders:get", {"order_id": order}))["status"] == "archived"


async def test_orders_are_found_and_counted_by_their_status() -> None:
    async with shop() as t:
        first = await t.mutation("orders:create_order", {"items": ["tea"]})
        await t.run_until_idle()
        second = await t.mutation("orders:create_order", {"items": ["honey"]})

        confirmed = await t.query("orders:by_status", {"status": "confirmed"})
        pending = await t.query("orders:by_status", {"status": "pending"})

        assert [order["_id"] for order in confirmed] == [first]
        assert [order["_id"] for order in pending] == [second]
        assert await t.query("orders:overview") == {"confirmed": 1, "pending": 1}


async def test_an_order_of_nothing_is_refused_and_schedules_nothing() -> None:
    async with shop() as t:
        with pytest.raises(AppError) as refused:
            await t.mutation("orders:create_order", {"items": []})

        assert refused.value.data == {"code": "EMPTY_ORDER"}
        assert await t.jobs() == []


async def test_a_trial_reminds_on_day_11_and_ends_on_day_14() -> None:
    async with shop() as t:
        user = await trial(t)

        await t.advance(timedelta(days=11) - timedelta(seconds=1))
        assert await emails_to(t, ADA) == []

        await t.advance(timedelta(seconds=1))
        assert await emails_to(t, ADA) == ["Your trial ends in 3 days"]

        await t.advance(timedelta(days=3) - timedelta(seconds=1))
        assert await plan_of(t, user) == "trial"

        await t.advance(timedelta(seconds=1))
        assert await plan_of(t, user) == "free"
        assert await emails_to(t, ADA) == ["Your trial ends in 3 days", "Your trial has ended"]


async def test_a_trial_cannot_be_started_twice() -> None:
    async with shop() as t:
        user = await trial(t)

        with pytest.raises(AppError):
            await t.mutation("billing:start_trial", {"user_id": user})


async def test_a_reminder_is_sent_at_its_time_even_if_the_process_dies_before() -> None:
    async with shop() as t:
        remind_at = (START + timedelta(days=2)).timestamp() * 1000
        await t.mutation("reminders:schedule_reminder", {"email": ADA, "text": "tea", "remind_at": remind_at})
        await t.advance(timedelta(days=1))
        await t.crash()

        await t.advance(timedelta(days=1))

        assert await emails_to(t, ADA) == ["Reminder: tea"]
        assert await t.query("reminders:upcoming") == []


async def test_a_canceled_reminder_never_runs() -> None:
    async with shop() as t:
        remind_at = (START + timedelta(days=2)).timestamp() * 1000
        reminder = await t.mutation(
            "reminders:schedule_reminder", {"email": ADA, "text": "tea", "remind_at": remind_at}
        )
        await t.mutation("reminders:cancel_reminder", {"reminder_id": reminder})
        [job] = await jobs_of(t, "reminders:send")

        await t.advance(timedelta(days=5))

        assert job["state"] == {"kind": "canceled"}
        assert await emails_to(t, ADA) == []
        assert await t.query("reminders:upcoming") == []


async def test_a_payment_is_tried_again_after_2_and_4_seconds() -> None:
    async with shop() as t:
        paid = await payment(t, card="4242")

        await t.run_until_idle()
        await t.advance(timedelta(seconds=6) - timedelta(milliseconds=1))
        assert (await t.query("payments:get", {"payment_id": paid}))["status"] == "processing"

        await t.advance(timedelta(milliseconds=1))
        settled = await t.query("payments:get", {"payment_id": paid})
        charges = await jobs_of(t, "payments:charge")
        seconds = [job["scheduledTime"] / 1000 - START.timestamp() for job in charges]

        assert (settled["status"], settled["attempts"]) == ("succeeded", 3)
        assert seconds == [0, 2, 6]
        assert all(job["state"] == {"kind": "success"} for job in charges)


async def test_a_payment_that_never_succeeds_is_given_up_after_three_attempts() -> None:
    async with shop() as t:
        paid = await payment(t, card="0000")

        await t.advance(timedelta(days=1))
        settled = await t.query("payments:get", {"payment_id": paid})

        assert (settled["status"], settled["attempts"]) == ("failed", 3)
        assert len(await jobs_of(t, "payments:charge")) == 3
        assert await t.query("payments:of_order", {"order_id": settled["order_id"]}) == [settled]


async def test_every_item_of_a_stocktaking_is_counted_once() -> None:
    async with shop() as t:
        await t.mutation("stocktaking:begin", {"items": [f"tea {number}" for number in range(50)]})

        await t.advance(timedelta(minutes=20))
        await t.crash()
        half = await t.query("stocktaking:result")
        await t.advance(timedelta(minutes=30))

        assert half == {"expected": 50, "counted": 21, "doubled": 0, "missing": 29}
        assert await t.query("stocktaking:result") == {"expected": 50, "counted": 50, "doubled": 0, "missing": 0}
        assert await t.query("dashboard:at_rest")


async def test_the_dashboard_shows_what_is_scheduled_without_the_counting() -> None:
    async with shop() as t:
        order = await t.mutation("orders:create_order", {"items": ["tea"]})
        await t.mutation("catalogue:order_printing", {"pages": 0})
        await t.mutation("stocktaking:begin", {"items": ["tea"]})
        await t.run_until_idle()

        overview = await t.query("dashboard:overview")

        assert [order["_id"] for order in overview["orders"]] == [order]
        assert {(function["name"], function["state"]["kind"]) for function in overview["functions"]} == {
            ("emails:send_confirmation", "success"),
            ("orders:archive", "pending"),
            ("catalogue:print_pages", "success"),
        }
        assert [printing["printed"] for printing in await t.query("catalogue:printings")] == [True]


@pytest.mark.slow
@only_on_sqlite  # it names its own store, a file
def test_the_demonstration_survives_its_kill_and_counts_right() -> None:
    ran = subprocess.run(
        [sys.executable, SHOP / "demo.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=280,
    )

    assert ran.returncode == 0, ran.stdout
    count = ran.stdout.partition("Closing count")[2]
    assert "✗" not in count, count
    assert count.count("✓") == 13
    assert "Nothing was lost and nothing was done twice." in count
    assert "kill -9" in ran.stdout
    assert "\x1b" not in ran.stdout  # colours are for terminals
