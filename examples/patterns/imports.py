"""A queue of long jobs in the background: each reports its progress, can be stopped, and goes on where a crash left it.

A job is a document, and a worker is an action that does one part of it after the other. Each part that is done is
noted by a mutation. Should the process die in the middle, the action is `failed` and does not run again by itself;
a mutation that looks after the job a little later starts another one, which skips the parts that are done.
"""

from datetime import timedelta
from typing import Any

from duly import (
    ActionCtx,
    AppError,
    Id,
    MutationCtx,
    QueryCtx,
    internal,
    internal_action,
    internal_mutation,
    mutation,
    query,
    v,
)

from . import external

JOB = {"job_id": v.id("imports")}
LOOK_AFTER = timedelta(minutes=1)


@mutation
async def start(ctx: MutationCtx, files: list[str]) -> Id:
    job_id = await ctx.db.insert("imports", {"files": files, "done": 0, "status": "running"})
    await ctx.scheduler.run_after(0, internal.imports.look_after, {"job_id": job_id})
    return job_id


@internal_mutation(args=JOB)
async def look_after(ctx: MutationCtx, job_id: Id) -> None:
    job = await ctx.db.get(job_id)
    if job is None or job["status"] != "running":
        return
    worker = await ctx.db.system.get(job["workerId"]) if "workerId" in job else None
    if worker is None or worker["state"]["kind"] not in ("pending", "inProgress"):
        worker_id = await ctx.scheduler.run_after(0, internal.imports.work, {"job_id": job_id})
        await ctx.db.patch(job_id, {"workerId": worker_id})
    await ctx.scheduler.run_after(LOOK_AFTER, internal.imports.look_after, {"job_id": job_id})


@internal_action(args=JOB)
async def work(ctx: ActionCtx, job_id: Id) -> None:
    while (file := await ctx.run_query(next_file, {"job_id": job_id})) is not None:
        await external.call_external_api(file)
        await ctx.run_mutation(note_done, {"job_id": job_id, "file": file})


@query(args=JOB)
async def next_file(ctx: QueryCtx, job_id: Id) -> str | None:
    job = await ctx.db.get(job_id)
    if job is None or job["status"] != "running" or job["done"] == len(job["files"]):
        return None
    return job["files"][job["done"]]


@internal_mutation(args={**JOB, "file": v.string()})
async def note_done(ctx: MutationCtx, job_id: Id, file: str) -> None:
    job = await ctx.db.get(job_id)
    if job is not None and job["files"][job["done"]] == file:
        done = job["done"] + 1
        await ctx.db.patch(job_id, {"done": done, "status": "done" if done == len(job["files"]) else job["status"]})


@query(args=JOB)
async def progress(ctx: QueryCtx, job_id: Id) -> dict[str, Any]:
    """What a page subscribes to: it is told of every part that is done."""
    job = await ctx.db.get(job_id)
    if job is None:
        raise AppError("no such import")
    return {"status": job["status"], "percent": 100 * job["done"] // max(len(job["files"]), 1)}


@mutation(args=JOB)
async def stop(ctx: MutationCtx, job_id: Id) -> None:
    job = await ctx.db.get(job_id)
    if job is not None and job["status"] == "running":
        await ctx.db.patch(job_id, {"status": "stopped"})
