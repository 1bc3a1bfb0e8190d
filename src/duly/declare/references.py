"""References to functions by their place: `api.orders.create`, `internal.…`, and `"orders:create"`."""

from __future__ import annotations

from typing import Final

from duly.declare.function import Function, R


class Reference:
    """A function by its place: `api.orders.create` is `"orders:create"`, `api.admin.users.ban` `"admin/users:ban"`."""

    def __init__(self, path: tuple[str, ...]) -> None:
        self._path = path

    def __getattr__(self, name: str) -> Reference:
        if name.startswith("__"):
            raise AttributeError(name)
        child = Reference((*self._path, name))
        self.__dict__[name] = child  # the next look-up finds it without this method
        return child

    def __getitem__(self, name: str) -> Reference:
        """Return a function by a name that is data: `internal["admin/users:ban"]` is `internal.admin.users.ban`."""
        module, _, function = canonical(name).partition(":")
        return Reference((*self._path, *module.split("/"), function))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and other._path == self._path

    def __hash__(self) -> int:
        return hash(self._path)

    def __str__(self) -> str:
        *module, function = self._path or ("",)
        return f"{'/'.join(module)}:{function}"

    def __repr__(self) -> str:
        return ".".join(("api", *self._path))


api: Final = Reference(())
"""References to functions: `api.module.function`."""
internal: Final = Reference(())
"""The same references; by convention for functions that clients cannot call."""

Ref = Function[..., R] | Reference | str
"""Anything that names a function: the function itself, `api.module.function`, or `"module:function"`."""


def canonical(name: str) -> str:
    """Return `"folder/module:function"` for any spelling of it, without `.py` or `.js`.

    >>> canonical("orders.js:create")
    'orders:create'
    """
    module, _, function = name.partition(":")
    return f"{module.removesuffix('.py').removesuffix('.js')}:{function or 'default'}"
