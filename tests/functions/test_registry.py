"""Modules are found, loaded and loaded anew; functions are found under every spelling."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import pytest

import duly
from duly import MutationCtx, QueryCtx, action, api, internal, mutation, query
from duly.declare.registry import Registry
from duly.errors import FunctionNotFoundError, LoadError

GREETINGS = """
from __future__ import annotations
from typing import TYPE_CHECKING
from duly import query
from .sub.names import name
if TYPE_CHECKING:
    from duly import QueryCtx

@query
async def hello(ctx: QueryCtx, to: str = "world") -> str:
    return f"hello {to} of {name()}"

@query
async def default(ctx: QueryCtx) -> str:
    return "default"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "shop_backend"
    (root / "sub").mkdir(parents=True)
    (root / "greetings.py").write_text(GREETINGS)
    (root / "sub" / "names.py").write_text("from duly import mutation\ndef name(): return 'duly'\n")
    yield root
    for name in [name for name in sys.modules if name.split(".")[0] == "shop_backend"]:
        del sys.modules[name]
    sys.path.remove(str(tmp_path))


@query
async def here(ctx: QueryCtx) -> None: ...


@mutation
async def there(ctx: MutationCtx) -> None: ...


def test_a_folder_is_loaded_with_its_subfolders(folder: Path) -> None:
    registry = Registry.load(folder)
    assert sorted(registry.functions) == ["greetings:default", "greetings:hello"]


@pytest.mark.parametrize(
    "spelling",
    [
        "greetings:hello",
        "greetings.py:hello",
        "greetings.js:hello",
        api.greetings.hello,
        internal.greetings.hello,
        internal["greetings:hello"],
    ],
)
def test_a_function_is_found_under_every_spelling(folder: Path, spelling: object) -> None:
    assert Registry.load(str(folder)).find(spelling).name == "greetings:hello"  # pyright: ignore[reportArgumentType]


def test_a_module_alone_names_its_default(folder: Path) -> None:
    assert Registry.load(folder).find("greetings").name == "greetings:default"


def test_a_package_is_loaded_by_its_dotted_name(folder: Path) -> None:
    sys.path.insert(0, str(folder.parent))
    (folder / "__init__.py").write_text("")
    assert "greetings:hello" in Registry.load("shop_backend").functions


def test_a_function_is_registered_wherever_it_is_an_attribute() -> None:
    registry = Registry.load({"a": SimpleNamespace(first=here), "b/c": SimpleNamespace(second=here, there=there)})
    assert sorted(registry.functions) == ["a:first", "b/c:second", "b/c:there"]
    assert registry.find(here).name == "a:first"
    assert registry.find(api.b.c.there).name == "b/c:there"
    assert registry.find(api["b/c.py:there"]).name == "b/c:there"
    assert registry.find(api.b["c:there"]).name == "b/c:there"
    with pytest.raises(FunctionNotFoundError, match=r"<query .*\.here> is no function of this app"):
        Registry.load({}).find(here)


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("orders.hidden", "got the function 'orders.hidden', which does not exist; did you mean 'orders:hidden'?"),
        ("orders/hidden", "got the function 'orders/hidden', which does not exist; did you mean 'orders:hidden'?"),
        ("admin.users.hidden", "did you mean 'admin/users:hidden'?"),
        (internal.hidden, "got the function api.hidden, which does not exist; did you mean 'orders:hidden' or"),
        (
            internal.orders.hiden,
            "got the function api.orders.hiden, which does not exist; did you mean 'orders:hidden'",
        ),
        ("orders", "got the function 'orders', expected one of this app: admin/users:hidden, "),
        ("nonsense:x", "many:there10 and 3 more"),
    ],
)
def test_a_name_that_no_function_has_is_told_with_those_that_it_may_mean(ref: Any, message: str) -> None:
    many = SimpleNamespace(**{f"there{number:02}": there for number in range(13)})
    modules = {"orders": SimpleNamespace(hidden=here), "admin/users": SimpleNamespace(hidden=here), "many": many}
    with pytest.raises(FunctionNotFoundError) as caught:
        Registry.load(modules).find(ref)
    assert message in str(caught.value)


