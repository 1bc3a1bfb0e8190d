"""Connections are cut amid mutations: those of a JavaScript client happen once, however often they are sent."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.node import Client
from tests.clients.proxy import Proxy
from tests.clients.server import Server

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, "serve") as started:
        yield started


async def test_a_mutation_whose_answer_was_lost_is_not_run_again(client: Client, server: Server) -> None:
    script = """
    const c = client();
    c.onUpdate(api.messages.bodies, {}, () => {});
    print(await c.mutation(api.messages.send, { body: "once" }));
    print(await c.query(api.messages.bodies, {}));
    await c.close();
    """
    cuts = 1

    def cuts_answer(data: bytes) -> bool:
        nonlocal cuts
        is_cut = cuts > 0 and b"MutationResponse" in data
        cuts -= is_cut
        return is_cut

    async with Proxy(server.port, on_answer=cuts_answer) as proxy:
        result = await asyncio.to_thread(client.run, proxy.address, script)

    assert result == ["once", ["once"]]
    assert proxy.connections > 1


async def test_each_of_many_mutations_happens_once_while_connections_are_cut(client: Client, server: Server) -> None:
    # The client waits longer after each cut, up to 16 s. So its clock runs ten times as fast.
    script = """
    const after = globalThis.setTimeout;
    globalThis.setTimeout = (work, ms, ...rest) => after(work, ms / 10, ...rest);
    const c = client();
    let latest = 0, wentBack = 0;
    c.onUpdate(api.messages.count, {}, (n) => { if (n < latest) wentBack++; latest = n; });
    await Promise.all([...Array(40).keys()].map((n) => c.mutation(api.messages.send, { body: `${n}` })));
    print((await c.query(api.messages.bodies, {})).map(Number));
    print(wentBack);
    await c.close();
    """
    rng, cuts = random.Random(7), 6

    def cuts_some(data: bytes) -> bool:
        nonlocal cuts
        is_cut = cuts > 0 and rng.random() < 0.2
        cuts -= is_cut
        return is_cut

    async with Proxy(server.port, on_answer=cuts_some) as proxy:
        result = await asyncio.to_thread(client.run, proxy.address, script)

    assert result == [list(range(40)), 0]
    assert proxy.connections > 6
