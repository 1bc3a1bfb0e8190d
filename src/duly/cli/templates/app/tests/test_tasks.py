"""The tasks, on a real store in a temporary folder and on a clock that only the test moves."""

import asyncio
from datetime import timedelta

import pytest

from duly import AppError
from duly.testing import Harness

FIRST_PAGE = {"paginationOpts": {"numItems": 10, "cursor": None}}


def test_a_reminder_comes_unless_the_task_is_done_before() -> None:
    async def scenario() -> None:
        async with Harness("backend") as t:
            await t.mutation("tasks:add", {"text": "water the plants", "remind_after": 60})
            tea = await t.mutation("tasks:add", {"text": "make tea", "remind_after": 60})
            await t.mutation("tasks:finish", {"task_id": tea})
            await t.crash()  # nothing is lost if the process dies
            await t.advance(timedelta(seconds=60))
            page = await t.query("tasks:page", FIRST_PAGE)
            assert [(task["text"], task["reminded"], task["reminder_state"]) for task in page["page"]] == [
                ("make tea", False, "canceled"),
                ("water the plants", True, "success"),
            ]
            assert await t.failures() == []

    asyncio.run(scenario())


def test_done_tasks_are_deleted_at_night() -> None:
    async def scenario() -> None:
        async with Harness("backend") as t:
            await t.mutation("tasks:add", {"text": "water the plants"})
            tea = await t.mutation("tasks:add", {"text": "make tea"})
            await t.mutation("tasks:finish", {"task_id": tea})
            await t.advance(timedelta(days=1))
            page = await t.query("tasks:page", FIRST_PAGE)
            assert [task["text"] for task in page["page"]] == ["water the plants"]

    asyncio.run(scenario())


def test_a_task_without_a_text_is_refused() -> None:
    async def scenario() -> None:
        async with Harness("backend") as t:
            with pytest.raises(AppError, match="A task needs a text"):
                await t.mutation("tasks:add", {"text": " "})
            assert await t.query("tasks:count_open") == 0

    asyncio.run(scenario())
