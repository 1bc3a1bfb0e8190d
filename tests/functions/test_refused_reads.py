"""A read that the store refuses: a handler that catches the error does not go on as if nothing had happened."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from duly import App, Id, MutationCtx, QueryCtx, StoreError, mutation, query
from duly.storage.requests import Get
from duly.storage.sqlite.snapshot import SqliteSnapshot
from tests.support import handlers_in


@mutation
async def add(ctx: MutationCtx) -> Id:
    return await ctx.db.insert("notes", {"text": "here"})


@query
async def is_there(ctx: QueryCtx, note: Id) -> bool:
    try:
        return await ctx.db.get(note) is not None
    except Exception:
        return False


@mutation
async def add_unless_there(ctx: MutationCtx, note: Id) -> None:
    try:
        await ctx.db.get(note)
    except Exception:
        await ctx.db.insert("notes", {"text": "again"})


@query
async def count(ctx: QueryCtx) -> int:
    return await ctx.db.query("notes").count()


async def test_what_catches_the_error_of_a_refused_read_fails_all_the_same(
    store_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with App({"app": SimpleNamespace(**handlers_in(globals()))}, store_of("sqlite")) as app:
        note = await app.mutation(add)
        answer = SqliteSnapshot.answer

        def refuse_notes(view: SqliteSnapshot, request: Any) -> Any:
            if type(request) is Get and request.table.name == "notes":
                raise StoreError("refused by the test")
            return answer(view, request)

        with monkeypatch.context() as refusing:
            refusing.setattr(SqliteSnapshot, "answer", refuse_notes)
            with pytest.raises(StoreError, match="^refused by the test$"):
                await app.query(is_there, {"note": note})
            with pytest.raises(StoreError, match="^refused by the test$"):
                await app.mutation(add_unless_there, {"note": note})
        assert await app.query(is_there, {"note": note})
        assert await app.query(count) == 1
