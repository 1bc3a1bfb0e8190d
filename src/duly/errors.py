"""All errors that duly raises itself, as a tree.

DulyError
├── AppError                        thrown by an application on purpose; its data reaches clients
├── ValidationError                 a value is not what was declared
│   ├── ArgumentValidationError     … an argument of a function
│   ├── ReturnsValidationError      … what a function returned
│   └── SchemaValidationError       … a document, or the schema itself
├── LimitError                      a named limit (duly.limits) was exceeded
├── FunctionNotFoundError           no such function, or it is of another kind
├── FunctionError                   a function did what its kind cannot do
├── InvalidIdError                  not an id, or an id of another table       (also ValueError)
├── InvalidScheduleError            a time, a delay or a target that cannot be scheduled (also ValueError)
├── DocumentNotFoundError           a write to a document that does not exist
├── QueryError                      a query that cannot be answered: unknown index, two documents for unique()
├── AlreadyCompletedError           a scheduled function that completed cannot be canceled
├── LoadError                       the application's modules could not be loaded
└── StoreError                      the store cannot be opened, or a commit failed
    ├── StoreInUseError             another process owns the SQLite file
    ├── StoreGoneError              the SQLite file was deleted, moved or replaced
    └── StoreLostError              the store gave no answer for too long
"""

from __future__ import annotations

__all__ = [
    "AlreadyCompletedError",
    "AppError",
    "ArgumentValidationError",
    "DocumentNotFoundError",
    "DulyError",
    "FunctionError",
    "FunctionNotFoundError",
    "InvalidIdError",
    "InvalidScheduleError",
    "LimitError",
    "LoadError",
    "QueryError",
    "ReturnsValidationError",
    "SchemaValidationError",
    "StoreError",
    "StoreGoneError",
    "StoreInUseError",
    "StoreLostError",
    "ValidationError",
]


class DulyError(Exception):
    """The root of every error that duly raises itself."""


class AppError(DulyError):
    """An error that an application raises on purpose, with data for its caller.

    `data` is any value that a document may hold. It reaches remote clients, in production too; the text of other
    exceptions does not.

        raise AppError({"code": "OUT_OF_STOCK", "item": "tea"})
    """

    def __init__(self, data: object) -> None:
        super().__init__(data)
        self.data = data

    def __str__(self) -> str:
        return self.data if isinstance(self.data, str) else repr(self.data)


class ValidationError(DulyError):
    """A value is not what was declared; the message has the path, what was got and what was expected."""


class ArgumentValidationError(ValidationError):
    """The arguments of a call do not fit the function; nothing ran."""


class ReturnsValidationError(ValidationError):
    """What a function returned does not fit its declaration; a mutation's writes are undone."""


class SchemaValidationError(ValidationError):
    """A document does not fit its table, or the schema itself is not valid."""


class LimitError(DulyError):
    """A limit of `duly.limits` was exceeded; the message names it."""


class FunctionNotFoundError(DulyError):
    """There is no such function, or it is a function of another kind."""


class FunctionError(DulyError):
    """A function did what its kind cannot do, such as a mutation that awaits something other than `ctx`."""


class InvalidIdError(DulyError, ValueError):
    """A string is not an id, or it is the id of another table."""


class InvalidScheduleError(DulyError, ValueError):
    """A delay, a time or a target that cannot be scheduled."""


class DocumentNotFoundError(DulyError):
    """A write to a document that does not exist (any more)."""


class QueryError(DulyError):
    """A query that cannot be answered: an unknown index, a range out of order, two documents for `unique()`."""


class AlreadyCompletedError(DulyError):
    """The scheduled function has completed, or completed so long ago that its row has expired."""


class LoadError(DulyError):
    """The application's modules could not be loaded; the message names the file and the cause."""


class StoreError(DulyError):
    """The store cannot be opened, or it refused a commit. Nothing of that commit is stored."""


class StoreInUseError(StoreError):
    """Another process owns the SQLite file. `pid` is its process id; None if the system cannot name it.

    `closing_seconds` is how long its closing may take, in seconds; None if it has not announced that it closes.
    """

    def __init__(self, message: str, pid: int | None, closing_seconds: float | None = None) -> None:
        super().__init__(message)
        self.pid = pid
        self.closing_seconds = closing_seconds


class StoreGoneError(StoreError):
    """The SQLite file of an open store was deleted, moved, replaced or overwritten: nothing more can be stored.

    A commit that was under way when this was noticed counts as not stored. The app does nothing more: close it.
    """


class StoreLostError(StoreError):
    """The store gives no answer. Nothing of the call is stored, and the call may be made again."""
