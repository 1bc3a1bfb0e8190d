"""Whose line a thread is at, also in code that Python generates, such as that of named tuples."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, NamedTuple

import pytest

from duly.database.driver.application_lines import application_line, file_of, is_application
from duly.storage.requests import Get
from duly.storage.rows import JOBS


class Pair(NamedTuple):
    one: int
    other: int


@dataclass
class Order:
    item: str

    def __setattr__(self, name: str, value: object) -> None:
        frames.append(sys._getframe(1))


frames: list[FrameType] = []


@pytest.fixture(autouse=True)
def no_frames() -> Iterator[None]:
    yield
    frames.clear()


def frame_of_new(kind: type[Any], make: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> FrameType:
    """The frame in which Python makes a named tuple: that of generated code, whose file is `<string>`."""

    def note(*of: Any) -> Any:
        frames.append(sys._getframe(1))
        return tuple.__new__(*of)

    monkeypatch.setitem(kind.__new__.__globals__, "_tuple_new", note)
    make()
    assert frames[-1].f_code.co_filename == "<string>"
    return frames[-1]


@pytest.mark.parametrize(("kind", "make"), [(Get, lambda: Get(JOBS, 1)), (Pair, lambda: Pair(1, 2))])
def test_the_code_of_a_named_tuple_is_not_the_applications(
    kind: type[Any], make: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_application(file_of(frame_of_new(kind, make, monkeypatch)))


def test_the_code_of_a_dataclass_belongs_to_the_module_of_the_class() -> None:
    Order("tea")
    assert frames[0].f_code.co_filename == "<string>"
    assert file_of(frames[0]) == __file__


def test_the_line_of_an_application_is_the_one_that_makes_a_named_tuple(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []

    def make() -> object:
        return Get(JOBS, 1)

    def note(*of: Any) -> Any:
        lines.append(application_line(sys._getframe(1)))
        return tuple.__new__(*of)

    monkeypatch.setitem(Get.__new__.__globals__, "_tuple_new", note)
    make()
    assert lines == [f"test_application_lines.py:{make.__code__.co_firstlineno + 1}"]


@pytest.mark.slow  # a process
def test_the_text_of_a_command_is_an_application() -> None:
    program = (
        "import sys; from duly.database.driver.application_lines import application_line\n"
        "print(application_line(sys._getframe()))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "<string>:2\n"
