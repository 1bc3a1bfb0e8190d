"""A message that destroys itself after five seconds."""

from duly import Id, MutationCtx, internal, internal_mutation, mutation

from .schema import Message


@mutation
async def send(ctx: MutationCtx, text: str) -> Id[Message]:
    message_id = await ctx.db.insert("messages", {"text": text})
    await ctx.scheduler.run_after(5000, internal.messages.destruct, {"message_id": message_id})
    return message_id


@internal_mutation
async def destruct(ctx: MutationCtx, message_id: Id[Message]) -> None:
    if await ctx.db.get(message_id) is not None:  # somebody may have been faster
        await ctx.db.delete(message_id)
