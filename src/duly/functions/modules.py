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
from traceback import extract_tb
from types import ModuleType
from typing import Any, cast

from duly.database.watchdog import is_application
from duly.errors import LoadError

Source = str | os.PathLike[str] | ModuleType | Mapping[str, Any]
"""A folder, the dotted name of a package, a package, or `{"orders": orders_module}`."""

_ours: dict[str, set[str]] = {}
"""The packages that were imported for an application, and the modules of its own elsewhere that this has imported, too:
those are imported anew each time."""
_beside: dict[str, dict[str, object]] = {}
"""Of each, the files of these, and those for which it could not be imported, as they were then."""
_at_fault: set[str] = set()
"""Files for which the last package could not be imported."""


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
    along = _ours.get(package, set())
    before = {name: module for name, module in sys.modules.items() if _is_in(package, name) or name in along}
    if before and package not in _ours:
        _check_is_of(package, before.get(package), folder)  # the program has imported it: it holds these functions
    else:
        for name in before:
            del sys.modules[name]
    others = set(sys.modules)
    _at_fault.clear()
    if str(folder.parent) not in sys.path:
        sys.path.insert(0, str(folder.parent))
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # it is stale within a second
    importlib.invalidate_caches()
    try:
        yield
    except BaseException:
        for name in [name for name in sys.modules if _is_in(package, name)]:
            del sys.modules[name]
        sys.modules.update(before)
        raise
    finally:
        new = {name for name in set(sys.modules) - others if not _is_in(package, name) and _file_of(name)}
        _ours[package] = along | new
        files = _at_fault.union(filter(None, map(_file_of, _ours[package])))
        _beside[package] = {file: _stamp(file) for file in files if not Path(file).is_relative_to(folder)}
        sys.dont_write_bytecode = writes_bytecode


def _is_in(package: str, module: str) -> bool:
    return module.split(".")[0] == package


def _file_of(module: str) -> str | None:
    """The file of an imported module, if it is source of the application."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return file if isinstance(file, str) and file.endswith(".py") and is_application(file) else None


def have_changed_beside() -> bool:
    """Whether files that a folder has imported from elsewhere are not what they were, libraries left out."""
    return any(_stamp(file) != stamp for files in _beside.values() for file, stamp in files.items())


def _stamp(file: str) -> object:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


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
    _at_fault.update(frame.filename for frame in extract_tb(error.__traceback__) if is_application(frame.filename))
    if isinstance(error, SyntaxError) and error.filename:
        _at_fault.add(error.filename)
        return f"{error.filename}:{error.lineno}"
    traceback, line = error.__traceback__, None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == place:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return place if line is None else f"{place}:{line}"
