"""The patterns of examples/patterns, each on a virtual clock."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from duly import AlreadyCompletedError, AppError, MutationCtx
from duly.testing import Harness

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.one_engine]

PATTERNS = Path(__file__).parents[2] / "examples" / "patterns"
START = datetime(2029, 12, 31, 12, tzinfo=UTC)
START_MS = START.timestamp() * 1000
ADA = {"subject": "ada", "issuer": "https://example.com"}
MILLISECOND = timedelta(milliseconds=1)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def patterns() -> Harness:
    return Harness(PATTERNS, start=START)


def external() -> Any:
    """The service elsewhere, of the application that is open."""
    return sys.modules["patterns.external"]


async def insert(t: Harness, table: str, *documents: dict[str, Any]) -> list[str]:
    async def unit(ctx: MutationCtx) -> list[str]:
        return [await ctx.db.insert(table, document) for document in documents]

    return await t.transaction(unit)


async def read(t: Harness, table: str) -> list[dict[str, Any]]:
    """The documents of a table without their system fields."""
    documents = await t.transaction(lambda ctx: ctx.db.query(table).collect())
    return [{name: value for name, value in document.items() if name[0] != "_"} for document in documents]


async def get(t: Harness, id: str) -> dict[str, Any] | None:
    return await t.transaction(lambda ctx: ctx.db.get(id))


async def patch(t: Harness, id: str, fields: dict[str, Any]) -> None:
    await t.transaction(lambda ctx: ctx.db.patch(id, fields))


async def delete(t: Harness, id: str) -> None:
    await t.transaction(lambda ctx: ctx.db.delete(id))


async def schedule(t: Harness, function: str, args: dict[str, Any]) -> str:
    return await t.transaction(lambda ctx: ctx.scheduler.run_after(0, function, args))


async def runs_of(t: Harness, name: str) -> list[tuple[float, str]]:
    """When a function was scheduled for, in seconds from the start, and what became of it."""
    jobs = [job for job in await t.jobs() if job["name"] == name]
    return [((job["scheduledTime"] - START_MS) / 1000, job["state"]["kind"]) for job in jobs]


# Orders and events: after a delay, and at a time.


async def test_an_order_is_confirmed_now_and_archived_in_seven_days() -> None:
    async with patterns() as t:
        order = await t.mutation("orders:create_order", {"items": ["tea"]})
        await t.mutation("orders:process_payment", {"order_id": order})
        assert await read(t, "orders") == [{"items": ["tea"], "status": "paid"}]

        await t.run_until_idle()
        assert await read(t, "orders") == [{"items": ["tea"], "status": "confirmed"}]

        await t.advance(timedelta(days=7) - MILLISECOND)
        assert await read(t, "orders") == [{"items": ["tea"], "status": "confirmed"}]

        await t.advance(MILLISECOND)
        assert await read(t, "orders") == [{"items": ["tea"], "status": "archived"}]


async def test_archiving_an_order_that_was_deleted_does_nothing() -> None:
    async with patterns() as t:
        order = await t.mutation("orders:create_order", {"items": ["tea"]})
        await t.run_until_idle()
        await delete(t, order)

        await t.advance(timedelta(days=7))

        assert await runs_of(t, "orders:archive_order") == [(7 * 86_400, "success")]
        assert await read(t, "orders") == []


async def test_events_begin_at_a_datetime_and_at_a_time_in_milliseconds() -> None:
    async with patterns() as t:
        await t.mutation("events:schedule_new_year", {"year": 2030})
        await t.mutation("events:schedule_rehearsal", {"year": 2030})

        await t.advance_to(datetime(2030, 1, 2, tzinfo=UTC))

        assert await read(t, "years") == [
            {"year": 2030, "begunAt": START_MS + 60_000},
            {"year": 2030, "begunAt": datetime(2030, 1, 1, tzinfo=UTC).timestamp() * 1000},
        ]


# Cleanup: a filter.


@pytest.mark.parametrize("function", ["cleanup:expired_sessions", "cleanup:expired_sessions_by_index"])
async def test_expired_sessions_are_deleted_and_the_others_stay(function: str) -> None:
    async with patterns() as t:
        await insert(
            t,
            "sessions",
            {"user": "ada", "expiresAt": START_MS - 1},
            {"user": "ben", "expiresAt": START_MS},  # expires now: has not expired yet
            {"user": "cyd", "expiresAt": int(START_MS) - 60_000},
            {"user": "dan", "expiresAt": START_MS + 1},
        )

        assert await t.mutation(function) == {"deleted": 2}
        assert [session["user"] for session in await read(t, "sessions")] == ["ben", "dan"]

        await t.advance(MILLISECOND)
        assert await t.mutation(function) == {"deleted": 1}
        assert await t.mutation(function) == {"deleted": 0}
        assert [session["user"] for session in await read(t, "sessions")] == ["dan"]


async def test_a_scheduled_cleanup_goes_by_the_time_it_runs_at() -> None:
    async with patterns() as t:
        await insert(t, "sessions", {"user": "ada", "expiresAt": START_MS + 30 * 60_000})
        hour = timedelta(hours=1)
        await t.transaction(lambda ctx: ctx.scheduler.run_after(hour, "cleanup:expired_sessions"))

        await t.advance(hour - MILLISECOND)
        assert len(await read(t, "sessions")) == 1

        await t.advance(MILLISECOND)
        assert await read(t, "sessions") == []


# Batches: a filter, pages, and a cursor that travels in arguments.


def items(*names: str, processed: bool = False) -> list[dict[str, Any]]:
    return [{"name": name, "processed": processed} for name in names]


async def processed(t: Harness) -> list[tuple[str, float]]:
    """Which items were worked on, in this order, and when, in seconds from the start."""
    return [(result["item"], (result["at"] - START_MS) / 1000) for result in await read(t, "results")]


async def test_batches_meet_every_item_once_with_a_pause_after_each() -> None:
    async with patterns() as t:
        await insert(t, "items", *items("a", "b", "c", "d", "e"))
        await t.mutation("batch:process_batch", {"cursor": None, "batch_size": 2, "delay_ms": 3000})

        await t.advance(2 * SECOND)
        assert await processed(t) == [("a", 0), ("b", 0)]

        await t.advance(timedelta(days=1))
        assert await processed(t) == [("a", 0), ("b", 0), ("c", 3), ("d", 3), ("e", 6)]
        assert await read(t, "items") == items("a", "b", "c", "d", "e", processed=True)
        assert await runs_of(t, "batch:process_batch") == [(3, "success"), (6, "success")]


async def test_batches_meet_every_item_once_while_items_come_and_go() -> None:
    async with patterns() as t:
        _, b, _, d, _, _ = await insert(t, "items", *items("a", "b", "c", "d", "e", "f"))
        await t.mutation("batch:process_batch", {"batch_size": 2})

        await delete(t, b)  # at which the cursor stands
        await delete(t, d)  # ahead of it
        await insert(t, "items", *items("g"))
        await t.advance(SECOND)
        await t.crash()
        await insert(t, "items", *items("h"))
        await t.advance(timedelta(days=1))

        assert await processed(t) == [("a", 0), ("b", 0), ("c", 1), ("e", 1), ("f", 2), ("g", 2), ("h", 3)]
        assert await read(t, "items") == items("a", "c", "e", "f", "g", "h", processed=True)


async def test_a_batch_does_not_go_back_to_items_behind_its_cursor() -> None:
    async with patterns() as t:
        a, *_ = await insert(t, "items", *items("a", "b", "c"))
        await t.mutation("batch:process_batch", {"batch_size": 2})
        await patch(t, a, {"processed": False})

        await t.advance(timedelta(days=1))
        assert await processed(t) == [("a", 0), ("b", 0), ("c", 1)]

        await t.mutation("batch:process_batch")
        assert (await processed(t))[3:] == [("a", 86_400)]


async def test_a_batch_without_matches_ends_the_walk() -> None:
    async with patterns() as t:
        await t.mutation("batch:process_batch")
        await insert(t, "items", *items("a", "b", processed=True))
        await t.mutation("batch:process_batch", {"batch_size": 1})

        assert await processed(t) == []
        assert await t.jobs() == []


async def test_a_walk_ends_when_all_that_was_ahead_is_gone() -> None:
    async with patterns() as t:
        *_, c = await insert(t, "items", *items("a", "b", "c"))
        await t.mutation("batch:process_batch", {"batch_size": 2})
        await delete(t, c)

        await t.advance(timedelta(days=1))

        assert await processed(t) == [("a", 0), ("b", 0)]
        assert await runs_of(t, "batch:process_batch") == [(1, "success")]


async def test_items_that_were_processed_already_do_not_count_into_a_batch() -> None:
    async with patterns() as t:
        await insert(t, "items", *items("a"), *items("b", "c", processed=True), *items("d", "e"))
        await t.mutation("batch:process_batch", {"batch_size": 2})

        await t.advance(timedelta(days=1))

        assert await processed(t) == [("a", 0), ("d", 0), ("e", 1)]


# Requests: timeouts.


async def new_request(t: Harness, **args: Any) -> str:
    ada = t.with_identity(ADA)
    return await ada.mutation("requests:create_with_timeout", {"data": {"text": "tea"}, **args})


async def test_a_request_is_completed_and_its_timeout_then_does_nothing() -> None:
    async with patterns() as t:
        request = await new_request(t)
        done = {"text": "tea", "userId": "ada", "status": "completed", "completedAt": START_MS}

        await t.run_until_idle()
        assert await read(t, "requests") == [done]

        await t.advance(timedelta(days=1))
        assert await read(t, "requests") == [done]
        assert external().received == [request]
        assert await runs_of(t, "requests:timeout") == [(30, "success")]


async def test_a_request_that_is_not_completed_times_out_after_thirty_seconds() -> None:
    async with patterns() as t:
        external().outages = 1
        await new_request(t)

        await t.advance(30 * SECOND - MILLISECOND)
        assert [request["status"] for request in await read(t, "requests")] == ["pending"]
        assert await runs_of(t, "requests:process") == [(0, "failed")]

        await t.advance(MILLISECOND)
        out = {"text": "tea", "userId": "ada", "status": "timeout", "completedAt": START_MS + 30_000}
        assert await read(t, "requests") == [out]


async def test_a_request_that_timed_out_cannot_be_completed_any_more() -> None:
    async with patterns() as t:
        external().outages = 1
        request = await new_request(t, timeout_ms=500)
        await t.advance(SECOND)

        await t.mutation("requests:complete", {"request_id": request})

        assert [request["status"] for request in await read(t, "requests")] == ["timeout"]


async def test_a_request_that_was_deleted_does_not_time_out() -> None:
    async with patterns() as t:
        external().outages = 1
        await delete(t, await new_request(t))

        await t.advance(MINUTE)

        assert await runs_of(t, "requests:timeout") == [(30, "success")]
        assert await read(t, "requests") == []


async def test_a_request_of_nobody_is_refused_and_schedules_nothing() -> None:
    async with patterns() as t:
        with pytest.raises(AppError, match="Not authenticated"):
            await t.mutation("requests:create_with_timeout", {"data": {}})

        assert await t.jobs() == []


# Tasks: canceled ones, and recurring ones.


async def test_a_scheduled_task_runs_its_action() -> None:
    async with patterns() as t:
        [task] = await insert(t, "tasks", {"title": "tea"})
        scheduled = await t.mutation("tasks:schedule_task", {"task_id": task, "delay_ms": 5000})
        assert await read(t, "tasks") == [{"title": "tea", "scheduledFunctionId": scheduled}]

        await t.advance(5 * SECOND)

        assert external().received == [task]


async def test_the_action_of_a_canceled_task_does_not_run() -> None:
    async with patterns() as t:
        [task] = await insert(t, "tasks", {"title": "tea"})
        await t.mutation("tasks:schedule_task", {"task_id": task, "delay_ms": 5000})

        await t.advance(4 * SECOND)
        await t.mutation("tasks:cancel_task", {"task_id": task})
        await t.mutation("tasks:cancel_task", {"task_id": task})  # there is nothing to cancel any more
        await t.advance(timedelta(days=1))

        assert external().received == []
        assert await read(t, "tasks") == [{"title": "tea"}]
        assert await runs_of(t, "tasks:execute") == [(5, "canceled")]


async def test_a_task_that_has_run_cannot_be_canceled() -> None:
    async with patterns() as t:
        [task] = await insert(t, "tasks", {"title": "tea"})
        scheduled = await t.mutation("tasks:schedule_task", {"task_id": task, "delay_ms": 0})
        await t.run_until_idle()

        with pytest.raises(AlreadyCompletedError):
            await t.mutation("tasks:cancel_task", {"task_id": task})

        assert await read(t, "tasks") == [{"title": "tea", "scheduledFunctionId": scheduled}]


async def test_a_recurring_task_stops_when_its_configuration_is_disabled() -> None:
    async with patterns() as t:
        config, _ = await insert(
            t, "taskConfigs", {"taskId": "sweep", "enabled": True}, {"taskId": "other", "enabled": True}
        )
        await t.mutation("tasks:start_recurring_task", {"task_id": "sweep", "interval_ms": 60_000})
        await t.advance(2.5 * MINUTE)

        await patch(t, config, {"enabled": False})
        await t.advance(timedelta(days=1))

        assert [run["at"] - START_MS for run in await read(t, "taskRuns")] == [0, 60_000, 120_000, 180_000]
        assert [kind for _, kind in await runs_of(t, "tasks:start_recurring_task")] == ["success"] * 3


async def test_a_task_without_configuration_runs_once() -> None:
    async with patterns() as t:
        await t.mutation("tasks:start_recurring_task", {"task_id": "sweep", "interval_ms": 60_000})

        assert await read(t, "taskRuns") == [{"taskId": "sweep", "at": START_MS}]
        assert await t.jobs() == []


async def test_a_recurring_task_with_two_configurations_fails_and_leaves_nothing() -> None:
    async with patterns() as t:
        await insert(t, "taskConfigs", *[{"taskId": "sweep", "enabled": True}] * 2)
        await schedule(t, "tasks:start_recurring_task", {"task_id": "sweep", "interval_ms": 60_000})

        await t.run_until_idle()

        [job] = await t.jobs()
        assert job["state"]["kind"] == "failed"
        assert "unique() found" in job["state"]["error"]
        assert await read(t, "taskRuns") == []


# Notifications, reminders and messages.


async def test_a_reminder_is_logged_after_its_delay(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "duly.app")
    async with patterns() as t:
        await t.mutation("notifications:create_reminder", {"text": "tea", "delay_minutes": 10})

        await t.advance(10 * MINUTE - MILLISECOND)
        assert logged(caplog) == []

        await t.advance(MILLISECOND)
        assert logged(caplog) == ["Reminder: tea"]


async def test_nobody_is_reminded_of_what_was_deleted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "duly.app")
    async with patterns() as t:
        await delete(t, await t.mutation("notifications:create_reminder", {"text": "tea", "delay_minutes": 10}))

        await t.advance(10 * MINUTE)

        assert logged(caplog) == []
        assert await runs_of(t, "notifications:send_reminder") == [(600, "success")]


async def test_a_reminder_is_sent_unless_it_was_canceled(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "duly.app")
    async with patterns() as t:
        await t.mutation("reminders:create_reminder", {"message": "tea", "delay_ms": 5000})
        canceled = await t.mutation("reminders:create_reminder", {"message": "honey", "delay_ms": 5000})

        await t.mutation("reminders:cancel_reminder", {"reminder_id": canceled})
        await t.advance(5 * SECOND)

        assert logged(caplog) == ["Reminder: tea"]
        assert [reminder["status"] for reminder in await read(t, "reminders")] == ["scheduled", "canceled"]
        assert await runs_of(t, "reminders:send") == [(5, "success"), (5, "canceled")]


async def test_a_reminder_that_was_sent_cannot_be_canceled() -> None:
    async with patterns() as t:
        reminder = await t.mutation("reminders:create_reminder", {"message": "tea", "delay_ms": 5000})
        await t.advance(5 * SECOND)

        with pytest.raises(AlreadyCompletedError):
            await t.mutation("reminders:cancel_reminder", {"reminder_id": reminder})

        assert [reminder["status"] for reminder in await read(t, "reminders")] == ["scheduled"]


async def test_a_reminder_that_does_not_exist_cannot_be_canceled() -> None:
    async with patterns() as t:
        reminder = await t.mutation("reminders:create_reminder", {"message": "tea", "delay_ms": 5000})
        await delete(t, reminder)

        with pytest.raises(AppError, match="Not found"):
            await t.mutation("reminders:cancel_reminder", {"reminder_id": reminder})


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("Reminder")]


async def test_a_message_destroys_itself_after_five_seconds() -> None:
    async with patterns() as t:
        await t.mutation("messages:send", {"text": "burn this"})

        await t.advance(5 * SECOND - MILLISECOND)
        assert await read(t, "messages") == [{"text": "burn this"}]

        await t.advance(MILLISECOND)
        assert await read(t, "messages") == []


async def test_a_message_that_was_deleted_before_destroys_nothing() -> None:
    async with patterns() as t:
        await delete(t, await t.mutation("messages:send", {"text": "burn this"}))

        await t.advance(5 * SECOND)

        assert await runs_of(t, "messages:destruct") == [(5, "success")]


# Users: only if it commits, and as nobody.


async def test_a_user_gets_a_profile_after_the_mutation_commits() -> None:
    async with patterns() as t:
        await t.mutation("users:create_user", {"name": "Ada", "email": "ada@example.com"})
        assert await read(t, "users") == [{"name": "Ada", "email": "ada@example.com"}]

        await t.run_until_idle()
        assert await read(t, "users") == [{"name": "Ada", "email": "ada@example.com", "profile": "done: Ada"}]


async def test_a_mutation_that_fails_schedules_nothing() -> None:
    async def create_and_fail(ctx: MutationCtx) -> None:
        await ctx.run_mutation("users:create_user", {"name": "Ada", "email": "ada@example.com"})
        raise ValueError("changed my mind")

    async with patterns() as t:
        with pytest.raises(ValueError, match="changed my mind"):
            await t.transaction(create_and_fail)
        await t.run_until_idle()

        assert await read(t, "users") == []
        assert await t.jobs() == []
        assert external().received == []


async def test_a_scheduled_task_knows_its_user_from_its_arguments_only() -> None:
    async with patterns() as t:
        await t.with_identity(ADA).mutation("users:schedule_user_task", {"task_data": {"cups": 2}})

        await t.advance(5 * SECOND)

        assert await read(t, "taskRuns") == [
            {"userId": "ada", "taskData": {"cups": 2}, "identity": None, "at": START_MS + 5000}
        ]


async def test_nobody_cannot_schedule_the_task_of_a_user() -> None:
    async with patterns() as t:
        with pytest.raises(AppError, match="Not authenticated"):
            await t.mutation("users:schedule_user_task", {"task_data": {}})

        assert await t.jobs() == []


# Retries.


async def test_an_action_tries_again_after_one_two_and_four_seconds() -> None:
    async with patterns() as t:
        external().outages = 3
        await schedule(t, "retries:retryable_action", {"data": "tea"})

        await t.advance(7 * SECOND - MILLISECOND)
        assert external().received == []

        await t.advance(timedelta(days=1))
        assert external().received == ["tea"]
        assert await read(t, "errors") == []
        assert await runs_of(t, "retries:retryable_action") == [(when, "success") for when in (0, 1, 3, 7)]


async def test_an_action_that_never_succeeds_logs_its_last_failure() -> None:
    async with patterns() as t:
        external().outages = 4
        await schedule(t, "retries:retryable_action", {"data": "tea"})

        await t.advance(timedelta(days=1))

        assert await read(t, "errors") == [{"error": "the service is down", "data": "tea", "at": START_MS + 7000}]
        assert len(await runs_of(t, "retries:retryable_action")) == 4


async def test_a_task_is_completed_when_the_service_is_back() -> None:
    async with patterns() as t:
        external().outages = 2
        [task] = await insert(t, "tasks", {"title": "tea"})
        await schedule(t, "retries:reliable_action", {"task_id": task})

        await t.advance(timedelta(days=1))

        assert external().received == [task]
        assert await read(t, "tasks") == [{"title": "tea", "completed": True, "retries": 2}]
        assert await runs_of(t, "retries:reliable_action") == [(when, "success") for when in (0, 60, 120)]


async def test_a_task_fails_after_three_retries() -> None:
    async with patterns() as t:
        external().outages = 100
        [task] = await insert(t, "tasks", {"title": "tea"})
        await schedule(t, "retries:reliable_action", {"task_id": task})

        await t.advance(timedelta(days=1))

        assert await read(t, "tasks") == [{"title": "tea", "retries": 3, "status": "failed"}]
        assert external().outages == 96


async def test_a_task_that_was_completed_meanwhile_is_not_tried_again() -> None:
    async with patterns() as t:
        external().outages = 1
        [task] = await insert(t, "tasks", {"title": "tea"})
        await schedule(t, "retries:reliable_action", {"task_id": task})
        await t.run_until_idle()
        await t.mutation("retries:mark_complete", {"task_id": task})

        await t.advance(timedelta(days=1))

        assert external().received == []
        assert await read(t, "tasks") == [{"title": "tea", "completed": True}]


# Crons in user space.


async def new_cron(t: Harness, function: str, ms: float) -> str:
    return await t.mutation(
        "userspace_crons:create_cron", {"name": "a cron", "function_name": function, "args": {}, "ms": ms}
    )


async def test_a_cron_runs_the_function_that_it_names_at_every_interval() -> None:
    async with patterns() as t:
        cron = await new_cron(t, "cleanup:expired_sessions", 60_000)
        await insert(t, "sessions", {"user": "ada", "expiresAt": START_MS + 90_000})

        await t.advance(1.5 * MINUTE)
        await t.crash()
        assert len(await read(t, "sessions")) == 1

        await t.advance(1.5 * MINUTE)
        assert await read(t, "sessions") == []
        assert await runs_of(t, "cleanup:expired_sessions") == [(when, "success") for when in (0, 60, 120, 180)]
        row = await get(t, cron)
        assert row is not None
        assert (row["lastRunTime"] - START_MS, row["nextRunTime"] - START_MS) == (180_000, 240_000)


async def test_a_cron_that_is_disabled_stops() -> None:
    async with patterns() as t:
        cron = await new_cron(t, "cleanup:expired_sessions", 60_000)
        await t.advance(1.5 * MINUTE)

        await patch(t, cron, {"enabled": False})
        await t.advance(timedelta(days=1))

        assert await runs_of(t, "cleanup:expired_sessions") == [(0, "success"), (60, "success")]
        assert [kind for _, kind in await runs_of(t, "userspace_crons:execute_cron")] == ["success"] * 5


async def test_the_job_of_a_cron_is_the_one_that_is_pending_and_can_be_canceled() -> None:
    async with patterns() as t:
        cron = await new_cron(t, "cleanup:expired_sessions", 60_000)
        await t.run_until_idle()
        row = await get(t, cron)
        assert row is not None
        [pending] = [job for job in await t.jobs() if job["state"]["kind"] == "pending"]
        assert row["schedulerJobId"] == pending["_id"]

        await t.transaction(lambda ctx: ctx.scheduler.cancel(row["schedulerJobId"]))
        await t.advance(timedelta(days=1))

        assert await runs_of(t, "cleanup:expired_sessions") == [(0, "success")]


async def test_a_cron_of_a_function_that_does_not_exist_fails_and_says_so() -> None:
    async with patterns() as t:
        await new_cron(t, "cleanup:expired_session", 60_000)

        await t.run_until_idle()

        [job] = await t.jobs()
        assert job["state"]["kind"] == "failed"
        assert "did you mean 'cleanup:expired_sessions'" in job["state"]["error"]


async def test_the_crons_that_are_due_next_are_found_by_an_index() -> None:
    async with patterns() as t:
        later, sooner, off = [await new_cron(t, "cleanup:expired_sessions", ms) for ms in (9000, 5000, 1000)]
        await t.run_until_idle()
        await patch(t, off, {"enabled": False})

        found = await t.transaction(
            lambda ctx: (
                ctx.db.query("crons").with_index("enabled_nextRunTime", lambda q: q.eq("enabled", True)).collect()
            )
        )

        assert [cron["_id"] for cron in found] == [sooner, later]


# Status.


async def test_the_status_of_a_scheduled_function_is_a_document() -> None:
    async with patterns() as t:
        [task] = await insert(t, "tasks", {"title": "tea"})
        scheduled = await t.mutation("tasks:schedule_task", {"task_id": task, "delay_ms": 5000})
        pending = await t.query("status:of", {"scheduled_id": scheduled})
        await t.advance(5 * SECOND)
        done = await t.query("status:of", {"scheduled_id": scheduled})

        assert (pending["name"], pending["args"]) == ("tasks:execute", [{"task_id": task}])
        assert (pending["scheduledTime"], pending["state"]) == (START_MS + 5000, {"kind": "pending"})
        assert "completedTime" not in pending
        assert (done["completedTime"], done["state"]) == (START_MS + 5000, {"kind": "success"})
        assert await t.query("status:every") == [done]
