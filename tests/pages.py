"""The pages of the documentation, and how their programs run.

A page has three kinds of blocks that count here:

- A block of `python` whose first line is `# path.py` is a program. It is written to that path, in a folder of the page.
- A block of `console` is a session. Each line that begins with `$ ` is a command, and is run in that folder. The lines
  below it are what the command prints on its standard output; `…` stands for any text within a line, and a line that is
  only `…` for any number of lines.
- Any other block of `python` is a fragment. It is compiled, and not run.

Blocks count from the top to the bottom: a command finds the programs above it.
"""

from __future__ import annotations

import ast
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.page_shell import Shell

ROOT: Final = Path(__file__).parent.parent
LINES_MAX: Final = 250

_BLOCK: Final = re.compile(r"^```(python|console)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_PATH: Final = re.compile(r"# (\S+\.i?py)\n")


@dataclass(frozen=True)
class Program:
    path: str
    text: str


@dataclass(frozen=True)
class Fragment:
    text: str


@dataclass(frozen=True)
class Command:
    line: str
    output: str


Block = Program | Fragment | Command


def read(page: str) -> str:
    return (ROOT / page).read_text()


def blocks(text: str) -> list[Block]:
    found: list[Block] = []
    for language, block in _BLOCK.findall(text):
        if language == "console":
            found += _commands(block)
        elif path := _PATH.match(block):
            found.append(Program(path[1], block))
        else:
            found.append(Fragment(block))
    return found


def _commands(session: str) -> list[Command]:
    assert session.startswith("$ "), f"got a session that begins with {session[:40]!r}, expected `$ ` and a command"
    parts = re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]
    return [Command(*part.split("\n", 1)) for part in parts]


def programs(text: str) -> dict[str, str]:
    return {block.path: block.text for block in blocks(text) if isinstance(block, Program)}


def write(program: Program, folder: Path) -> None:
    path = folder / program.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(program.text)


def run(command: Command, folder: Path, shell: Shell) -> str | None:
    """Run a command in a folder. Return what is wrong with its output, None if nothing is."""
    code, out, err = shell.run(shlex.split(command.line), folder)
    if code != 0 or not fits(out, command.output):
        return (
            f"$ {command.line}\nended with {code} and printed:\n{out}\nexpected:\n{command.output}"
            f"\nstandard error:\n{err}"
        )
    return None


def fits(printed: str, expected: str) -> bool:
    """Whether what was printed is what a session says, in which `…` stands for what may differ."""
    pattern = ""
    for line in expected.splitlines():
        pattern += r"(?:.*\n)*?" if line == "…" else ".*?".join(map(re.escape, line.split("…"))) + r"\s*?\n"
    return re.fullmatch(pattern, printed if printed.endswith("\n") or not printed else printed + "\n") is not None


def compiles(fragment: Fragment) -> None:
    """Compile a fragment, which may hold `await` and `return` as the body of a function does, or begin with a dot."""
    text = fragment.text
    body = "async def _():\n" + "".join(f"    {line}\n" for line in text.splitlines())
    for attempt in (text, body, f"(_{text})"):
        try:
            compile(attempt, "fragment", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        except SyntaxError:
            continue
        return
    compile(text, "fragment", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
