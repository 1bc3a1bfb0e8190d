"""Finds and imports the modules of an application: of a folder, a package, or a mapping."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from duly.errors import LoadError

Source = str | os.PathLike[str] | ModuleType | Mapping[str, Any]
"""A folder, the dotted name of a package, a package, or `{"orders": orders_module}`."""

_ours: set[str] = set()
"""The packages that were imported for an application: those are imported anew each time."""


_PACKAGE = "__init__"


def is_package(module: str) -> bool:
    """Whether a module of this name is that of a package itself: functions are none of its."""
    return module.rpartition("/")[2] == _PACKAGE


def load_modules(source: Source) -> Mapping[str, object]:
    """The modules of an application by their names, such as `orders`, `admin/users` or `admin/__init__`."""
    if isinstance(source, Mapping):
        return cast("Mapping[str, object]", source)
    if isinstance(source, ModuleType):
        return _package_modules(source)
    folder = Path(source)
    if folder.is_dir():
        return _folder_modules(folder.resolve())
    if isinstance(source, str) and _is_importable(source):
        return _package_modules(_import(source, f"package {source}"))
    raise LoadError(
        f"got {os.fspath(source)!r}, expected a folder (there is none at {folder.absolute()}) or the dotted name of"
        " a package"
    )


def _is_importable(name: str) -> bool:
    if name in _ours and name in sys.modules and not any(map(os.path.isdir, sys.modules[name].__path__)):
        return False  # a folder that was loaded, and is gone
    try:
        return all(part.isidentifier() for part in name.split(".")) and importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # of a package above it, which that has imported
        raise _not_loaded(error, f"package {name}") from error


def _package_modules(package: ModuleType) -> dict[str, ModuleType]:
    if not hasattr(package, "__path__"):
        raise LoadError(f"got the module {package.__name__}, expected a package, a folder or a mapping of modules")
    prefix = f"{package.__name__}."
    modules: dict[str, ModuleType] = {}
    for found in pkgutil.walk_packages(package.__path__, prefix):
        name = found.name.removeprefix(prefix).replace(".", "/")
        modules[f"{name}/{_PACKAGE}" if found.ispkg else name] = _import(found.name, found.name)
    return modules


def _folder_modules(folder: Path) -> dict[str, ModuleType]:
    """Import a folder as the package of its name, so that its modules may import each other either way."""
    package = folder.name
    if not package.isidentifier():
        raise LoadError(f"got the folder {folder}, expected a name that a Python package may have")
    modules: dict[str, ModuleType] = {}
    with _imported(package, folder):
        for file in sorted(folder.rglob("*.py")):
            path = file.relative_to(folder).with_suffix("")
            parts = path.parent.parts if path.name == _PACKAGE else path.parts
            if not any(part.startswith((".", "__")) for part in parts):
                modules[path.as_posix()] = _import(".".join((package, *parts)), str(file))
    return modules


@contextmanager
def _imported(package: str, folder: Path) -> Generator[None]:
    """Forget what was imported of a package; remember it again if it cannot be imported now."""
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == package}
    if before and package not in _ours:
        _check_is_of(package, before.get(package), folder)  # the program has imported it: it holds these functions
    else:
        for name in before:
            del sys.modules[name]
    _ours.add(package)
    if str(folder.parent) not in sys.path:
        sys.path.insert(0, str(folder.parent))
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # it is stale within a second
    importlib.invalidate_caches()
    try:
        yield
    except BaseException:
        for name in [name for name in sys.modules if name.split(".")[0] == package]:
            del sys.modules[name]
        sys.modules.update(before)
        raise
    finally:
        sys.dont_write_bytecode = writes_bytecode


def _check_is_of(package: str, module: ModuleType | None, folder: Path) -> None:
    places = [Path(place).resolve() for place in getattr(module, "__path__", ())]
    if folder not in places:
        place = getattr(module, "__file__", None) or (places[0] if places else "Python itself")
        raise LoadError(
            f"{folder}: a module {package!r} is already imported from {place}; give the folder another name"
        )


def _import(name: str, place: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a script's sys.exit() must not end the program that loads it
        raise _not_loaded(error, place) from error


def _not_loaded(error: BaseException, place: str) -> LoadError:
    advice = "" if isinstance(error, Exception) else "; a module must not end the program that loads it"
    what = f"{type(error).__name__}: {error}".removesuffix(": ")
    return LoadError(f"{_line_of(error, place)}: {what}{advice}")


def _line_of(error: BaseException, place: str) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    traceback, line = error.__traceback__, None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == place:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return place if line is None else f"{place}:{line}"
