"""Find and import the modules of an application: those of a folder, of a package, or of a mapping.

A folder is imported as the package of its name, so Python's own table of modules decides what is already imported. Four
module-level tables store the rest; they outlive an App, because imported modules do, too:

- `_packages`: each folder that was imported, with the stamps of its files. While these are the same, a second App of
  the same folder shares the modules, and `isinstance` works across both.
- `_foreign_modules`: modules elsewhere that the folder imported (shared code beside it). A reload imports these again.
- `_foreign_stamps`: the files of those modules, and of those that failed to import. `duly dev` watches them.
- `_failed_files`: files named by the traceback of the last import that failed: a change of one of them may repair it.

A load that fails restores the table of modules.
"""

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
class _Package:
    """A folder that is imported as a package."""

    module: ModuleType | None
    stamps: dict[str, object] | None
    """Its files, with stamps from the moment of the import; None if unknown."""
    by_program: bool
    """Whether the program itself imported it: then the program may hold or have replaced its functions."""


_packages: dict[str, _Package] = {}
_foreign_modules: dict[str, set[str]] = {}
_foreign_stamps: dict[str, dict[str, object]] = {}
_failed_files: set[str] = set()

_PACKAGE = "__init__"


def is_package(module: str) -> bool:
    """Return whether this is the name of a package's own module, `__init__`: functions in it are not registered."""
    return module.rpartition("/")[2] == _PACKAGE


def load_modules(source: Source, reload: bool = False) -> Mapping[str, object]:
    """Return the modules of an application by their names, such as `orders`, `admin/users` or `admin/__init__`.

    Modules that are imported already are kept, unless files have changed or `reload` is true.
    """
    if isinstance(source, Mapping):
        return cast("Mapping[str, object]", source)
    if isinstance(source, ModuleType):
        return _package_modules(source, reload)
    folder = Path(source)
    if folder.is_dir():
        return _folder_modules(folder.resolve(), reload)
    if isinstance(source, str) and _is_importable(source):
        return _package_modules(_import(source, f"package {source}"), reload)
    raise LoadError(
        f"got {os.fspath(source)!r}, expected a folder (there is none at {folder.absolute()}) or the dotted name of"
        " a package"
    )


def _is_importable(name: str) -> bool:
    if name in _packages and name in sys.modules and not any(map(os.path.isdir, sys.modules[name].__path__)):
        return False  # a folder that was loaded, and does not exist any more
    try:
        return all(part.isidentifier() for part in name.split(".")) and importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # raised by a package above it, which `find_spec` imports
        raise _not_loaded(error, f"package {name}") from error


def _package_modules(package: ModuleType, reload: bool) -> dict[str, ModuleType]:
    """Import a package as Python does. A reload covers only its own modules: modules above it may belong to others."""
    name = package.__name__
    if not hasattr(package, "__path__"):
        raise LoadError(f"got the module {name}, expected a package, a folder or a mapping of modules")
    if not reload:
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


def _folder_modules(folder: Path, reload: bool) -> dict[str, ModuleType]:
    """Import a folder as the package of its name, so that its modules may import each other either way."""
    package = folder.name
    if not package.isidentifier():
        raise LoadError(f"got the folder {folder}, expected a name that a Python package may have")
    stamps = {file: _stamp(file) for file in map(str, sorted(folder.rglob("*.py")))}
    known = _known(package)
    if known is not None and known.by_program:
        _check_is_of(package, known.module, folder)
    is_kept = not reload and known is not None and known.stamps in (None, stamps) and not _have_changed(package)
    modules: dict[str, ModuleType] = {}
    with _folder_imported(package, folder, is_kept):
        for file in map(Path, stamps):
            path = file.relative_to(folder).with_suffix("")
            parts = path.parent.parts if path.name == _PACKAGE else path.parts
            if not any(part.startswith((".", "__")) for part in parts):
                name = ".".join((package, *parts))
                modules[path.as_posix()] = module = _import(name, str(file))
                _check_is_at(name, module, file)
    by_program = is_kept and known is not None and known.by_program
    _packages[package] = _Package(sys.modules.get(package), stamps, by_program)
    return modules


def _known(package: str) -> _Package | None:
    """Return the package if it is imported. If this module did not import the package, the program did."""
    imported, last = sys.modules.get(package), _packages.get(package)
    if imported is None:
        return None
    return last if last is not None and last.module is imported else _Package(imported, None, by_program=True)


@contextmanager
def _folder_imported(package: str, folder: Path, is_kept: bool) -> Generator[None]:
    """Import a folder, with priority over others of its name, and record what it imports from elsewhere."""
    foreign = _foreign_modules.get(package, set())
    before = {**_imported_of(package), **{name: sys.modules[name] for name in foreign if name in sys.modules}}
    others = set(sys.modules) if is_kept else set(sys.modules) - set(before)
    _failed_files.clear()
    if not is_kept and package in _packages:
        _packages[package].stamps = {}  # if the import fails, the modules that are put back differ from the files
    try:
        with _importing(package, before, forgets=not is_kept):
            _put_on_path(package, folder, is_kept)
            yield
    finally:
        new = {name for name in set(sys.modules) - others if not _is_in(package, name) and _file_of(name)}
        _foreign_modules[package] = foreign | new
        files = _failed_files.union(filter(None, map(_file_of, _foreign_modules[package])))
        _foreign_stamps[package] = {file: _stamp(file) for file in files if not Path(file).is_relative_to(folder)}


@contextmanager
def _importing(package: str, before: dict[str, ModuleType], forgets: bool) -> Generator[None]:
    """Import a package, after forgetting its modules if `forgets`. If the import fails, put them back."""
    for name in before if forgets else ():
        del sys.modules[name]
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # bytecode is stale within a second
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
    """Make Python find this folder and no other one of its name. Raises LoadError if Python does not find it."""
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
    """Return where Python would find a package that is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return None
    place = next(iter(spec.submodule_search_locations or ()), spec.origin)
    return None if place is None else Path(place).resolve()


def _file_of(module: str) -> str | None:
    """Return the file of an imported module, if it is source of the application."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return file if isinstance(file, str) and file.endswith(".py") and is_application(file) else None


def foreign_modules_changed() -> bool:
    """Return whether a file changed that a folder imported from elsewhere. Libraries do not count."""
    return any(map(_have_changed, _foreign_stamps))


def _have_changed(package: str) -> bool:
    return any(_stamp(file) != stamp for file, stamp in _foreign_stamps.get(package, {}).items())


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
    """Compare only folders, because a module may be compiled. The stand-in of a test has no file."""
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
    """Return where an import failed: the innermost line of the application, perhaps in a module that it imported."""
    own = [frame for frame in extract_tb(error.__traceback__) if _is_own(frame.filename)]
    _failed_files.update(frame.filename for frame in own)
    if isinstance(error, SyntaxError) and error.filename and not error.filename.startswith("<"):
        _failed_files.add(error.filename)
        return f"{error.filename}:{error.lineno}"
    return f"{own[-1].filename}:{own[-1].lineno}" if own else place


def _is_own(file: str) -> bool:
    return not file.startswith("<") and is_application(file)  # frames of Python's import system have no file
