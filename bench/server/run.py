"""`make bench-server`: what a server costs and how soon its clients see a commit, beside a bare Starlette echo.

The server runs in a process of its own, as `duly serve` starts it; all clients are in this one. So half of each figure
on two processors is the clients' share, of the echo's figures, too: the ratio between them says more than either.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench import machine
from bench.report import lined_up, percentiles
from bench.server.sockets import RawSocket, connect, connect_client
from duly import App
from tests.clients.server import Server
from tests.postgres import free_port

HERE = Path(__file__).resolve().parent
BACKEND = HERE / "backend"
SOCKETS, SUBSCRIPTIONS, ROUNDS = 1_000, 10, 20
CALLERS, CALLS = 64, 12_800
FAN_OUT_MS_GOAL, ECHO_RATIO_GOAL, CALLS_RATIO_GOAL, SOCKET_KB_GOAL = 60, 2.5, 0.6, 60
ALL, EACH = "all", "each"
"""Boards: of the one, all clients watch the same query, of the other, each a query of its own."""


class FanOut(NamedTuple):
    """How long after a client has sent a mutation the watchers got its effect, in milliseconds, of all rounds."""

    times: list[float]

    @property
    def p99(self) -> float:
        return percentiles(self.times)[1]


class Figures(NamedTuple):
    kb_shared: float
    """Kilobytes for each socket whose subscriptions all others have, too."""
    kb_own: float
    """The same where most of its subscriptions are its own."""
    echo: FanOut
    same: FanOut
    different: FanOut
    app_calls: float
    socket_calls: float
    http_calls: float


# Fan-out.


async def fan_out(sockets: list[RawSocket], send: Callable[[int], None], rounds: int) -> FanOut:
    """Send something that every socket gets one message of, again and again."""
    times, left, all_there, began = list[float](), 0, asyncio.Event(), 0.0

    def arrived(text: bytes, at: float) -> None:
        nonlocal left
        times.append((at - began) * 1_000)
        left -= 1
        if not left:
            all_there.set()

    for socket in sockets:
        socket.on_message = arrived
    for number in range(rounds):
        left, began = len(sockets), perf_counter()
        all_there.clear()
        send(number)
        async with asyncio.timeout(60):
            await all_there.wait()
    for socket in sockets:
        socket.on_message = lambda text, at: None
    return FanOut(times)


@contextmanager
def echoing() -> Iterator[int]:
    """The echo in a process of its own, on a port."""
    port = free_port()
    with subprocess.Popen([sys.executable, str(HERE / "echo.py"), str(port)]) as process:
        try:
            yield port
        finally:
            process.kill()


async def measure_echo(count: int, rounds: int, payload: str) -> FanOut:
    with echoing() as port:
        await _until_open(port)
        sockets = [await connect("127.0.0.1", port, "/") for _ in range(count)]
        return await fan_out(sockets, lambda number: sockets[0].send(text=payload, number=number), rounds)


async def _until_open(port: int) -> None:
    while True:
        try:
            (await connect("127.0.0.1", port, "/")).close()
        except OSError:
            await asyncio.sleep(0.05)
        else:
            return


Args = Callable[[int, int], dict[str, object]]
"""The arguments of a subscription, by the number of the client and that of its subscription."""


def of_its_own(number: int, query_id: int) -> dict[str, object]:
    """`all`, for each client a query of its own of `each`, and boards that nobody else watches."""
    args = [{"board": ALL}, {"board": EACH, "watcher": number}, {"board": f"{number}-{query_id}"}]
    return args[min(query_id, 2)]


def of_everybody(number: int, query_id: int) -> dict[str, object]:
    return {"board": f"{query_id}"}


async def subscribe(sockets: list[RawSocket], subscriptions: int, args: Args = of_its_own) -> None:
    """Return when all sockets have the results of all their subscriptions."""
    for number, socket in enumerate(sockets):
        adds, answered = list[dict[str, object]](), asyncio.Event()
        for query_id in range(subscriptions):
            one = {"udfPath": "board:newest", "args": [args(number, query_id)]}
            adds.append({"type": "Add", "queryId": query_id, **one})
        socket.on_message = lambda text, at, answered=answered: answered.set()
        socket.send(type="ModifyQuerySet", baseVersion=0, newVersion=1, modifications=adds)
        async with asyncio.timeout(60):
            await answered.wait()


# Calls.


async def calls_of_app(folder: Path, callers: int, calls: int) -> float:
    async with App(str(BACKEND), f"sqlite:///{folder}/app.db") as app:

        async def caller(number: int) -> None:
            for n in range(calls // callers):
                await app.mutation("board:note", {"n": n, "text": f"of caller {number}"})

        return await _rate(calls, [caller(number) for number in range(callers)])


async def calls_over_sockets(port: int, callers: int, calls: int) -> float:
    sockets = [await connect_client("127.0.0.1", port, 10_000 + number) for number in range(callers)]

    async def caller(socket: RawSocket) -> None:
        done, each, request = asyncio.get_running_loop().create_future(), calls // callers, 0

        def call() -> None:
            args = {"n": request, "text": "of a client"}
            socket.send(type="Mutation", requestId=request, udfPath="board:note", args=[args])

        def answered(text: bytes, at: float) -> None:
            nonlocal request
            if b'"MutationResponse"' in text:
                assert b'"success":true' in text, text
                request += 1
                call() if request < each else done.set_result(None)

        socket.on_message = answered
        call()
        await done

    rate = await _rate(calls, [caller(socket) for socket in sockets])
    for socket in sockets:
        socket.close()
    return rate


async def calls_over_http(port: int, callers: int, calls: int) -> float:
    async def caller(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for n in range(calls // callers):
            body = json.dumps({"path": "board:note", "args": {"n": n, "text": "of a client"}}).encode()
            head = f"POST /api/mutation HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in answer[:20], answer
            length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
        writer.close()

    return await _rate(calls, [caller(number) for number in range(callers)])


async def _rate(calls: int, callers: list[Awaitable[None]]) -> float:
    began = perf_counter()
    await asyncio.gather(*callers)
    return calls / (perf_counter() - began)


# A run.


@contextmanager
def served(folder: Path) -> Iterator[Server]:
    # Without a line for each call, as `app.mutation` prints none.
    with Server(folder, "serve", BACKEND, options=("--log-level", "warning")) as server:
        yield server


@asynccontextmanager
async def clients(port: int, count: int) -> AsyncIterator[list[RawSocket]]:
    sockets = [await connect_client("127.0.0.1", port, number) for number in range(count)]
    try:
        yield sockets
    finally:
        for socket in sockets:
            socket.close()


@asynccontextmanager
async def idle(server: Server, options: argparse.Namespace, args: Args) -> AsyncIterator[tuple[list[RawSocket], float]]:
    """Sockets with their subscriptions, and the kilobytes that the server has more for each of them."""
    before = machine.resident_kb(server.pid)
    async with clients(server.port, options.sockets) as sockets:
        await subscribe(sockets, options.subscriptions, args)
        yield sockets, (machine.resident_kb(server.pid) - before) / options.sockets


def poster(socket: RawSocket, board: str) -> Callable[[int], None]:
    request = 0

    def post(number: int) -> None:
        nonlocal request
        args = {"board": board, "sent": float(number + 1)}
        socket.send(type="Mutation", requestId=request, udfPath="board:post", args=[args])
        request += 1

    return post


async def measure(options: argparse.Namespace, folder: Path) -> Figures:
    app_calls = await calls_of_app(folder, options.callers, options.calls)
    with served(folder) as server:
        socket_calls = await calls_over_sockets(server.port, options.callers, options.calls)
        http_calls = await calls_over_http(server.port, options.callers, options.calls)
    (folder / "idle").mkdir()
    with served(folder / "idle") as server:
        async with idle(server, options, of_everybody) as (_, kb_shared):
            pass
    (folder / "fan-out").mkdir()
    with served(folder / "fan-out") as server:
        async with idle(server, options, of_its_own) as (sockets, kb_own):
            caller = [await connect_client("127.0.0.1", server.port, number) for number in (1_000_000, 1_000_001)]
            same = await fan_out(sockets, poster(caller[0], ALL), options.rounds)
            different = await fan_out(sockets, poster(caller[1], EACH), options.rounds)
    echo = await measure_echo(options.sockets, options.rounds, "x" * 200)
    return Figures(kb_shared, kb_own, echo, same, different, app_calls, socket_calls, http_calls)


def table(figures: Figures, options: argparse.Namespace) -> str:
    echo_p50, echo_p99 = percentiles(figures.echo.times)
    lines = [("", "figure", "beside", "ratio", "goal")]
    for title, kb in (("of everybody", figures.kb_shared), ("of its own", figures.kb_own)):
        name = f"KB per idle socket, {options.subscriptions} subscriptions {title}"
        lines.append((name, f"{kb:.0f}", "", "", f"{SOCKET_KB_GOAL}"))
    for title, found in (("one query", figures.same), ("a query of its own each", figures.different)):
        p50, p99 = percentiles(found.times)
        name = f"ms until {options.sockets:,} watchers of {title} have it"
        lines.append((f"{name}, p50", f"{p50:.1f}", f"echo {echo_p50:.1f}", f"{p50 / echo_p50:.2f}", ""))
        goal = f"{FAN_OUT_MS_GOAL}, ratio {ECHO_RATIO_GOAL}" if found is figures.same else ""
        lines.append((f"{name}, p99", f"{p99:.1f}", f"echo {echo_p99:.1f}", f"{p99 / echo_p99:.2f}", goal))
    for title, rate in (("sockets", figures.socket_calls), ("HTTP connections", figures.http_calls)):
        name, beside = f"mutations/s over {options.callers} {title}", f"app.mutation {figures.app_calls:,.0f}"
        goal = f"ratio {CALLS_RATIO_GOAL}" if rate is figures.socket_calls else ""
        lines.append((name, f"{rate:,.0f}", beside, f"{rate / figures.app_calls:.2f}", goal))
    return lined_up(lines, left=1)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/server/run.py", description="Measure a server with many clients.")
    parser.add_argument("--sockets", type=int, default=SOCKETS)
    parser.add_argument("--subscriptions", type=int, default=SUBSCRIPTIONS, help="of each socket, two at least")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="commits that all watchers are to see")
    parser.add_argument("--callers", type=int, default=CALLERS)
    parser.add_argument("--calls", type=int, default=CALLS, help="of all callers together")
    parser.add_argument("--folder", type=Path, default=HERE.parents[1] / "build", help="where the stores are (build)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = _options(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder) as place:
        print(machine.sentence(machine.describe(Path(place))), end="\n\n")
        print(table(asyncio.run(measure(options, Path(place).resolve())), options))


if __name__ == "__main__":
    main()
