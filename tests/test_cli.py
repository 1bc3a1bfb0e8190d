"""The command line, run as a newcomer runs it."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from duly import App
from tests.support import duly, duly_process

pytestmark = pytest.mark.slow  # processes

MODULE = """
from duly import ActionCtx, Id, MutationCtx, QueryCtx, internal, internal_action, mutation, query

@mutation
async def add(ctx: MutationCtx, text: str) -> Id:
    note_id = await ctx.db.insert("notes", {"text": text})
    await ctx.scheduler.run_after(0, internal.notes.announce, {"text": text})
    return note_id

@internal_action
async def announce(ctx: ActionCtx, text: str) -> None:
    ctx.log.info("new: %s", text)
    if text == "bad":
        raise ValueError("no such note")

@query
async def count(ctx: QueryCtx) -> int:
    return len(await ctx.db.query("notes").collect())
"""

SLOW = """
import asyncio, time
from pathlib import Path
from duly import ActionCtx, MutationCtx, SyncActionCtx, internal_action, mutation

@internal_action
def in_a_thread(ctx: SyncActionCtx) -> None:
    ctx.log.info("runs in a thread")
    time.sleep(600)

@internal_action
async def until_told(ctx: ActionCtx) -> None:
    ctx.log.info("runs until told")
    while not Path("told").exists():
        await asyncio.sleep(0.02)

@internal_action
async def ignoring_it(ctx: ActionCtx) -> None:
    ctx.log.info("runs ignoring it")
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass

@internal_action
async def computing(ctx: ActionCtx) -> None:
    ctx.log.info("runs computing")
    while True:
        pass

@internal_action
async def blocking(ctx: ActionCtx) -> None:
    ctx.log.info("runs blocking")
    time.sleep(600)

