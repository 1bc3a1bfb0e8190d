"""The official JavaScript clients, unchanged, on a server of `duly dev` or `duly serve`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.node import USUAL, Client
from tests.clients.server import Server

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as started:
        yield started


def test_each_version_is_the_one_that_runs(client: Client) -> None:
    assert client.run("", "print((await import('convex')).version);") == [client.version]


def test_a_query_is_answered_over_http_with_all_kinds_of_values(client: Client, server: Server) -> None:
    script = """
    const http = new ConvexHttpClient(address);
    const value = { n: 3, x: 1.5, big: 9007199254740993n, text: "é", list: [null, true], none: {} };
    print(await http.query(api.messages.echo, { value }));
    print(Object.is((await http.query(api.messages.echo, { value: -0 })), -0));
    print(Number.isNaN(await http.query(api.messages.echo, { value: NaN })));
    print([...new Uint8Array(await http.query(api.messages.echo, { value: new Uint8Array([1, 255]).buffer }))]);
    """
    value = {"n": 3, "x": 1.5, "big": "9007199254740993n", "text": "é", "list": [None, True], "none": {}}
    assert client.run(server.address, script) == [value, True, True, [1, 255]]


def test_mutations_actions_and_errors_over_http(client: Client, server: Server) -> None:
    script = """
    const http = new ConvexHttpClient(address);
    print(await http.mutation(api.messages.send, { body: "hi" }));
    print(await http.action(api.messages.shout, { body: "hi" }));
    print(await failure(http.mutation(api.messages.fail, { data: { code: 1 } })));
    print(await failure(http.mutation(api.messages.fail, { data: null })));
    print(await failure(http.query(api.messages.send, { body: "hi" })));
    print(await http.query(api.messages.bodies, {}));
    print(await http.consistentQuery(api.messages.count, {}));
    """
    *values, wrong_kind, bodies, count = client.run(server.address, script)
    assert values == ["hi", "HI", {"data": {"code": 1}}, {"data": None}]
    assert wrong_kind["message"].endswith("messages:send is a mutation, expected a query")
    assert (bodies, count) == (["hi", "HI"], 2)


def test_a_subscription_shows_each_change(client: Client, server: Server) -> None:
    script = """
    const c = client(), other = client();
    const seen = [];
    c.onUpdate(api.messages.bodies, {}, (bodies) => { seen.push(bodies); });
    await until(c, api.messages.count, {}, (n) => n === 0);
    print(await c.mutation(api.messages.send, { body: "own" }));
    print(seen);
    await other.mutation(api.messages.send, { body: "theirs" });
    await until(c, api.messages.count, {}, (n) => n === 2);
    print(seen);
    await c.close(); await other.close();
    """
    assert client.run(server.address, script) == [
        "own",
        [[], ["own"]],  # it is there when the mutation is answered
        [[], ["own"], ["own", "theirs"]],
    ]


def test_two_queries_change_together(client: Client, server: Server) -> None:
    script = """
    const c = client(), torn = [];
    let bodies = [], count = 0;
    c.client.addOnTransitionHandler(() => {
      const local = c.client;
      const b = local.localQueryResult("messages:bodies", {}), n = local.localQueryResult("messages:count", {});
      if (b !== undefined && n !== undefined && b.length !== n) torn.push([b, n]);
    });
    c.onUpdate(api.messages.bodies, {}, () => {});
    c.onUpdate(api.messages.count, {}, () => {});
    await Promise.all([...Array(30).keys()].map((n) => c.mutation(api.messages.send, { body: `${n}` })));
    print(await until(c, api.messages.count, {}, (n) => n === 30));
    print(torn);
    print(c.client.localQueryResult("messages:bodies", {}).map(Number));
    await c.close();
    """
    assert client.run(server.address, script) == [30, [], list(range(30))]


def test_an_optimistic_update_gives_way_to_what_was_stored(client: Client, server: Server) -> None:
    script = """
    const c = client(), seen = changesOf(c, api.messages.bodies, {});
    await until(c, api.messages.count, {}, (n) => n === 0);
    await c.mutation(api.messages.send, { body: "stored" }, {
      optimisticUpdate: (local) =>
        local.setQuery(api.messages.bodies, {}, [...(local.getQuery(api.messages.bodies, {}) ?? []), "hoped"]),
    });
    print(seen);
    await c.close();
    """
    assert client.run(server.address, script) == [[[], ["hoped"], ["stored"]]]


def test_errors_come_with_their_data(client: Client, server: Server) -> None:
    script = """
    const c = client();
    print(await failure(c.mutation(api.messages.fail, { data: { code: 7 } })));
    print((await failure(c.mutation(api.messages.fail, {}))).message.replace(/[0-9a-f]{16}/, "id"));
    print((await failure(c.mutation(api.messages.secret, {}))).message.includes("which does not exist"));
    print(await failure(c.query(api.messages.failing, {})));
    await c.mutation(api.messages.send, { body: "x" });
    print(await failure(c.query(api.messages.failing, {})));
    await c.close();
    """
    data, text, internal, empty, fine = client.run(server.address, script)
    assert data == {"data": {"code": 7}}
    assert text == "[CONVEX M(messages:fail)] [Request ID: id] ValueError: a secret"
    assert internal is True
    assert (empty, fine) == ({"data": {"code": "EMPTY"}}, {"value": None})


def test_a_scheduled_function_is_seen_going_from_pending_to_success(client: Client, server: Server) -> None:
    script = """
    const c = client(), states = [];
    const id = await c.mutation(api.messages.send_later, { body: "later" });
    c.onUpdate(api.messages.job, { id }, (state) => states.push(state));
    await until(c, api.messages.job, { id }, (state) => state === "success");
    print(states);
    print(await c.query(api.messages.bodies, {}));
    await c.close();
    """
    assert client.run(server.address, script) == [["pending", "success"], ["later"]]


def test_pages_keep_their_ends_while_rows_are_added(client: Client, server: Server) -> None:
    script = """
    const c = client();
    for (const body of "abcd") await c.mutation(api.messages.send, { body });
    const seen = [];
    const opts = (cursor) => ({ paginationOpts: { numItems: 2, cursor, id: -1 } });
    const first = await until(c, api.messages.page, opts(null), () => true);
    print([first.page, first.isDone]);
    c.onUpdate(api.messages.page, opts(first.continueCursor), (page) => seen.push([page.page, page.isDone]));
    await until(c, api.messages.page, opts(first.continueCursor), () => true);
    await c.mutation(api.messages.send, { body: "e" });
    print(seen);
    const second = c.client.localQueryResult("messages:page", opts(first.continueCursor));
    print((await until(c, api.messages.page, opts(second.continueCursor), () => true)).page);
    await c.close();
    """
    assert client.run(server.address, script) == [[["a", "b"], False], [[["c", "d"], False]], ["e"]]


def test_a_client_goes_on_after_the_server_was_killed(client: Client, server: Server) -> None:
    script = """
    const c = client(), seen = changesOf(c, api.messages.bodies, {});
    await until(c, api.messages.bodies, {}, (bodies) => bodies.length === 0);
    await c.mutation(api.messages.send, { body: "before" });
    print("kill");
    await new Promise((resolve) => {
      const timer = setInterval(() => c.connectionState().isWebSocketConnected || (clearInterval(timer), resolve()), 5);
    });
    const sent = c.mutation(api.messages.send, { body: "meanwhile" });
    print("start");
    print(await sent);
    print(seen);
    print(c.connectionState().connectionCount > 1);
    await c.close();
    """
    with client.start(server.address, script) as node:
        assert node.next() == "kill"
        server.kill()
        assert node.next() == "start"
        server.start()
        assert node.rest() == ["meanwhile", [[], ["before"], ["before", "meanwhile"]], True]


@USUAL.is_needed
def test_in_production_a_client_learns_nothing_of_an_error_but_its_data(tmp_path: Path) -> None:
    script = """
    const c = client();
    print(await failure(c.mutation(api.messages.fail, { data: "mine" })));
    print((await failure(c.mutation(api.messages.fail, {}))).message.replace(/[0-9a-f]{16}/, "id"));
    await c.close();
    """
    with Server(tmp_path, "serve") as server:
        data, text = USUAL.run(server.address, script)
    assert data == {"data": "mine"}
    assert text == "[CONVEX M(messages:fail)] [Request ID: id] Server Error"
