"""Tests that leave something open, for test_leaks.py to run: each must fail, and those between them must not."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator

import pytest

from tests import leaks, postgres

leaks.PATIENCE = 3.0
held: list[object] = []  # as a cache would, or a module


class Circle:
    """Garbage that only a collection finds, as what an exception refers to."""

    def __init__(self, content: object) -> None:
        self.content, self.itself = content, self


def test_socket() -> None:
    held.append(socket.socket())


def test_nothing_1() -> None: ...


def test_socket_in_garbage() -> None:
    Circle(socket.socket())


def test_nothing_2() -> None: ...


def test_socket_of_a_failure() -> None:
    garbage = socket.socket()
    assert not garbage


def test_nothing_3() -> None: ...


def test_file() -> None:
    held.append(open(__file__))  # noqa: SIM115


def test_pipe() -> None:
    os.pipe()


async def test_server() -> None:
    held.append(await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0))


def test_loop() -> None:
    held.append(asyncio.new_event_loop())


def test_process() -> None:
    command = [sys.executable, "-c", "print('begun', flush=True); input()"]
    held.append(process := subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    assert process.stdout is not None
    process.stdout.readline()  # before that, the system may not tell its command


def test_process_that_has_ended() -> None:
    held.append(process := subprocess.Popen([sys.executable, "-c", ""]))
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def test_thread() -> None:
    threading.Thread(target=held.append, args=(1,), name="short").start()
    threading.Thread(target=threading.Event().wait, name="endless", daemon=True).start()


def test_thread_that_is_just_ending() -> None:
    threading.Thread(target=threading.Event().wait, args=(0.1,)).start()


async def never() -> None: ...


def test_coroutine() -> None:
    Circle(never())


async def test_task() -> None:
    async def fails() -> None:
        raise ValueError("nobody looks")

    Circle(asyncio.create_task(fails()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def test_temporary_file() -> None:
    held.append(tempfile.mkdtemp(prefix="left"))


@pytest.mark.skipif(bool(postgres.unavailable()), reason=str(postgres.unavailable()))
def test_store() -> None:
    postgres.new_store("postgresql://nobody@nowhere/nothing")


class Complains:
    def __del__(self) -> None:
        raise ValueError("in __del__")


def test_destructor() -> None:
    Circle(Complains())


@pytest.fixture
def failing() -> Iterator[None]:
    yield
    Circle(Complains())
    raise ValueError("in a fixture")


def test_destructor_and_fixture(failing: None) -> None: ...


def test_nothing_4() -> None:
    gc.collect()


@pytest.fixture(scope="module")
def of_the_module() -> None:
    held.append(socket.socket())


def test_with_a_fixture_of_the_module(of_the_module: None) -> None: ...


def test_the_last(of_the_module: None) -> None: ...