def test_a_changed_module_is_loaded_anew_and_a_broken_one_leaves_the_old_in_place(folder: Path) -> None:
    Registry.load(folder)
    before = sys.modules["shop_backend.greetings"]
    (folder / "greetings.py").write_text(GREETINGS.replace("def hello", "def good_day"))
    assert "greetings:good_day" in Registry.load(folder).functions
    good = sys.modules["shop_backend.greetings"]
    assert good is not before
    (folder / "greetings.py").write_text("raise RuntimeError('broken')\n")
    with pytest.raises(LoadError, match="greetings.py:1: RuntimeError: broken"):
        Registry.load(folder)
    assert sys.modules["shop_backend.greetings"] is good


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = (\n", "bad.py:1: SyntaxError"),
        ("import nothing_of_that_name\n", "bad.py:1: ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("import sys\nsys.exit(3)\n", "bad.py:2: SystemExit: 3; a module must not end the program that loads it"),
        ("raise BaseException('no')\n", "bad.py:1: BaseException: no; a module must not end"),
        (
            "import datetime\nfrom duly import query\n@query\nasync def f(ctx, at: datetime.tzinfo): ...\n",
            "bad:f: .*at.*datetime.tzinfo",
        ),
        (
            "from duly import query\n@query\nasync def f(ctx):\n    yield 1\n",
            "bad.py:2: TypeError: @query: got f with `yield`, expected a function that returns its result as a whole",
        ),
        ("from duly import action\n@action\ndef f(ctx):\n    yield 1\n", "@action: got f with `yield`, expected"),
        ("from duly import query\n@query\nasync def f(items: list[str]): ...\n", "bad:f: .*expected ctx before it"),
        ("from duly import query\n@query\ndef f(ctx): ...\n", "bad.py:2: TypeError: @query: got the plain function f"),
        (
            "from duly import *\n@mutation\nasync def f(ctx: ActionCtx): ...\n",
            r"bad:f: f\(\) has ctx: ActionCtx, expected ctx: MutationCtx, which a mutation gets",
        ),
        (
            "import duly\n@duly.query\nasync def f(c: 'duly.MutationCtx', n: int): ...\n",
            r"bad:f: f\(\) has c: MutationCtx, expected c: QueryCtx, which a query gets",
        ),
        (
            "from duly import *\n@internal_action\nasync def f(ctx: SyncActionCtx): ...\n",
            r"bad:f: f\(\) has ctx: SyncActionCtx, expected ctx: ActionCtx, which an `async def` action gets",
        ),
        (
            "from duly import *\n@action(args={})\ndef f(ctx: ActionCtx): ...\n",
            r"bad:f: f\(\) has ctx: ActionCtx, expected ctx: SyncActionCtx, which a `def` action gets",
        ),
        (
            "from duly import query, v\n@query(args={'x': v.string()})\nasync def f(ctx): ...\n",
            "bad:f: .*x",
        ),
    ],
)
def test_what_cannot_be_loaded_names_the_place_and_the_cause(folder: Path, source: str, message: str) -> None:
    (folder / "bad.py").write_text(source)
    with pytest.raises(LoadError, match=message):
        Registry.load(folder)


def test_a_ctx_may_be_annotated_with_anything_that_it_is() -> None:
    class Reads(Protocol):
        @property
        def now(self) -> float: ...

    @mutation
    async def base(ctx: QueryCtx) -> None: ...

    @mutation
    async def either(ctx: duly.QueryCtx | duly.ActionCtx) -> None: ...

    @query
    async def protocol(ctx: Reads) -> None: ...

    def adapted(handler: Callable[[QueryCtx], int]) -> Any:
        @wraps(handler)
        async def adapt(*args: Any) -> int:
            return handler(*args)

        return adapt

    @action
    @adapted
    def wrapped(ctx: QueryCtx) -> int:
        return 5

    functions = {"base": base, "either": either, "protocol": protocol, "wrapped": wrapped}
    assert sorted(Registry.load({"app": SimpleNamespace(**functions)}).functions) == [
        f"app:{name}" for name in functions
    ]


def test_a_folder_that_was_loaded_and_is_gone_is_no_application_without_functions(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    assert Registry.load(folder.name).functions
    shutil.rmtree(folder)
    with pytest.raises(LoadError, match=f"got '{folder.name}', expected a folder .there is none at "):
        Registry.load(folder.name)


def test_a_folder_named_like_an_imported_module_is_refused(tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "x.py").write_text("")
    with pytest.raises(LoadError, match="a module 'json' is already imported from .*; give the folder another name"):
        Registry.load(tmp_path / "json")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"m": "x"}, "got 'x' (str) for the module 'm', expected a module"),
        ({"m": None}, "got None for the module 'm', expected a module"),
        ({"schema": None}, "got None for the module 'schema', expected a module"),
        ({"m": {"here": here}}, "(dict) for the module 'm', expected a module"),
        ({"m": here}, "got the function <query tests.functions.test_registry.here> for the module 'm', expected the"),
        ({1: SimpleNamespace(here=here)}, "got 1 (int) as the name of a module, expected a string"),
    ],
)
def test_what_is_no_module_is_told_with_the_name_it_was_given_for(source: Any, message: str) -> None:
    with pytest.raises(LoadError, match=re.escape(message)):
        Registry.load(source)


def test_whatever_has_attributes_may_stand_for_a_module() -> None:
    class Members:
        here = here

    instance = type("Other", (), {})()
    instance.here = here
    sources: dict[str, Any] = {"a": SimpleNamespace(here=here), "b": Members, "c": instance, "d": sys}
    assert sorted(Registry.load(sources).functions) == ["a:here", "b:here", "c:here"]


def test_a_schema_that_is_none_is_refused() -> None:
    with pytest.raises(LoadError, match=r"schema: got None as `schema`, expected `schema = define_schema\({…}\)`"):
        Registry.load({"schema": SimpleNamespace()})


def test_a_folder_that_the_program_has_imported_itself_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "imported_backend"
    root.mkdir()
    (root / "greetings.py").write_text(GREETINGS.replace("from .sub.names import name", "name = str"))
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("imported_backend.greetings")
    hello = module.hello

    registry = Registry.load(root)

    assert sys.modules["imported_backend.greetings"] is module
    assert registry.find(hello).function is hello
    # … and what is imported anew later is still found by what the program holds.
    assert Registry.load(root).find(hello).name == "greetings:hello"
