"""A timeout: two functions are scheduled, the one that works and the one that gives up waiting for it."""

from typing import Any

from duly import ActionCtx, AppError, Id, MutationCtx, internal, internal_action, internal_mutation, mutation, v

from . import external

REQUEST = {"request_id": v.id("requests")}


@mutation
async def create_with_timeout(ctx: MutationCtx, data: dict[str, Any], timeout_ms: float = 30_000) -> Id:
    identity = await ctx.auth.get_user_identity()
    if identity is None:
        raise AppError("Not authenticated")
    request_id = await ctx.db.insert("requests", {**data, "status": "pending", "userId": identity["subject"]})

    # Schedule the timeout
    await ctx.scheduler.run_after(timeout_ms, internal.requests.timeout, {"request_id": request_id})

    # Start processing
    await ctx.scheduler.run_after(0, internal.requests.process, {"request_id": request_id})

    return request_id


@internal_mutation(args=REQUEST)
async def timeout(ctx: MutationCtx, request_id: Id) -> None:
    request = await ctx.db.get(request_id)

    # Only if it is still pending
    if request is not None and request["status"] == "pending":
        await ctx.db.patch(request_id, {"status": "timeout", "completedAt": ctx.now})


@internal_action(args=REQUEST)
async def process(ctx: ActionCtx, request_id: Id) -> None:
    await external.call_external_api(request_id)
    await ctx.run_mutation(internal.requests.complete, {"request_id": request_id})


@internal_mutation(args=REQUEST)
async def complete(ctx: MutationCtx, request_id: Id) -> None:
    request = await ctx.db.get(request_id)

    # Whoever comes first decides: after the timeout this is too late
    if request is not None and request["status"] == "pending":
        await ctx.db.patch(request_id, {"status": "completed", "completedAt": ctx.now})
