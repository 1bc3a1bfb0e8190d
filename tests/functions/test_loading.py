"""What an application loads is its own code, once, until it is told to load it anew."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from duly.app import App
from duly.declare.registry import Registry
from duly.errors import LoadError
from duly.testing import Harness

SAYS = """
from duly import QueryCtx, query

@query
async def says(ctx: QueryCtx) -> str:
    return {!r}
"""
PAYMENTS = """
from duly import ActionCtx, action

def charge() -> str:
    return "charged"

@action
async def pay(ctx: ActionCtx) -> str:
    return charge()
"""


@pytest.fixture(autouse=True)
def imports_are_undone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__name__", "").startswith(("loading_", "__main__")):
            del sys.modules[name]


def written(folder: Path, **modules: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    return folder


async def said(source: Any) -> str:
    async with Harness(source) as t:
        return await t.query("orders:says")


# Opening again.


async def test_what_the_program_has_imported_is_used_by_every_app_that_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(tmp_path / "loading_mocks", payments=PAYMENTS)
    sys.path.insert(0, str(tmp_path))
    payments: Any = importlib.import_module("loading_mocks.payments")
    for n in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(payments, "charge", lambda n=n: f"mocked {n}")
            async with Harness(folder) as t:
                assert await t.action("payments:pay") == f"mocked {n}"
    assert sys.modules["loading_mocks.payments"] is payments


async def test_what_an_opening_has_imported_is_used_by_the_next_one(tmp_path: Path) -> None:
    sys.path.insert(0, str(tmp_path))
    written(tmp_path, loading_lib="class Refused(Exception): ...\n")
    folder = written(tmp_path / "loading_again", orders=f"from loading_lib import Refused\n{SAYS.format('one')}")
    assert await said(folder) == "one"
    orders: Any = sys.modules["loading_again.orders"]
    assert await said(folder) == "one"
    assert sys.modules["loading_again.orders"] is orders
    assert sys.modules["loading_lib"].Refused is orders.Refused  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("changed", ["loading_changes/orders.py", "loading_changes/new.py", "loading_beside.py"])
@pytest.mark.parametrize("by_program", [False, True])
async def test_files_that_have_changed_are_loaded_anew(tmp_path: Path, changed: str, by_program: bool) -> None:
    sys.path.insert(0, str(tmp_path))
    written(tmp_path, loading_beside="WHAT = 1\n")
    text = f"{SAYS.format('x')}\nfrom loading_beside import WHAT\n"
    folder = written(tmp_path / "loading_changes", orders=text)
    if by_program:
        importlib.import_module("loading_changes")
    Registry.load(folder)
    before = sys.modules["loading_changes.orders"]
    with (tmp_path / changed).open("a") as file:
        file.write("MORE = 2\n")
    Registry.load(folder)
    assert sys.modules["loading_changes.orders"] is not before
    assert sys.modules[changed.removesuffix(".py").replace("/", ".")].MORE == 2


def test_what_a_folder_imports_from_beside_it_is_loaded_anew_after_code_that_did_not_load(tmp_path: Path) -> None:
    sys.path.insert(0, str(tmp_path))
    written(tmp_path, loading_beside="WHAT = 1\n")
    text = f"{SAYS.format('x')}\nfrom loading_beside import WHAT\n"
    folder = written(tmp_path / "loading_fails_first", orders=text)
    Registry.load(folder)
    written(folder, orders=f"1 / 0\n{text}")
    with pytest.raises(LoadError):
        Registry.load(folder)
    written(folder, orders=text)
    written(tmp_path, loading_beside="WHAT = 1\nMORE = 2\n")
    Registry.load(folder)
    assert sys.modules["loading_beside"].MORE == 2


@pytest.mark.parametrize("by_program", [False, True])
async def test_a_reload_loads_anew_what_has_not_changed(tmp_path: Path, by_program: bool) -> None:
    folder = written(tmp_path / "loading_reloads", orders=SAYS.format("one"))
    if by_program:
        sys.path.insert(0, str(tmp_path))
        importlib.import_module("loading_reloads.orders")
    async with Harness(folder) as t:
        before = sys.modules["loading_reloads.orders"]
        await t.app.reload()
        assert sys.modules["loading_reloads.orders"] is not before
        assert await t.query("orders:says") == "one"


async def test_code_that_could_not_be_reloaded_is_tried_again_when_an_app_opens(tmp_path: Path) -> None:
    folder = written(tmp_path / "loading_fails", orders=SAYS.format("one"))
    async with Harness(folder) as t:
        written(folder, orders="raise ValueError('broken')\n")
        with pytest.raises(LoadError, match="broken"):
            await t.app.reload()
        assert await t.query("orders:says") == "one"
    with pytest.raises(LoadError, match="broken"):
        await said(folder)


async def test_what_the_program_has_imported_stays_when_the_rest_does_not_load(tmp_path: Path) -> None:
    folder = written(tmp_path / "loading_partly", payments=PAYMENTS, zz="raise ValueError('broken')\n")
    sys.path.insert(0, str(tmp_path))
    payments = importlib.import_module("loading_partly.payments")
    for _ in range(2):
        with pytest.raises(LoadError, match="broken"):
            Registry.load(folder)
    (folder / "zz.py").unlink()
    Registry.load(folder)
    assert sys.modules["loading_partly.payments"] is payments


# Whose code it is.


@pytest.mark.parametrize("init", [{}, {"__init__": ""}])
async def test_folders_of_one_name_are_each_loaded_with_their_own_code(tmp_path: Path, init: dict[str, str]) -> None:
    a = written(tmp_path / "a" / "loading_twins", orders=SAYS.format("a"), **init)
    b = written(tmp_path / "b" / "loading_twins", orders=SAYS.format("b"), **init)
    assert [await said(folder) for folder in (a, b, a, b, b, a)] == ["a", "b", "a", "b", "b", "a"]


async def test_a_reload_loads_the_code_of_its_own_folder(tmp_path: Path) -> None:
    a = written(tmp_path / "a" / "loading_turns", orders=SAYS.format("a"))
    b = written(tmp_path / "b" / "loading_turns", orders=SAYS.format("b"))
    async with Harness(a) as t:
        assert await said(b) == "b"
        await t.app.reload()
        assert await t.query("orders:says") == "a"


async def test_another_package_of_the_name_of_a_folder_is_not_taken_for_it(tmp_path: Path) -> None:
    other = written(
        tmp_path / "other" / "loading_hides", __init__="raise ValueError('ran')", orders=SAYS.format("other")
    )
    folder = written(tmp_path / "mine" / "loading_hides", orders=SAYS.format("mine"))
    sys.path.append(str(other.parent))
    with pytest.raises(LoadError) as caught:
        await said(folder)
    assert str(caught.value) == (
        f"{folder}: Python finds {other} as 'loading_hides', expected the folder; give the folder an __init__.py, which"
        " comes first, or another name"
    )
    written(folder, __init__="")
    assert await said(folder) == "mine"


async def test_what_the_program_has_imported_of_another_folder_is_not_thrown_away(tmp_path: Path) -> None:
    a = written(tmp_path / "a" / "loading_held", orders=SAYS.format("a"))
    b = written(tmp_path / "b" / "loading_held", orders=SAYS.format("b"))
    sys.path.insert(0, str(a.parent))
    orders = importlib.import_module("loading_held.orders")
    assert await said(a) == "a"
    with pytest.raises(LoadError, match="'loading_held' is already imported from .*; give the folder another name"):
        await said(b)
    assert sys.modules["loading_held.orders"] is orders


async def test_a_module_that_the_program_has_imported_of_another_folder_is_refused(tmp_path: Path) -> None:
    a = written(tmp_path / "a" / "loading_mixed", orders=SAYS.format("a"))
    b = written(tmp_path / "b" / "loading_mixed", orders=SAYS.format("b"))
    sys.path[:0] = [str(a.parent), str(b.parent)]  # of a package without __init__.py, Python takes both
    importlib.import_module("loading_mixed.orders")
    with pytest.raises(LoadError, match=r"b/loading_mixed/orders.py: Python finds .*/a/loading_mixed/orders.py as"):
        await said(b)


# Packages.


def package(tmp_path: Path, name: str, **modules: str) -> str:
    sys.path.insert(0, str(tmp_path))
    written(tmp_path / name, __init__="", **modules)
    importlib.invalidate_caches()
    return name


def test_the_program_of_a_package_is_not_run(tmp_path: Path) -> None:
    ends = "raise ValueError('it ran')\n"
    name = package(tmp_path, "loading_programs", orders=SAYS.format("one"), __main__=ends)
    written(tmp_path / name / "sub", __init__="", __main__=ends, orders=SAYS.format("two"))
    assert list(Registry.load(name).functions) == ["orders:says", "sub/orders:says"]


@pytest.mark.parametrize("as_module", [False, True])
async def test_a_package_is_loaded_anew_by_a_reload(tmp_path: Path, as_module: bool) -> None:
    package(tmp_path, "loading_above", other="")
    name = "loading_above.shop"
    folder = written(tmp_path / "loading_above" / "shop", __init__="", orders=SAYS.format("one"), old="", added="")
    above: Any = importlib.import_module("loading_above.other")
    app = App(importlib.import_module(name) if as_module else name, f"sqlite:///{tmp_path}/app.db")
    async with app:
        before = sys.modules[name]
        written(folder, orders=SAYS.format("another one"), added=SAYS.format("added"))
        (folder / "old.py").unlink()
        await app.reload()
        assert await app.query("orders:says") == "another one"
        assert await app.query("added:says") == "added"
        assert sys.modules[name] is not before
        assert f"{name}.old" not in sys.modules
        assert sys.modules["loading_above.other"] is above
    async with app:
        assert await app.query("orders:says") == "another one"


async def test_a_package_that_does_not_load_anew_stays_as_it_was(tmp_path: Path) -> None:
    package(tmp_path, "loading_upper")
    name = "loading_upper.shop"
    folder = written(tmp_path / "loading_upper" / "shop", __init__="", orders=SAYS.format("one"))
    async with Harness(name) as t:
        before = sys.modules[name]
        written(folder, orders="raise ValueError('broken')\n")
        with pytest.raises(LoadError, match="broken"):
            await t.app.reload()
        assert await t.query("orders:says") == "one"
        upper: Any = sys.modules["loading_upper"]
        assert sys.modules[name] is upper.shop is before


# What does not load.


@pytest.mark.parametrize(
    ("helpers", "message"),
    [
        ("import json\n\nLIMIT = int('many')\n", "helpers.py:3: ValueError: invalid literal"),
        ("def limit():\n    return 1 / 0\n\nlimit()\n", "helpers.py:2: ZeroDivisionError: division by zero"),
        ("\nimport loading_nothing\n", "helpers.py:2: ModuleNotFoundError: No module named 'loading_nothing'"),
        ("import json\njson.loads('{')\n", "helpers.py:2: JSONDecodeError: Expecting property name"),
        ("import ast\nast.literal_eval('1 +')\n", "helpers.py:2: SyntaxError: invalid syntax"),
        ("import json\nx = (\n", "helpers.py:2: SyntaxError: '(' was never closed"),
    ],
)
@pytest.mark.parametrize("as_package", [False, True])
def test_what_fails_in_a_module_that_another_one_imports_is_told_with_its_own_line(
    tmp_path: Path, helpers: str, message: str, as_package: bool
) -> None:
    above = tmp_path / "above"
    folder = written(above / "loading_deep", __init__="", orders="from loading_helpers import helpers\n")
    written(above / "loading_helpers", __init__="", helpers=helpers)
    sys.path.insert(0, str(above))
    with pytest.raises(LoadError) as raised:
        Registry.load("loading_deep" if as_package else folder)
    assert str(raised.value).startswith(f"{above}/loading_helpers/{message}")
