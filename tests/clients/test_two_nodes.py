"""Many clients count over two nodes of one store, behind a proxy, while the nodes are killed in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.node import USUAL
from tests.clients.proxy import Proxy
from tests.clients.server import Server

pytestmark = [USUAL.is_needed, pytest.mark.slow, pytest.mark.server]

CLIENTS, EACH, KILLS = 50, 40, 4
SECONDS_APART = 1.0

SCRIPT = """
import { WebSocket } from "ws";

// The clients wait longer after each cut. So their clocks run five times as fast.
const after = globalThis.setTimeout;
globalThis.setTimeout = (work, ms, ...rest) => after(work, ms / 5, ...rest);

let wentBack = 0;
const tsOf = (text) => Buffer.from(text, "base64").readBigUInt64LE();

/** A WebSocket that looks at the timestamps of all connections of one client. */
const watching = (seen) =>
  class extends WebSocket {
    constructor(url) {
      super(url);
      this.addEventListener("message", ({ data }) => {
        const message = JSON.parse(data);
        if (message.type !== "Transition") return;
        const ts = tsOf(message.endVersion.ts);
        if (ts < seen.ts) wentBack++;
        seen.ts = ts;
      });
    }
  };

const clients = [...Array(CLIENTS).keys()].map(() => {
  const seen = { ts: 0n, total: 0 };
  const c = new ConvexClient(address, { unsavedChangesWarning: false, webSocketConstructor: watching(seen) });
  c.onUpdate(api.counters.total, {}, (total) => {
    if (total < seen.total) wentBack++;
    seen.total = total;
  });
  return c;
});
await Promise.all(
  clients.map(async (c, who) => {
    for (let n = 0; n < EACH; n++) await c.mutation(api.counters.add, { who });
  }),
);
print(await clients[0].query(api.counters.total, {}));
print(await clients[1].query(api.counters.of_each, {}));
print(wentBack);
await Promise.all(clients.map((c) => c.close()));
"""


async def kill_in_turn(servers: list[Server], counting: asyncio.Task[list[object]]) -> int:
    """Kill one node after the other, and start it again, while the clients count. Return how often."""
    for kills in range(KILLS):
        await asyncio.wait((counting,), timeout=SECONDS_APART)
        if counting.done():
            return kills
        server = servers[kills % 2]
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
    return KILLS


async def test_what_clients_count_is_counted_once_while_two_nodes_are_killed_in_turn(
    tmp_path: Path, store_of: Callable[[str], str]
) -> None:
    store = store_of("postgres")
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    script = SCRIPT.replace("CLIENTS", str(CLIENTS)).replace("EACH", str(EACH))
    with Server(folders[0], "serve", store=store) as one, Server(folders[1], "serve", store=store) as other:
        async with Proxy(one.port, other.port) as proxy:
            counting = asyncio.create_task(asyncio.to_thread(USUAL.run, proxy.address, script))
            kills = await kill_in_turn([one, other], counting)
            result = await counting

    assert result == [CLIENTS * EACH, [EACH] * CLIENTS, 0]
    assert kills > 0
