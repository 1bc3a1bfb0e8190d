"""The body of a request: how large it may be, and how long it may take to arrive."""

from __future__ import annotations

import asyncio

from starlette.types import Message, Receive

from duly.clock import monotonic
from duly.errors import LimitError
from duly.limits import REQUEST_BODY_SECONDS


class BodyError(LimitError):
    """A body is too large or too slow: raised to who reads it. `status` and `code` are how clients know the reason."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def limited(receive: Receive, limit: str, bytes_max: int) -> Receive:
    """Return a `receive` that raises BodyError. Only the time in which somebody waits for the body counts."""
    size, seconds, is_complete = 0, REQUEST_BODY_SECONDS, False

    async def limited() -> Message:
        nonlocal size, seconds, is_complete
        if is_complete:
            return await receive()  # which waits for the client to go away
        started = monotonic()
        try:
            async with asyncio.timeout(seconds):
                message = await receive()
        except TimeoutError:
            raise BodyError(
                408, "RequestTimeout", f"got no whole body within {REQUEST_BODY_SECONDS:g} s (REQUEST_BODY_SECONDS)"
            ) from None
        seconds -= monotonic() - started
        size += len(message.get("body", b""))
        is_complete = not message.get("more_body", False)
        if size > bytes_max:
            raise BodyError(413, "RequestTooLarge", f"got a body of more than {bytes_max:,} bytes ({limit})")
        return message

    return limited
