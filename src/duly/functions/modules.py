"""Finds and imports the modules of an application: of a folder, a package, or a mapping."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any, cast

from duly.database.driver.application_lines import is_application
from duly.errors import LoadError

Source = str | os.PathLike[str] | ModuleType | Mapping[str, Any]
"""A folder, the dotted name of a package, a package, or `{"orders": orders_module}`."""


@dataclass
class _Loaded:
    """A folder that is imported as a package, and its files as they were then; None if nobody knows how they were."""

    package: ModuleType | None
    files: dict[str, object] | None
    is_the_programs: bool
    """Whether the program has imported it itself: then it holds its functions, or has put others in their place."""


_loaded: dict[str, _Loaded] = {}
"""The folders that were imported for an application, by the names of their packages."""
_along: dict[str, set[str]] = {}
"""Of each, the modules of the application's own elsewhere that it has imported, too: they are loaded anew with it."""
_beside: dict[str, dict[str, object]] = {}
"""Of each, the files of these, and those for which it could not be imported, as they were then."""
_at_fault: set[str] = set()
"""Files for which the last package could not be imported."""


_PACKAGE = "__init__"


def is_package(module: str) -> bool:
    """Whether a module of this name is that of a package itself: functions are none of its."""
    return module.rpartition("/")[2] == _PACKAGE


def load_modules(source: Source, anew: bool = False) -> Mapping[str, object]:
    """The modules of an application by their names, such as `orders`, `admin/users` or `admin/__init__`.

    Those that are imported already stay what they are, unless files have changed or they are to be loaded `anew`.
    """
    if isinstance(source, Mapping):
        return cast("Mapping[str, object]", source)
    if isinstance(source, ModuleType):
        return _package_modules(source, anew)
    folder = Path(source)
    if folder.is_dir():
        return _folder_modules(folder.resolve(), anew)
    if isinstance(source, str) and _is_importable(source):
        return _package_modules(_import(source, f"package {source}"), anew)
    raise LoadError(
        f"got {os.fspath(source)!r}, expected a folder (there is none at {folder.absolute()}) or the dotted name of"
        " a package"
    )


def _is_importable(name: str) -> bool:
    if name in _loaded and name in sys.modules and not any(map(os.path.isdir, sys.modules[name].__path__)):
        return False  # a folder that was loaded, and is gone
    try:
        return all(part.isidentifier() for part in name.split(".")) and importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # of a package above it, which that has imported
        raise _not_loaded(error, f"package {name}") from error


def _package_modules(package: ModuleType, anew: bool) -> dict[str, ModuleType]:
    """Import a package as Python does; anew, only its own modules: those above it may be anybody's."""
    name = package.__name__
    if not hasattr(package, "__path__"):
        raise LoadError(f"got the module {name}, expected a package, a folder or a mapping of modules")
    if not anew:
        return dict(_modules_in(package, f"{name}."))
    with _importing(name, _imported_of(name), forgets=True):
        return dict(_modules_in(_import(name, f"package {name}"), f"{name}."))


def _modules_in(package: ModuleType, top: str) -> Generator[tuple[str, ModuleType]]:
    for found in pkgutil.iter_modules(getattr(package, "__path__", ()), f"{package.__name__}."):
        if not found.name.rpartition(".")[2].startswith("__"):  # as `__main__`, which is a program
            module = _import(found.name, found.name)
            name = found.name.removeprefix(top).replace(".", "/")
            yield f"{name}/{_PACKAGE}" if found.ispkg else name, module
            if found.ispkg:
                yield from _modules_in(module, top)


def _folder_modules(folder: Path, anew: bool) -> dict[str, ModuleType]:
    """Import a folder as the package of its name, so that its modules may import each other either way."""
    package = folder.name
    if not package.isidentifier():
        raise LoadError(f"got the folder {folder}, expected a name that a Python package may have")
    files = {file: _stamp(file) for file in map(str, sorted(folder.rglob("*.py")))}
    known = _known(package)
    if known is not None and known.is_the_programs:
        _check_is_of(package, known.package, folder)
    is_kept = not anew and known is not None and known.files in (None, files) and not _have_changed(package)
    modules: dict[str, ModuleType] = {}
    with _folder_imported(package, folder, is_kept):
        for file in map(Path, files):
            path = file.relative_to(folder).with_suffix("")
            parts = path.parent.parts if path.name == _PACKAGE else path.parts
            if not any(part.startswith((".", "__")) for part in parts):
                name = ".".join((package, *parts))
                modules[path.as_posix()] = module = _import(name, str(file))
                _check_is_at(name, module, file)
    is_the_programs = is_kept and known is not None and known.is_the_programs
    _loaded[package] = _Loaded(sys.modules.get(package), files, is_the_programs)
    return modules


