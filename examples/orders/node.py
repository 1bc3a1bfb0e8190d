"""A node of the shop: a process that runs what is due until it is told to end.

    DULY_STORE=postgresql://… .venv/bin/python examples/orders/node.py

Start as many as you like on one store in PostgreSQL, on as many machines. `docs/deploying.md` is about such programs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import Final

from duly import App

BACKEND: Final = Path(__file__).parent / "backend"
STORE: Final = os.environ.get("DULY_STORE", "sqlite:///shop.db")


async def main() -> None:
    told_to_end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to_end.set)
    async with App(BACKEND, STORE):
        logging.info("this node works")
        await told_to_end.wait()
    logging.info("this node has ended")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(main())
