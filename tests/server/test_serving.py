"""`duly serve`, ports that are in use, and what is not imported where nothing is served."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from duly.server.listen import ListenError, listening
from tests.clients.server import BACKEND, Server

NEEDED_TO_SERVE = ("starlette", "uvicorn", "websockets", "joserfc", "duly.server", "duly.sync")


@pytest.mark.slow
@pytest.mark.parametrize("imported", ["duly", "duly.app", "duly.testing", "duly.cli"])
def test_what_serves_nothing_imports_no_server(imported: str) -> None:
    source = f"import sys, {imported}; print([n for n in {NEEDED_TO_SERVE[:4]} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.slow
def test_what_checks_tokens_is_imported_for_applications_with_providers_only() -> None:
    source = (
        "import sys; from duly import App; App({}).asgi; print('starlette' in sys.modules, 'joserfc' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"


async def test_a_port_that_is_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ListenError) as raised:
            async with listening(None, "127.0.0.1", [port]):
                pass
    expected = (
        f"got 127.0.0.1:{port}, on which nothing can listen (Address already in use); name another port: --port PORT"
    )
    assert str(raised.value) == expected


@pytest.mark.parametrize(
    ("host", "shown"),
    [("192.0.2.1", "192.0.2.1:3210"), ("no host", "no host:3210"), ("2001:db8::1", "[2001:db8::1]:3210")],
)
async def test_what_is_no_address_of_this_machine_is_refused(host: str, shown: str) -> None:
    with pytest.raises(ListenError) as raised:
        async with listening(None, host, [3210, 3211]):
            pass
    problem = "on which nothing can listen (no address of this machine); name another host: --host HOST"
    assert str(raised.value) == f"got {shown}, {problem}"


async def test_an_address_of_ipv6_is_printed_as_clients_need_it() -> None:
    try:
        async with listening(None, "::1", [0]) as address:
            assert address.startswith("http://[::1]:")
    except ListenError:
        pytest.skip("this machine has no IPv6")


async def test_the_first_free_port_is_used() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        async with listening(None, "127.0.0.1", [port, 0]) as address:
            assert address != f"http://127.0.0.1:{port}"


@pytest.mark.slow
def test_serve_answers_until_it_is_told_to_end(tmp_path: Path) -> None:
    server = Server(tmp_path, "serve").start()
    with urllib.request.urlopen(f"{server.address}/version") as answer:
        assert answer.status == 200
    assert server.stop() == 0
    assert (tmp_path / "server.log").read_text().endswith("stopped\n")


@pytest.mark.slow
def test_serve_logs_lines_of_json_if_it_is_wanted(tmp_path: Path) -> None:
    with Server(tmp_path, "serve", options=("--log-format", "json")) as server:
        body = json.dumps({"path": "messages:nothing", "args": {}}).encode()
        with urllib.request.urlopen(f"{server.address}/api/query", data=body) as answer:
            message = json.load(answer)["errorMessage"]
    [line] = [line for line in (tmp_path / "server.log").read_text().splitlines() if line.startswith("{")]
    record = json.loads(line)
    assert (record["level"], record["logger"]) == ("WARNING", "duly.run")
    assert message == f"[Request ID: {record['request_id']}] Server Error"


@pytest.mark.slow
def test_serve_prints_no_runs_that_went_well_if_only_warnings_are_wanted(tmp_path: Path) -> None:
    with Server(tmp_path, "serve", options=("--log-level", "warning")) as server:
        for path in ("messages:count", "messages:nothing"):
            body = json.dumps({"path": path, "args": {}}).encode()
            with urllib.request.urlopen(f"{server.address}/api/query", data=body) as answer:
                assert answer.status == 200
    log = (tmp_path / "server.log").read_text()
    assert "messages:count" not in log
    assert "messages:nothing" in log


@pytest.mark.slow
def test_serve_does_not_start_without_its_port_or_its_folder(tmp_path: Path) -> None:
    with Server(tmp_path, "serve") as server:
        command = [sys.executable, "-m", "duly", "serve", "--store", f"sqlite:///{tmp_path}/other.db"]
        taken = subprocess.run([*command, str(BACKEND), "--port", str(server.port)], capture_output=True, text=True)
        no_folder = subprocess.run([*command, "nowhere"], capture_output=True, text=True, cwd=tmp_path)
    assert (taken.returncode, no_folder.returncode) == (1, 1)
    problem = "on which nothing can listen (Address already in use); name another port: --port PORT"
    assert taken.stderr == f"Error: ListenError: got 127.0.0.1:{server.port}, {problem}\n"
    assert no_folder.stderr.startswith("Error: got the folder 'nowhere', which does not exist")
