"""The rules of the house, read off its source: floors, owners, sizes, and an exact front door."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ROOT / "src" / "duly"

# A room is a module or a package in duly. It imports itself and the floors below it; the ground comes first.
# The front door, `duly` itself, imports whatever it likes and is open to the floors above the app.
FRONT_DOOR = "__init__"
FLOORS = (
    {"errors", "limits", "faults", "logs", "hints", "made_once"},
    {"clock", "values"},
    {"storage"},
    {"database"},
    {"model"},
    {"declare"},
    {"ctx"},
    {"run", "decorators"},
    {"workers", "sync"},
    {"subscription", "server"},
    {"app", FRONT_DOOR},
    {"dashboard"},
    {"testing", "cli"},
    {"__main__"},
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# What only one room may import, or name.
OWNER_OF_MODULE = {
    "apsw": "storage",
    "sqlite3": "storage",
    "time": "clock",
    "socket": "server",
    "socketserver": "server",
}
OWNER_OF_NAME = {
    "datetime.now": "clock",
    "datetime.utcnow": "clock",
    "datetime.today": "clock",
    "date.today": "clock",
    "loop.time": "clock",
    "asyncio.open_connection": "server",
    "asyncio.start_server": "server",
    "loop.create_server": "server",
}
SQL = re.compile(
    r"\s*(select\s.+\sfrom\s|insert\s+(or\s+\w+\s+)?into\s|update\s+\S+\s+set\s|delete\s+from\s"
    r"|(create|drop|alter)\s+(unique\s+)?(table|index|view|trigger)\s|pragma\s|begin\s+(immediate|exclusive))",
    re.IGNORECASE | re.DOTALL,
)

# What `duly init` copies: files of applications, which are no modules of the house.
TEMPLATES = ("cli", "templates")

ROOM_FILES_MAX = 16
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 40
FUNCTION_LINES_MEAN_MAX = 12

# Words that names in the source must not have, and the terms of the field. `docs/architecture.md` has the glossary.
BANNED_WORDS = {
    "a program logs, reports, notifies or answers": "tell tells told",
    "a program receives, or is notified of": "hear hears heard news",
    "a program requests; a call is submitted": "asked",
    "claimed, owned, accepted, or already in use": "taken",
    "once more: again, reload, retry": "anew",
    "a hint": "lacks",
    "an argument or return validator": "gives",
    "the anonymous caller, or no caller": "nobody whoever somebody",
    "a queue": "lane lanes",
    "a socket": "door",
    "an interval tree of key ranges": "spans",
    "a batch in flight; await commit": "fly flying land landed landing",
    "a speculation that failed": "overtaken",
    "a claim cursor": "frontier",
    "fenced by a newer epoch": "outlived",
    "the membership changed": "regrouped",
    "the catalog changed": "reshaped",
    "untracked": "unnoted",
    "a lock timeout, or a backoff after conflicts": "patience caution",
    "a batch result, a batch": "drain drained turn turns",
    "a random number generator: rng": "chance",
    "a run record": "account",
    "soft limits": "quota",
}
REASON_OF_WORD = {word: reason for reason, words in BANNED_WORDS.items() for word in words.split()}
WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")

# Places that exist on one machine only. (In pieces, so that this file does not name them either.)
ELSEWHERE = ("../" + "shared", "/work" + "/", "." + "library")


def test_every_room_has_a_floor() -> None:
    accept(rooms_without_a_floor(HOUSE))


def test_no_room_imports_upwards_or_sideways() -> None:
    accept(wrong_imports(HOUSE))


def test_no_modules_import_each_other_in_a_circle() -> None:
    accept(circles(HOUSE))


def test_only_storage_speaks_sql() -> None:
    accept(sql_outside_storage(HOUSE))


def test_sqlite_time_and_sockets_stay_in_the_rooms_that_own_them() -> None:
    accept(trespasses(HOUSE))


def test_no_room_is_too_full() -> None:
    accept(full_rooms(HOUSE))


def test_no_file_is_too_long() -> None:
    accept(long_files(HOUSE))


def test_no_function_is_too_long() -> None:
    accept(long_functions(HOUSE))


def test_the_average_function_is_short() -> None:
    accept(long_average(HOUSE))


@pytest.mark.slow
def test_names_are_terms_of_the_field() -> None:
    accept(banned_words(HOUSE))


@pytest.mark.slow  # it asks git which files are committed
def test_no_committed_file_names_a_place_on_one_machine() -> None:
    accept(mentions_of_elsewhere(committed_files(ROOT)))


def test_all_is_exactly_what_is_public() -> None:
    accept(wrong_exports(importlib.import_module("duly"), HOUSE / "__init__.py"))


@pytest.mark.parametrize(
    ("rule", "file", "source"),
    [
        ("rooms_without_a_floor", "shed.py", ""),
        ("wrong_imports", "errors.py", "import duly.limits"),
        ("wrong_imports", "clock.py", "from duly.values import keys"),
        ("wrong_imports", "values/ids.py", "from duly.storage import engine"),
        ("wrong_imports", "values/ids.py", "from .. import storage"),
        ("wrong_imports", "values/ids.py", "from ..storage.engine import Engine"),
        ("wrong_imports", "values/ids.py", "if TYPE_CHECKING:\n    import duly.app"),
        ("wrong_imports", "model/jobs.py", "def late():\n    import duly.app"),
        ("wrong_imports", "model/jobs.py", "from duly import query"),
        ("wrong_imports", "workers/loop.py", "from duly import sync"),
        ("sql_outside_storage", "model/jobs.py", "DUE = 'SELECT id FROM jobs'"),
        ("sql_outside_storage", "model/jobs.py", "DUE = f'select {columns}\\nfrom {table}'"),
        ("sql_outside_storage", "model/jobs.sql", ""),
        ("trespasses", "model/jobs.py", "from apsw import Connection"),
        ("trespasses", "model/jobs.py", "import time"),
        ("trespasses", "model/jobs.py", "now = datetime.datetime.now(UTC)"),
        ("trespasses", "sync/session.py", "import socket"),
        ("long_files", "server/http.py", "\n" * 450),
        ("long_functions", "app.py", "def long():\n" + "    pass\n" * 50),
        ("long_average", "app.py", "def long():\n" + "    pass\n" * 40),
        ("banned_words", "app.py", "def _told(): ..."),
        ("banned_words", "app.py", "class Heard: ..."),
        ("banned_words", "app.py", "def record(asked): ..."),
        ("banned_words", "app.py", "self._is_overtaken = True"),
        ("banned_words", "model/lanes.py", ""),
    ],
)
def test_a_broken_rule_is_found(tmp_path: Path, rule: str, file: str, source: str) -> None:
    house = build_house(tmp_path)
    (house / file).write_text(source + "\n")

    complaint, *_ = globals()[rule](house)

    assert re.match(rf"{re.escape(str(house / file))}:\d+: ", complaint)


@pytest.mark.parametrize(
    "source",
    [
        "import sys\nfrom duly.values.ids import Id\n",
        "if TYPE_CHECKING:\n    from duly.values.ids import Id\n",
        "def late():\n    from duly.values.ids import Id\n",
    ],
)
def test_a_circle_is_found_whenever_its_imports_run(tmp_path: Path, source: str) -> None:
    house = build_house(tmp_path)
    (house / "values/keys.py").write_text(source)

    [complaint] = circles(house)

    names = "duly.values.ids -> duly.values.keys -> duly.values.ids"
    assert f"{house}/values/ids.py:1: these import each other in a circle: {names}" == complaint


def test_a_sound_house_breaks_no_rule(tmp_path: Path) -> None:
    house = build_house(tmp_path)

    rules = (rooms_without_a_floor, wrong_imports, circles, sql_outside_storage, trespasses)
    sizes = (full_rooms, long_files, long_functions, long_average, banned_words)
    assert [] == [complaint for rule in rules + sizes for complaint in rule(house)]


def test_a_place_on_one_machine_is_found(tmp_path: Path) -> None:
    note = tmp_path / "note.md"
    note.write_text(f"It stands\nin {ELSEWHERE[0]}.")

    [complaint] = mentions_of_elsewhere([note])

    assert complaint.startswith(f"{note}:2: ")


def test_an_inexact_all_is_found(tmp_path: Path) -> None:
    source = tmp_path / "__init__.py"
    source.write_text("import ast\n__all__ = ['gone']\nextra = 1\n")
    package = ModuleType("package")
    exec(source.read_text(), vars(package))

    assert [
        f"{source}:2: extra is public, but not in __all__",
        f"{source}:2: gone is in __all__, but twice or not in package",
    ] == list(wrong_exports(package, source))


def build_house(folder: Path) -> Path:
    """A small house in which all is well."""
    sources = {
        "__init__.py": "from duly.app import App",
        "app.py": "import duly.workers, duly.run",
        "clock.py": "import time\nfrom duly.limits import A\nnow = datetime.now(UTC)",
        "cli/__init__.py": "from duly import App\nfrom duly.server import http",
        "__main__.py": "from duly.cli import main",
        "values/ids.py": "from . import keys\nfrom ..errors import DulyError",
        "values/keys.py": "if TYPE_CHECKING:\n    from duly.limits import A",
        "storage/sqlite.py": "import apsw\nREAD = 'SELECT value FROM rows'",
        "storage/schema.sql": "CREATE TABLE rows (key BLOB)",
        "model/jobs.py": "'Select one from many.'",
        "workers/loop.py": "def wait():\n    '''" + "\n" * 60 + "'''\n    from ..database import log",
        "sync/session.py": "from duly.values import ids",
        "server/http.py": "import socket",
        "dashboard/jobs.py": "from duly import query",
    }
    house = folder / "duly"
    for name, source in sources.items():
        path = house / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source + "\n")
    return house


# The rules. Each finds what breaks it, as sentences that start with file and line.


def rooms_without_a_floor(house: Path) -> Iterator[str]:
    for name, path in modules_of(house).items():
        if room_of(name) not in FLOOR_OF:
            yield f"{where(path)}: {room_of(name)!r} has no floor: give it one in FLOORS, tests/test_house.py"


def wrong_imports(house: Path) -> Iterator[str]:
    for at, importer, imported in imports_of(house):
        here, there = room_of(importer), room_of(imported)
        if here in (there, FRONT_DOOR) or here not in FLOOR_OF or there not in FLOOR_OF or not ours(imported):
            continue
        if FLOOR_OF[there] >= FLOOR_OF[here]:
            yield (
                f"{at}: {importer} on floor {FLOOR_OF[here]} imports {imported} on floor {FLOOR_OF[there]},"
                " but a room imports only itself and the floors below"
            )


def circles(house: Path) -> Iterator[str]:
    """Imports inside functions and under `if TYPE_CHECKING` count, too: a reader follows them all the same."""
    edges = {(i.importer, i.imported): i.at for i in imports_of(house) if ours(i.imported)}
    graph: TopologicalSorter[str] = TopologicalSorter()
    for importer, imported in edges:
        graph.add(importer, imported)
    try:
        graph.prepare()
    except CycleError as error:
        circle = error.args[1][::-1]
        yield f"{edges[circle[0], circle[1]]}: these import each other in a circle: {' -> '.join(circle)}"


def sql_outside_storage(house: Path) -> Iterator[str]:
    for path in house.rglob("*.sql"):
        if path.relative_to(house).parts[0] != "storage":
            yield f"{where(path)}: only storage speaks SQL"
    for name, path in modules_of(house).items():
        for line, text in strings_of(nodes_of(path)):
            if room_of(name) != "storage" and SQL.match(text):
                yield f"{where(path, line)}: only storage speaks SQL, got {text.strip()[:50]!r}"


def trespasses(house: Path) -> Iterator[str]:
    for at, importer, imported in imports_of(house):
        owner = OWNER_OF_MODULE.get(imported.partition(".")[0])
        if owner not in (None, room_of(importer)):
            yield f"{at}: only {owner} imports {imported}"
    owned = {name.rpartition(".")[2] for name in OWNER_OF_NAME}
    for name, path in modules_of(house).items():
        for node in nodes_of(path):
            if isinstance(node, ast.Attribute) and node.attr in owned:
                owner = OWNER_OF_NAME.get(".".join(ast.unparse(node).split(".")[-2:]))
                if owner not in (None, room_of(name)):
                    yield f"{where(path, node.lineno)}: only {owner} uses {ast.unparse(node)}"


def full_rooms(house: Path) -> Iterator[str]:
    for folder in sorted({path.parent for path in modules_of(house).values()}):
        files = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
        if len(files) > ROOM_FILES_MAX:
            yield f"{where(files[-1])}: a room of {len(files)} files, expected at most {ROOM_FILES_MAX}: split it by job"


def long_files(house: Path) -> Iterator[str]:
    for path in sorted(house.rglob("*")):
        lines = len(text_of(path).splitlines())
        if lines > FILE_LINES_MAX:
            yield f"{where(path, FILE_LINES_MAX + 1)}: {lines} lines, expected at most {FILE_LINES_MAX}"


def long_functions(house: Path) -> Iterator[str]:
    for lines, at, name in functions_of(house):
        if lines > FUNCTION_LINES_MAX:
            yield f"{at}: {name} has {lines} lines, expected at most {FUNCTION_LINES_MAX}"


def long_average(house: Path) -> Iterator[str]:
    functions = sorted(functions_of(house), reverse=True)
    mean = sum(lines for lines, _, _ in functions) / max(len(functions), 1)
    if mean >= FUNCTION_LINES_MEAN_MAX:
        average = f"the average is {mean:.1f}, expected under {FUNCTION_LINES_MEAN_MAX}"
        yield from (f"{at}: {name} has {lines} lines; {average}" for lines, at, name in functions[:5])


def banned_words(house: Path) -> Iterator[str]:
    for module, path in modules_of(house).items():
        for line, name in {(1, module.rpartition(".")[2]), *names_of(nodes_of(path))}:
            for word in WORDS.findall(name):
                if reason := REASON_OF_WORD.get(word.lower()):
                    yield f"{where(path, line)}: got the name {name}, but {word.lower()!r} is a word of our own: {reason}"


def mentions_of_elsewhere(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        for line, text in enumerate(text_of(path).splitlines(), start=1):
            for place in ELSEWHERE:
                if place in text:
                    yield f"{where(path, line)}: mentions {place!r}, which nobody else has"


def wrong_exports(package: ModuleType, source: Path) -> Iterator[str]:
    exported: list[str] = package.__all__
    things = {name for name, thing in vars(package).items() if not isinstance(thing, ModuleType)}
    at = where(source, text_of(source).partition("__all__")[0].count("\n") + 1)
    for name in sorted(things - set(exported)):
        if not name.startswith("_"):
            yield f"{at}: {name} is public, but not in __all__"
    for name in sorted(exported):
        if exported.count(name) > 1 or not hasattr(package, name):
            yield f"{at}: {name} is in __all__, but twice or not in {package.__name__}"


# How the source is read.


class Import(NamedTuple):
    at: str
    importer: str
    imported: str


def imports_of(house: Path) -> Iterator[Import]:
    modules = modules_of(house)
    for name, path in modules.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for node in nodes_of(path):
            for imported in imported_by(node, package, modules):
                yield Import(where(path, node.lineno), name, imported)


def imported_by(node: ast.AST, package: str, modules: Iterable[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
        inner = (f"{base}.{alias.name}" for alias in node.names)
        yield from (name if name in modules else base for name in inner)


def strings_of(nodes: list[ast.AST]) -> Iterator[tuple[int, str]]:
    """The strings of a module with their lines: f-strings too, docstrings not."""
    docs = {node.value for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "?" for part in node.values)
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docs:
            yield node.lineno, node.value


def names_of(nodes: list[ast.AST]) -> Iterator[tuple[int, str]]:
    """The names that a module gives: of classes, functions, parameters, variables and attributes."""
    for node in nodes:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def functions_of(house: Path) -> Iterator[tuple[int, str, str]]:
    """Length without docstring, place and name of every function."""
    for path in modules_of(house).values():
        for node in nodes_of(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                doc = ast.get_docstring(node, clean=False)
                lines = extent(node) - (extent(node.body[0]) if doc is not None else 0)
                yield lines, where(path, node.lineno), node.name


def modules_of(house: Path) -> dict[str, Path]:
    """Every module by its dotted name; a package goes by the name of its folder."""
    paths = {path.relative_to(house.parent).with_suffix("").parts: path for path in sorted(house.rglob("*.py"))}
    return {".".join(parts).removesuffix(".__init__"): path for parts, path in paths.items() if parts[1:3] != TEMPLATES}


def committed_files(root: Path) -> list[Path]:
    try:
        git = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return [path for path in root.rglob("*") if not str(path.relative_to(root)).startswith(".")]
    return [root / name for name in git.stdout.split("\0") if name]


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else FRONT_DOOR


def ours(module: str) -> bool:
    return module.partition(".")[0] == "duly"


def nodes_of(path: Path) -> list[ast.AST]:
    return _nodes(path.read_text("utf-8"))


@cache
def _nodes(source: str) -> list[ast.AST]:
    """Once for all rules: to parse the house takes a second."""
    return list(ast.walk(ast.parse(source)))


def extent(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def text_of(path: Path) -> str:
    """What a text file says; nothing for pictures, folders and files that are gone."""
    try:
        return path.read_text("utf-8") if path.is_file() else ""
    except UnicodeDecodeError:
        return ""


def where(path: Path, line: int = 1) -> str:
    return f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:{line}"


def accept(complaints: Iterable[str]) -> None:
    if found := list(complaints):
        pytest.fail("\n".join(found), pytrace=False)
