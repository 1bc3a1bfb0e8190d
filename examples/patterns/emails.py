"""E-mails, delivered by an action: at most once."""

from duly import ActionCtx, internal_action

from . import external


@internal_action
async def deliver(ctx: ActionCtx, text: str) -> None:
    await external.call_external_api(text)
