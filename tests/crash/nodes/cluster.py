"""A PostgreSQL server, and three places for nodes, each behind a proxy of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, Final, Literal, Self

from tests import leaks
from tests.crash.nodes.node import END, OPEN, REST, RESTING, NodeOrder, be
from tests.nodes.proxy import Proxy
from tests.postgres import Server

NODES: Final = 3
ENDS_SECONDS: Final = 60.0

_processes: Any = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.crash.nodes.node"])


class Trouble(Exception):
    """Something that must not happen: a node that ended by itself, or does not do what it is told."""


class Node:
    """A place for a node: the processes there come and go, its proxy stays."""

    def __init__(self, number: int, proxy: Proxy) -> None:
        self.number = number
        self.proxy = proxy
        self.run = -1
        self.said: dict[str, float] = {}
        """All it has told so far, and when."""
        self._process: Any = None
        self._pipe: Any = None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_open(self) -> bool:
        """Whether its process has opened the store."""
        return self._process is not None and OPEN in self.listen()

    def start(self, order: NodeOrder) -> None:
        self.run = order.run
        self.said = {}
        self._pipe, theirs = _processes.Pipe()
        self._process = _processes.Process(target=be, args=(order, theirs), name=f"node {self.number}")
        with leaks.kept():  # that of the processes' server, which the first of them starts
            forkserver.ensure_running()
        self._process.start()
        theirs.close()

    def listen(self) -> dict[str, float]:
        """What it has said. Raises Trouble where it has ended by itself."""
        with suppress(EOFError, ConnectionError):
            while self._pipe.poll():
                self.said[self._pipe.recv()] = time.monotonic()
        if self._process.exitcode is not None:
            raise Trouble(f"{self} ended by itself with {self._process.exitcode}")
        return self.said

    def tell(self, order: str) -> None:
        self._pipe.send(order)

    def kill(self) -> None:
        self.listen()
        self._process.kill()
        self._gone(ENDS_SECONDS)

    def __str__(self) -> str:
        return f"node {self.number} (run {self.run})"

    def dies(self, seconds: float) -> bool:
        """Whether its process is killed by itself, so to speak, within some time."""
        return self._gone(seconds) == -signal.SIGKILL

    def end(self) -> None:
        """Have it end in order. Its clients rest already."""
        self.tell(END)
        code = self._gone(ENDS_SECONDS)
        if code != 0:
            raise Trouble(f"{self} was told to end, and ended with {code}")

    def _gone(self, seconds: float) -> int | None:
        """Its exit code, None if it does not end in time."""
        self._process.join(seconds)
        code = self._process.exitcode
        if code is not None:
            self._pipe.close()
            self._process.close()
            self._process = None
        return code

    def abandon(self) -> None:
        """Kill it whatever state it is in, and have it say first where it was."""
        if self._process is not None and self._process.exitcode is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGUSR1)
            time.sleep(0.2)
            self._process.kill()
            self._gone(ENDS_SECONDS)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)


class Cluster:
    """The server and the nodes of one round, whose store is a schema of its own."""

    def __init__(self, server: Server, folder: Path, schema: str, seed: str, shared_by: int) -> None:
        self.server = server
        self.folder = folder
        self.schema = schema
        self.nodes: list[Node] = []
        self.runs = 0
        self.disturbed: set[int] = set()
        """The processes that were killed, or told to end early."""
        self._seed = seed
        self._shared_by = shared_by
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for number in range(NODES):
            self.nodes.append(Node(number, self._stack.enter_context(Proxy(self.server.port))))
        return self

    def __exit__(self, *error: object) -> None:
        self.abandon()
        self._stack.close()

    def abandon(self) -> None:
        """Kill all nodes that are left, in whatever state they are."""
        for node in self.nodes:
            self.disturbed.add(node.run)
            node.abandon()

    @property
    def store(self) -> str:
        """Past the proxies."""
        return self._address(self.server.port)

    def _address(self, port: int) -> str:
        return f"postgresql://duly@127.0.0.1:{port}/duly?schema={self.schema}"

    def start(self, node: Node, fault: str = "") -> None:
        self.disturbed.add(node.run)  # it has ended before the end of the round
        order = NodeOrder(
            str(self.folder),
            self.runs,
            self._seed,
            self._address(node.proxy.port),
            f"node {node.number}",
            self._shared_by,
            fault,
        )
        self.runs += 1
        node.start(order)
        self.note(f"start of {node} as process {node.pid} {fault}")

    def note(self, text: str) -> None:
        """For whoever looks for the cause of something."""
        with (self.folder / "faults").open("a") as file:
            file.write(f"{time.strftime('%H:%M:%S')},{time.time() % 1 * 1000:03.0f} {text}\n")

    @property
    def settled_seconds(self) -> float:
        """How long all nodes have been open."""
        opened = [node.said[OPEN] for node in self.nodes if node.is_open]
        return time.monotonic() - max(opened) if len(opened) == NODES else 0.0

    def opened(self) -> list[Node]:
        return [node for node in self.nodes if node.is_open]

    def heal(self) -> None:
        for node in self.nodes:
            node.proxy.heal()

    def rest(self, nodes: list[Node], seconds: float) -> None:
        """Have clients ask for nothing more, and wait until all they have asked for is answered."""
        for node in nodes:
            node.tell(REST)
        if not until(lambda: all(RESTING in node.listen() for node in nodes), seconds):
            raise Trouble(f"the clients of a node got no answer within {seconds:.0f} s")

    def stop_server(self, how: Literal["kill", "immediate", "fast"]) -> None:
        if how != "kill":
            return self.server.stop(how)
        children = _children(self.server.pid)
        self.server.kill()
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return None


def _children(pid: int | None) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def until(is_so: Callable[[], object], seconds: float, pause: float = 0.01) -> bool:
    """Whether something becomes so within some time."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True
