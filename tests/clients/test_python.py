"""The official Python clients, unchanged, on a server of `duly dev`.

The client runs in a process of its own: its calls hold the interpreter, so that nothing else of that process runs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.server import Server

pytestmark = pytest.mark.slow

PRELUDE = """
import json, sys
from convex import ConvexClient, ConvexError, ConvexInt64
from convex.http_client import ConvexHttpClient

address = sys.argv[1]

def show(value):
    print(">", json.dumps(value, default=repr), flush=True)

def failure(call, *args):
    try:
        return call(*args)
    except ConvexError as error:
        return {"data": error.data}
    except Exception as error:
        return {"message": str(error)}
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as started:
        yield started


def start(address: str, source: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + source, address], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def next_of(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("> "):
            return json.loads(line[2:])
        print("client:", line, end="")
    raise AssertionError(f"the client ended with {process.wait()}")


def run(address: str, source: str) -> list[Any]:
    process = start(address, source)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    return [json.loads(line[2:]) for line in output.splitlines() if line.startswith("> ")]


def test_the_http_client(server: Server) -> None:
    source = """
http = ConvexHttpClient(address)
show(http.mutation("messages:send", {"body": "hi"}))
show(http.action("messages:shout", {"body": "hi"}))
show(http.query("messages:bodies"))
show(http.query("messages:echo", {"value": [1, 1.5, b"x", ConvexInt64(2**60), None]}))
show(failure(http.mutation, "messages:fail", {"data": {"code": 1}}))
show(failure(http.query, "messages:nothing"))
"""
    *values, data, unknown = run(server.address, source)
    assert values == ["hi", "HI", ["hi", "HI"], [1.0, 1.5, "b'x'", f"ConvexInt64({2**60})", None]]
    assert data == {"data": {"code": 1}}
    assert "'messages:nothing', which does not exist" in unknown["message"]


def test_a_subscription_and_calls(server: Server) -> None:
    source = """
client = ConvexClient(address)
bodies = client.subscribe("messages:bodies")
show(next(bodies))
show(client.mutation("messages:send", {"body": "hi"}))
show(next(bodies))
show(client.action("messages:shout", {"body": "hi"}))
show(client.query("messages:count"))
"""
    assert run(server.address, source) == [[], "hi", ["hi"], "HI", 2.0]


def test_results_that_are_together_larger_than_a_frame_may_be_arrive(server: Server) -> None:
    """The client takes frames of up to 16 MiB, and would reconnect for ever. Two results of one commit are one message."""
    source = """
client = ConvexClient(address)
size = 9 << 20
one, other = (client.subscribe("messages:filled", {"size": size + n}) for n in range(2))
show([next(one)[0], next(other)[0]])
client.mutation("messages:send", {"body": "hi"})
found = [next(one), next(other)]
while [count for count, _ in found] != [1, 1]:
    found = [next(one), next(other)]
show([len(text) - size for _, text in found])
"""
    assert run(server.address, source) == [[0.0, 0.0], [0, 1]]


def test_errors_come_with_their_data(server: Server) -> None:
    source = """
client = ConvexClient(address)
show(failure(client.mutation, "messages:fail", {"data": {"code": 1}}))
show(failure(client.mutation, "messages:fail", {})["message"].splitlines()[0][-20:])
show(failure(client.query, "messages:failing", {}))
"""
    assert run(server.address, source) == [{"data": {"code": 1}}, "ValueError: a secret", {"data": {"code": "EMPTY"}}]


def test_a_client_goes_on_after_the_server_was_killed(server: Server) -> None:
    source = """
client = ConvexClient(address)
bodies = client.subscribe("messages:bodies")
show(next(bodies))
client.mutation("messages:send", {"body": "before"})
while next(bodies) != ["before"]:
    pass
show("kill")
while (found := next(bodies)) == ["before"]:
    pass
show(found)
show(client.mutation("messages:send", {"body": "after"}))
"""
    process = start(server.address, source)
    try:
        assert [next_of(process), next_of(process)] == [[], "kill"]
        server.kill()
        server.start()
        assert run(server.address, 'ConvexHttpClient(address).mutation("messages:send", {"body": "x"})') == []
        assert [next_of(process), next_of(process)] == [["before", "x"], "after"]
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()