@mutation
async def start(ctx: MutationCtx, names: list[str]) -> None:
    for name in names:
        await ctx.scheduler.run_after(0, f"slow:{name}")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder of functions, and a store."""
    (tmp_path / "backend").mkdir()
    (tmp_path / "backend" / "notes.py").write_text(MODULE)
    make_store(f"sqlite:///{tmp_path}/.duly/data.db")
    return tmp_path


@pytest.fixture
def configured(project: Path, store: str) -> Path:
    """The same, on each engine in turn."""
    (project / "pyproject.toml").write_text(f'[tool.duly]\nstore = "{store}"\n')
    make_store(store)
    return project


def make_store(address: str) -> None:
    async def make() -> None:
        async with App({}, address, executor=False):
            pass

    asyncio.run(make())


class Dev:
    """A running `duly dev`, whose lines can be waited for."""

    def __init__(self, project: Path, environment: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "duly", "dev"],
            cwd=project,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.seen: list[str] = []

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip())

    def next(self) -> str:
        try:
            line = self._lines.get(timeout=30)
        except queue.Empty:
            raise AssertionError(f"no line after {self.seen}") from None
        self.seen.append(line)
        return line

    def wait_for(self, text: str) -> str:
        """The next line that has this text in it."""
        while text not in (line := self.next()):
            pass
        return line

    def interrupt_until(self, text: str) -> str:
        """Press Ctrl-C now and then, until there is a line that has this text in it."""
        while True:
            self.process.send_signal(signal.SIGINT)
            try:
                line = self._lines.get(timeout=1)
            except queue.Empty:
                continue
            self.seen.append(line)
            if text in line:
                return line


@contextmanager
def dev(project: Path, environment: dict[str, str] | None = None) -> Iterator[Dev]:
    running = Dev(project, environment)
    try:
        yield running
    finally:
        running.process.send_signal(signal.SIGINT)
        running.process.wait(30)
        running._reader.join(30)
        assert running.process.stdout is not None
        running.process.stdout.close()


def test_run_prints_what_a_function_returns_as_json(configured: Path) -> None:
    added = duly(configured, "run", "notes:add", '{"text": "tea"}')
    assert added.returncode == 0, added.stderr
    assert len(json.loads(added.stdout)) == 32
    assert duly(configured, "run", "notes:count").stdout == "1\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["notes:cuont"], "got the function 'notes:cuont', which does not exist; did you mean 'notes:count'?"),
        (["notes:add", '{"text": 5}'], "ArgumentValidationError: notes:add: at .text: expected a string, got 5 (int)"),
        (["notes:add", "{text}"], "got '{text}', expected JSON such as"),
        (["notes:add", '{"text": "a", "text": "b"}'], "the key 'text' is there twice"),
        (["notes:add", '{"text": {"$bytes": "?"}}'], "got '?' for $bytes, expected base64 such as {\"$bytes\": "),
        (["notes:add", '{"text": {"$float": 1}}'], 'got 1 for $float, expected "nan", "inf" or "-inf"'),
        (["notes:add", '{"text": {"$other": 1}}'], "notes:add: at .text.$other: got the field name '$other'"),
        (["notes:add", '{"$bytes": "aGk="}'], "expected a JSON object"),
        (["notes:add", "[1]"], "got '[1]', expected a JSON object"),
        (["notes:add", "--store", "nope"], "got the store 'nope', expected sqlite:///relative/path.db"),
        (["notes:add", "--folder", "nowhere"], "got 'nowhere', expected a folder (there is none at "),
    ],
)
def test_run_explains_what_it_cannot_do_without_a_traceback(project: Path, args: list[str], message: str) -> None:
    failed = duly(project, "run", *args)
    assert failed.returncode != 0
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr


def test_run_takes_arguments_from_its_standard_input(project: Path) -> None:
    text = "tea" * 100_000  # more than one argument of a command may have
    command = ("run", "notes:add", "-")
    added = duly(project, *command, input=json.dumps({"text": text}))
    assert (added.returncode, added.stderr) == (0, "")
    assert duly(project, "run", "notes:count").stdout == "1\n"
    refused = duly(project, *command, input=text)
    assert (refused.returncode, "got 'teatea" in refused.stderr, len(refused.stderr) < 1000) == (2, True, True)


def test_what_a_function_prints_is_no_part_of_the_json(project: Path) -> None:
    (project / "backend" / "loud.py").write_text(
        "print('imported')\nfrom duly import SyncActionCtx, action\n@action\n"
        "def speak(ctx: SyncActionCtx) -> list[int]:\n    print('spoken')\n    return [1]\n"
    )
    said = duly(project, "run", "loud:speak")
    assert (json.loads(said.stdout), said.stderr) == ([1], "imported\nspoken\n")


def test_dev_executes_what_run_has_scheduled_and_reloads(configured: Path, engine: str) -> None:
    module = configured / "backend" / "notes.py"
    with dev(configured) as running:
        running.wait_for("Ctrl-C ends this")
        assert duly(configured, "run", "notes:add", '{"text": "tea"}').returncode == 0
        running.wait_for("✓ action   notes:announce scheduled")
        listed = duly(configured, "jobs", "list")
        if engine == "sqlite":
            assert (listed.returncode, listed.stdout) == (1, "")
            assert f"is owned by process {running.process.pid}" in listed.stderr
        else:
            assert "notes:announce  success" in listed.stdout
        module.write_text(MODULE + "\n@query\nasync def hello(ctx: QueryCtx) -> str:\n    return 'hello'\n")
        running.wait_for("reloaded 4 functions")
        assert duly(configured, "run", "notes:hello").stdout == '"hello"\n'
    assert running.process.returncode == 0


def test_dev_owns_a_file_runs_what_others_ask_for_and_keeps_the_last_good_code(project: Path) -> None:
    module = project / "backend" / "notes.py"
    with dev(project) as running:
        running.wait_for("runs 3 functions of backend on sqlite:///.duly/data.db")
        running.wait_for("Ctrl-C ends this")

        assert duly(project, "run", "notes:add", '{"text": "tea"}').returncode == 0
        running.wait_for("✓ mutation notes:add")
        running.wait_for("│ notes:announce: new: tea")
        running.wait_for("✓ action   notes:announce scheduled")

        assert duly(project, "run", "notes:add", '{"text": "bad"}').returncode == 0
        running.wait_for("✗ action   notes:announce scheduled")
        running.wait_for("ValueError: no such note")
        running.wait_for("at announce (notes.py:")

        module.write_text("def broken(:\n" + MODULE)
        running.wait_for("not reloaded, the last good code goes on")
        running.wait_for("notes.py:1: SyntaxError")
        assert duly(project, "run", "notes:count").stdout == "2\n"

        module.write_text("import sys\nsys.exit()\n")
        running.wait_for("not reloaded, the last good code goes on")
        running.wait_for("notes.py:2: SystemExit")

        module.write_text(MODULE + "\n@query\nasync def hello(ctx: QueryCtx) -> str:\n    return 'hello'\n")
        running.wait_for("reloaded 4 functions")
        assert duly(project, "run", "notes:hello").stdout == '"hello"\n'

        failed = duly(project, "run", "notes:nope")
        assert failed.returncode == 1
        assert "got the function 'notes:nope'" in failed.stderr
        running.wait_for("duly.door: warning refused a call: got the function 'notes:nope'")
        for kind, function in (("query", "notes:count"), ("mutation", "notes:add"), ("action", "notes:announce")):
            assert duly(project, "run", function, '{"txet": "tea"}').returncode == 1
            running.wait_for(f"✗ {kind:8} {function} ")
            running.wait_for(f"ArgumentValidationError: {function}: ")

        second = duly_process(project, "dev")
        assert second.returncode == 1
        assert f"is owned by process {running.process.pid}" in second.stderr
    assert running.process.returncode == 0
    assert not (project / ".duly" / "data.db-door").exists()


def test_run_does_not_repeat_a_call_whose_owner_died_before_it_answered(project: Path) -> None:
    with dev(project, {**os.environ, "DULY_FAULT": "commit.durable:1"}) as running:
        running.wait_for("Ctrl-C ends this")
        asked = duly(project, "run", "notes:add", '{"text": "tea"}')
        assert asked.returncode == 1
        assert "the owner of the store ended before it answered" in asked.stderr
        assert "what became of the call is unknown" in asked.stderr
        running.process.wait(30)
    assert duly(project, "run", "notes:count").stdout == "1\n"  # it was durable, and is there once


def test_run_says_that_it_waits_for_an_owner_that_gives_no_answer(project: Path) -> None:
    with dev(project) as running:
        running.wait_for("Ctrl-C ends this")
        assert duly(project, "run", "notes:count").returncode == 0
        running.process.send_signal(signal.SIGSTOP)
        command = [sys.executable, "-m", "duly", "run", "notes:count"]
        with subprocess.Popen(
            command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as waiting:
            assert waiting.stderr is not None
            said = waiting.stderr.readline()
            running.process.send_signal(signal.SIGCONT)
            assert said.startswith(f"waiting for process {running.process.pid}, which owns the store")
            assert waiting.communicate(timeout=30) == ("0\n", "")


def test_dev_waits_for_functions_that_do_not_load_at_first(project: Path) -> None:
    module = project / "backend" / "notes.py"
    module.write_text("import sys\nsys.exit('not today')\n")
    asked = duly(project, "run", "notes:count")
    assert (asked.returncode, "notes.py:2: SystemExit: not today" in asked.stderr) == (1, True)
    with dev(project) as running:
        running.wait_for("cannot start; waiting for a change")
        running.wait_for("notes.py:2: SystemExit: not today")
        module.write_text("import nothing_of_that_name\n")
        running.wait_for("cannot start; waiting for a change")
        running.wait_for("notes.py:1: ModuleNotFoundError: No module named 'nothing_of_that_name'")
        module.write_text(MODULE)
        running.wait_for("runs 3 functions")


def test_dev_says_what_it_runs_before_it_runs_what_is_due(configured: Path) -> None:
    assert duly(configured, "run", "notes:add", '{"text": "tea\\nfor two"}').returncode == 0
    with dev(configured) as running:
        lines = [running.next() for _ in range(6)]
    assert [line.split(" ")[0] for line in lines[:3]] == ["duly", "Clients", "Call"]
    # Each line says whose it is.
    assert [line[line.index(" ") :] for line in lines[3:5]] == [
        " │ notes:announce: new: tea",
        " │ notes:announce: for two",
    ]
    assert "✓ action   notes:announce scheduled" in lines[5]


def test_dev_says_that_nothing_starts_and_how_to_resume(configured: Path, engine: str) -> None:
    assert duly(configured, "run", "notes:add", '{"text": "tea"}').returncode == 0
    assert duly(configured, "jobs", "pause").returncode == 0
    with dev(configured) as running:
        running.wait_for("Ctrl-C ends this")
        assert " nothing starts: it was paused 2" in f" {running.next()}"
        assert running.seen[-1].endswith("resume" if engine == "postgres" else "start it again")
        if engine == "postgres":
            assert duly(configured, "jobs", "resume").returncode == 0
            running.wait_for("resumed: what is due starts")
            assert duly(configured, "jobs", "pause").returncode == 0
            running.wait_for("nothing starts: it was paused 2")
    running.wait_for("stopped")
    assert running.process.returncode == 0


@pytest.mark.parametrize("lose", [shutil.rmtree, lambda folder: folder.rename(folder.with_name("gone"))])
def test_dev_keeps_the_last_good_code_while_its_folder_is_gone(project: Path, lose: Callable[[Path], object]) -> None:
    backend = project / "backend"
    with dev(project) as running:
        running.wait_for("Ctrl-C ends this")
        lose(backend)
        running.wait_for("not reloaded, the last good code goes on")
        running.wait_for("got 'backend', expected a folder (there is none at ")
        assert duly(project, "run", "notes:add", '{"text": "tea"}').returncode == 0
        running.wait_for("✓ action   notes:announce scheduled")

        backend.mkdir()
        (backend / "notes.py").write_text(MODULE)
        running.wait_for("reloaded 3 functions")
        (backend / "more.py").write_text(MODULE)  # what is watched is the new folder
        running.wait_for("reloaded 6 functions")
    assert not any("reloaded 0" in line for line in running.seen)


def test_dev_reloads_what_its_folder_imports_from_beside_it(project: Path) -> None:
    lib, more = project / "lib.py", project / "backend" / "more.py"
    lib.write_text("def broken(:\n")
    more.write_text(
        "from duly import QueryCtx, query\nfrom lib import NAME\n@query\n"
        "async def name(ctx: QueryCtx) -> str:\n    return NAME\n"
    )
    with dev(project) as running:
        running.wait_for("cannot start; waiting for a change")
        lib.write_text("NAME = 'one'\n")
        running.wait_for("Ctrl-C ends this")
        assert duly(project, "run", "more:name").stdout == '"one"\n'
        lib.write_text("NAME = 'another'\n")
        running.wait_for("reloaded 4 functions")
        assert duly(project, "run", "more:name").stdout == '"another"\n'
        lib.write_text("import nothing_of_that_name\n")
        running.wait_for("not reloaded, the last good code goes on")
        assert duly(project, "run", "more:name").stdout == '"another"\n'
        lib.write_text("NAME = 'a third'\n")
        running.wait_for("reloaded 4 functions")
        assert duly(project, "run", "more:name").stdout == '"a third"\n'


def test_dev_ends_when_its_store_is_gone(project: Path) -> None:
    with dev(project) as running:
        running.wait_for("Ctrl-C ends this")
        assert duly(project, "run", "notes:count").returncode == 0
        (project / ".duly").rename(project / "moved")
        (project / ".duly").mkdir()
        (project / ".duly" / "data.db").touch()  # that of somebody else
        running.wait_for(f"Error: the store {project}/.duly/data.db was deleted, moved or replaced while this ran")
        assert running.process.wait(30) == 1
    assert [file.name for file in (project / ".duly").iterdir()] == ["data.db"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_dev_waits_for_running_actions_when_it_is_told_to_end(project: Path, number: signal.Signals) -> None:
    (project / "backend" / "slow.py").write_text(SLOW)
    with dev(project) as running:
        running.wait_for("Ctrl-C ends this")
        assert duly(project, "run", "slow:start", '{"names": ["until_told"]}').returncode == 0
        running.wait_for("runs until told")
        running.process.send_signal(number)
        running.wait_for("waiting up to 10 s for 1 running action; Ctrl-C again interrupts it")
        (project / "told").touch()
        running.wait_for("✓ action   slow:until_told scheduled")
        running.wait_for("stopped")
        assert running.process.wait(30) == 0
    assert "slow:until_told  success" in duly(project, "jobs", "list").stdout


@pytest.mark.parametrize("other", ["in_a_thread", "ignoring_it"])
def test_dev_interrupts_running_actions_when_it_is_told_twice_to_end(project: Path, other: str) -> None:
    (project / "backend" / "slow.py").write_text(SLOW)
    with dev(project) as running:
        running.wait_for("Ctrl-C ends this")
        names = [other, "until_told"]
        assert duly(project, "run", "slow:start", json.dumps({"names": names})).returncode == 0
        running.wait_for(f"runs {other.replace('_', ' ')}")
        running.wait_for("runs until told")
        running.process.send_signal(signal.SIGINT)
        running.wait_for("waiting up to 10 s for 2 running actions; Ctrl-C again interrupts them")
        running.process.send_signal(signal.SIGINT)
        running.wait_for("stopped")
        assert running.process.wait(30) == 0  # though the other goes on
    assert not any("Traceback" in line for line in running.seen)
    failed = json.loads(duly(project, "jobs", "list", "--state", "failed", "--json").stdout)
    assert sorted(job["name"] for job in failed) == sorted(f"slow:{name}" for name in names)
    assert all(job["state"]["error"].startswith("interrupted: ") for job in failed)


def test_dev_ends_though_a_call_ignores_its_interruption(project: Path) -> None:
    (project / "backend" / "slow.py").write_text(SLOW)
    with dev(project) as running:
        running.wait_for("Ctrl-C ends this")
        command = [sys.executable, "-m", "duly", "run", "slow:ignoring_it"]
        with subprocess.Popen(command, cwd=project, stderr=subprocess.DEVNULL) as caller:
            running.wait_for("runs ignoring it")
            running.process.send_signal(signal.SIGINT)
            running.wait_for("waiting up to 10 s for 1 running action; Ctrl-C again interrupts it")
            running.process.send_signal(signal.SIGINT)
            running.wait_for("stopped")
            assert running.process.wait(30) == 0
            assert caller.wait(30) == 1
    assert not any("Exception" in line for line in running.seen)


def test_dev_waits_for_an_action_that_was_called_and_answers(project: Path) -> None:
    (project / "backend" / "slow.py").write_text(SLOW)
    with dev(project) as running:
        running.wait_for("Ctrl-C ends this")
        command = [sys.executable, "-m", "duly", "run", "slow:until_told"]
        with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, text=True) as caller:
            running.wait_for("runs until told")
            running.process.send_signal(signal.SIGINT)
            running.wait_for("waiting up to 10 s for 1 running action; Ctrl-C again interrupts it")
            (project / "told").touch()
            running.wait_for("✓ action   slow:until_told")
            assert running.next() == "stopped"
            assert caller.communicate(timeout=30) == ("null\n", None)


def test_dev_interrupts_an_action_that_was_called_and_tells_the_caller(project: Path) -> None:
    (project / "backend" / "slow.py").write_text(SLOW)
    with dev(project) as running:
        running.wait_for("Ctrl-C ends this")
        command = [sys.executable, "-m", "duly", "run", "slow:until_told"]
        with subprocess.Popen(command, cwd=project, stderr=subprocess.PIPE, text=True) as caller:
            running.wait_for("runs until told")
            running.process.send_signal(signal.SIGINT)
            running.wait_for("waiting up to 10 s for 1 running action; Ctrl-C again interrupts it")
            running.process.send_signal(signal.SIGINT)
            running.wait_for("✗ action   slow:until_told")
            running.wait_for("stopped")
            assert "FunctionError: interrupted: the app was closed before" in caller.communicate(timeout=30)[1]
    assert not any("Exception" in line for line in running.seen)


@pytest.mark.parametrize("name", ["computing", "blocking"])
def test_dev_ends_though_an_action_holds_up_the_event_loop_and_says_where(project: Path, name: str) -> None:
    (project / "backend" / "slow.py").write_text(SLOW)
    with dev(project) as running:
        running.wait_for("Ctrl-C ends this")
        assert duly(project, "run", "slow:start", json.dumps({"names": [name]})).returncode == 0
        running.wait_for(f"runs {name}")
        assert running.interrupt_until("ended at once in the middle of slow.py:").endswith(
            ", which held up the event loop: await what it waits for, or write the action as `def`, which runs in a"
            " thread"
        )
        assert running.process.wait(30) == 1


def test_dev_ends_at_once_when_it_is_told_so_three_times(project: Path) -> None:
    (project / "backend" / "slow.py").write_text(SLOW)
    with dev(project) as running:
        running.wait_for("Ctrl-C ends this")
        assert duly(project, "run", "slow:start", '{"names": ["ignoring_it"]}').returncode == 0
        running.wait_for("runs ignoring it")
        running.interrupt_until("waiting up to 10 s for 1 running action")
        running.process.send_signal(signal.SIGINT)
        assert running.interrupt_until("ended at once") == "ended at once"
        assert running.process.wait(30) == 1


def test_dev_of_a_folder_that_does_not_exist_says_so(tmp_path: Path) -> None:
    failed = duly_process(tmp_path, "dev")
    assert failed.returncode == 1
    assert f"'backend', which does not exist ({tmp_path}/backend); name one: duly dev FOLDER" in failed.stderr
    (tmp_path / "orders.py").touch()
    failed = duly_process(tmp_path, "dev", "orders.py")
    assert f"'orders.py', which is a file ({tmp_path}/orders.py); name one: duly dev FOLDER" in failed.stderr


def test_dev_of_a_folder_without_functions_says_so(tmp_path: Path) -> None:
    (tmp_path / "backend").mkdir()
    with dev(tmp_path) as running:
        running.wait_for("runs 0 functions of backend")
        assert running.next().startswith(f"There is no decorated function in {tmp_path}/backend yet: ")


def test_a_store_that_is_not_there_is_named_with_its_whole_path(project: Path) -> None:
    failed = duly(project, "jobs", "list", "--store", "sqlite:///other.db")
    assert f"there is no store at sqlite:///other.db ({project}/other.db); duly dev makes one" in failed.stderr


def test_a_number_in_json_with_an_integral_value_is_an_int(project: Path) -> None:
    (project / "backend" / "numbers.py").write_text(
        "from duly import QueryCtx, query\n@query\nasync def kinds(ctx: QueryCtx, values: list) -> list[str]:\n"
        "    return [type(value).__name__ for value in values]\n"
    )
    found = duly(project, "run", "numbers:kinds", '{"values": [3, 3.0, 3.5, 1e30]}')
    assert json.loads(found.stdout) == ["int", "int", "float", "float"]


def test_what_json_cannot_say_is_printed_as_it_is_stored(project: Path) -> None:
    (project / "backend" / "files.py").write_text(
        "from duly import QueryCtx, query\n@query\nasync def first(ctx: QueryCtx) -> list:\n"
        "    return [b'hi', float('inf')]\n"
    )
    found = duly(project, "run", "files:first")
    assert json.loads(found.stdout) == [{"$bytes": "aGk="}, {"$float": "inf"}]


def test_what_json_cannot_say_is_given_as_it_is_printed(project: Path) -> None:
    (project / "backend" / "files.py").write_text(
        "from duly import QueryCtx, query\n@query\n"
        "async def same(ctx: QueryCtx, content: bytes, sizes: list[float]) -> list:\n"
        "    return [content, *sizes, repr(content)]\n"
    )
    given = '{"content": {"$bytes": "aGk="}, "sizes": [{"$float": "-inf"}, {"$float": "nan"}]}'
    printed = [{"$bytes": "aGk="}, {"$float": "-inf"}, {"$float": "nan"}, "b'hi'"]
    assert json.loads(duly(project, "run", "files:same", given).stdout) == printed
    with dev(project) as running:
        running.wait_for("Ctrl-C ends this")
        assert json.loads(duly(project, "run", "files:same", given).stdout) == printed


def test_the_folder_and_the_store_come_from_pyproject(project: Path) -> None:
    (project / "pyproject.toml").write_text('[tool.duly]\nfolder = "shop"\nstore = "sqlite:///shop.db"\n')
    os.rename(project / "backend", project / "shop")
    with dev(project) as running:
        running.wait_for("runs 3 functions of shop on sqlite:///shop.db")
    assert duly(project, "run", "notes:count").stdout == "0\n"


@pytest.mark.parametrize("command", [("run", "notes:count"), ("jobs", "list"), ("crons", "list")])
def test_only_what_executes_makes_a_store(project: Path, store: str, command: tuple[str, ...]) -> None:
    for _ in range(2):
        failed = duly(project, *command, "--store", store)
        assert failed.returncode == 1
        assert "Error: StoreError: there is no store at " in failed.stderr
        assert "; duly dev makes one, --store names another" in failed.stderr
    assert not list(project.glob("*.db*"))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (
            "nowhere/at/all/app.db",
            "the file cannot be made: there is no folder {}/nowhere/at/all, nor one to make it in",
        ),
        ("file/app.db", "the file cannot be made: {}/file is no folder: File exists"),
    ],
)
def test_a_store_that_cannot_be_made_is_named_as_it_was_asked_for(project: Path, path: str, reason: str) -> None:
    (project / "file").touch()
    failed = duly_process(project, "dev", "--store", f"sqlite:///{path}")
    assert failed.returncode == 1
    assert failed.stderr == f"Error: StoreError: {project}/{path}: {reason.format(project)}\n"
    assert not (project / "nowhere").exists()
