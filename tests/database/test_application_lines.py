"""Whose line a thread is at, also in code that Python generates, such as that of named tuples."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
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


def generated_frames(make: Callable[[], object]) -> list[FrameType]:
    """The frames of generated code that run meanwhile."""
    frames: list[FrameType] = []

    def note(frame: FrameType, event: str, arg: Any) -> None:
        if event == "call" and frame.f_code.co_filename == "<string>":
            frames.append(frame)

    sys.setprofile(note)
    try:
        make()
    finally:
        sys.setprofile(None)
    return frames


@pytest.mark.parametrize("make", [lambda: Get(JOBS, 1), lambda: Pair(1, 2)])
def test_the_code_of_a_named_tuple_is_not_the_applications(make: Callable[[], object]) -> None:
    [frame] = generated_frames(make)
    assert not is_application(file_of(frame))


def test_the_code_of_a_dataclass_belongs_to_the_module_of_the_class() -> None:
    [frame] = generated_frames(lambda: Order("tea"))
    assert file_of(frame) == __file__


def test_the_line_of_an_application_is_the_one_that_makes_a_named_tuple() -> None:
    def make() -> object:
        return Get(JOBS, 1)

    [frame] = generated_frames(make)
    assert application_line(frame) == f"test_application_lines.py:{make.__code__.co_firstlineno + 1}"


@pytest.mark.slow  # a process
def test_the_text_of_a_command_is_an_application() -> None:
    program = (
        "import sys; from duly.database.driver.application_lines import application_line\n"
        "print(application_line(sys._getframe()))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "<string>:2\n"