def _known(package: str) -> _Loaded | None:
    """What is imported of a package; the program has imported what is not what was loaded last."""
    imported, last = sys.modules.get(package), _loaded.get(package)
    if imported is None:
        return None
    return last if last is not None and last.package is imported else _Loaded(imported, None, is_the_programs=True)


@contextmanager
def _folder_imported(package: str, folder: Path, is_kept: bool) -> Generator[None]:
    """Import a folder, first of all others of its name, and note what it imports from elsewhere."""
    along = _along.get(package, set())
    before = {**_imported_of(package), **{name: sys.modules[name] for name in along if name in sys.modules}}
    others = set(sys.modules) if is_kept else set(sys.modules) - set(before)
    _at_fault.clear()
    if not is_kept and package in _loaded:
        _loaded[package].files = {}  # should this fail, what is there again is not what the files say
    try:
        with _importing(package, before, forgets=not is_kept):
            _put_on_path(package, folder, is_kept)
            yield
    finally:
        new = {name for name in set(sys.modules) - others if not _is_in(package, name) and _file_of(name)}
        _along[package] = along | new
        files = _at_fault.union(filter(None, map(_file_of, _along[package])))
        _beside[package] = {file: _stamp(file) for file in files if not Path(file).is_relative_to(folder)}


@contextmanager
def _importing(package: str, before: dict[str, ModuleType], forgets: bool) -> Generator[None]:
    """Forget what was imported, if so; have it there again if the package cannot be imported now."""
    for name in before if forgets else ():
        del sys.modules[name]
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # it is stale within a second
    importlib.invalidate_caches()
    try:
        yield
    except BaseException:
        for name in _imported_of(package):
            del sys.modules[name]
        sys.modules.update(before)
        above, _, last = package.rpartition(".")
        if above in sys.modules and package in before:
            setattr(sys.modules[above], last, before[package])
        raise
    finally:
        sys.dont_write_bytecode = writes_bytecode


def _imported_of(package: str) -> dict[str, ModuleType]:
    return {name: module for name, module in sys.modules.items() if _is_in(package, name)}


def _is_in(package: str, module: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _put_on_path(package: str, folder: Path, is_imported: bool) -> None:
    """Have Python find a folder, and no other one of its name; LoadError if it does not."""
    above = str(folder.parent)
    if above not in sys.path:
        sys.path.insert(0, above)
    elif not is_imported and _place_of(package) != folder:
        sys.path.remove(above)
        sys.path.insert(0, above)
    if not is_imported and (place := _place_of(package)) != folder:
        has_file = (folder / f"{_PACKAGE}.py").is_file()
        advice = "give the folder" if has_file else f"give the folder an {_PACKAGE}.py, which comes first, or"
        raise LoadError(
            f"{folder}: Python finds {place or 'nothing'} as {package!r}, expected the folder; {advice} another name"
        )


def _place_of(package: str) -> Path | None:
    """Where Python would find a package that is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return None
    place = next(iter(spec.submodule_search_locations or ()), spec.origin)
    return None if place is None else Path(place).resolve()


def _file_of(module: str) -> str | None:
    """The file of an imported module, if it is source of the application."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return file if isinstance(file, str) and file.endswith(".py") and is_application(file) else None


def have_changed_beside() -> bool:
    """Whether files that a folder has imported from elsewhere are not what they were, libraries left out."""
    return any(map(_have_changed, _beside))


def _have_changed(package: str) -> bool:
    return any(_stamp(file) != stamp for file, stamp in _beside.get(package, {}).items())


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


def _check_is_at(name: str, module: ModuleType, file: Path) -> None:
    """By their folders: a module may be compiled, and a test's stand-in has no file."""
    found = getattr(module, "__file__", None)
    if isinstance(found, str) and Path(found).parent.resolve() != file.parent.resolve():
        raise LoadError(f"{file}: Python finds {found} as {name!r}, expected this file; give one of them another name")


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
    """Where an import failed: the innermost line of the application's own, which another module may have imported."""
    own = [frame for frame in extract_tb(error.__traceback__) if _is_own(frame.filename)]
    _at_fault.update(frame.filename for frame in own)
    if isinstance(error, SyntaxError) and error.filename and not error.filename.startswith("<"):
        _at_fault.add(error.filename)
        return f"{error.filename}:{error.lineno}"
    return f"{own[-1].filename}:{own[-1].lineno}" if own else place


def _is_own(file: str) -> bool:
    return not file.startswith("<") and is_application(file)  # Python's importing itself is of no file
