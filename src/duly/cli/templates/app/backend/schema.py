"""The tables. A class serves type checkers and validation alike; documents are plain dicts."""

from typing import NotRequired, TypedDict

from duly import Id, define_schema, define_table


class Task(TypedDict):
    _id: NotRequired[Id["Task"]]
    _creationTime: NotRequired[float]
    text: str
    done: bool
    reminded: bool
    reminder: NotRequired[Id]
    """The scheduled function that reminds of the task."""


schema = define_schema({"tasks": define_table(Task).index("by_done", ["done"])})
