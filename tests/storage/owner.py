"""A program that owns a store until it is stopped: `python -m tests.storage.owner ADDRESS [WAIT_SECONDS]`.

It says "open", then does what the lines of its input say, and answers each: `add TEXT`, `notes`, `fork` (a child that
sleeps, by its process id), `act` (starts an action that says "started" and ends two seconds after `close`), `close`.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import time
from types import SimpleNamespace

from duly import ActionCtx, App, DulyError, MutationCtx, QueryCtx, action, mutation, query


@mutation
async def add(ctx: MutationCtx, text: str) -> None:
    await ctx.db.insert("notes", {"text": text})


@query
async def notes(ctx: QueryCtx) -> list[str]:
    return [note["text"] async for note in ctx.db.query("notes")]


@action
async def slow(ctx: ActionCtx) -> None:
    await asyncio.sleep(2)
    await ctx.run_mutation("app:add", {"text": "slow"})


closing = asyncio.Event()


@action
async def until_closing(ctx: ActionCtx) -> None:
    print("started", flush=True)
    await closing.wait()  # however long what is done meanwhile takes
    await asyncio.sleep(2)
    await ctx.run_mutation("app:add", {"text": "closing"})


@mutation
async def start_slow(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(0, "app:slow")


@mutation
async def start_until_closing(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(0, "app:until_closing")


MODULES = {
    "app": SimpleNamespace(
        add=add,
        notes=notes,
        slow=slow,
        until_closing=until_closing,
        start_slow=start_slow,
        start_until_closing=start_until_closing,
    )
}


async def main(store: str, wait_for_owner: float) -> None:
    app = App(MODULES, store, wait_for_owner=wait_for_owner)
    try:
        await app.__aenter__()
    except DulyError as error:
        print(f"{type(error).__name__}: {error}")
        return
    print("open", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        command, _, text = line.strip().partition(" ")
        try:
            answer = await _do(app, command, text)
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        print(answer, flush=True)


async def _do(app: App, command: str, text: str) -> object:
    if command == "add":
        return await app.mutation("app:add", {"text": text})
    if command == "notes":
        return await app.query("app:notes")
    if command == "act":
        return await app.mutation("app:start_until_closing")
    if command == "fork":
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        return child.pid
    assert command == "close", command
    closing.set()
    return await app.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 0.0))
