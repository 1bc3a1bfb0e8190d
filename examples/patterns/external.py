"""Stands for a service elsewhere: only actions may call it, and at times it is down."""

from typing import Any

outages = 0
"""How many of the next calls fail."""
received: list[Any] = []
"""What the service got."""


async def call_external_api(data: Any) -> str:
    global outages
    if outages:
        outages -= 1
        raise ConnectionError("the service is down")
    received.append(data)
    return f"done: {data}"
