"""The tables of all patterns. Field names are those of the documents that a Convex application stores."""

from typing import Any, Literal, NotRequired, TypedDict

from duly import Id, define_schema, define_table, v


class Cron(TypedDict):
    name: str
    functionName: str
    """Which function it runs, as a string: "cleanup:expired_sessions"."""
    args: dict[str, Any]
    schedule: "Interval"
    nextRunTime: float
    lastRunTime: NotRequired[float]
    enabled: bool
    schedulerJobId: NotRequired[Id]


class Interval(TypedDict):
    kind: Literal["interval"]
    ms: float


class Item(TypedDict):
    name: str
    processed: bool


class Message(TypedDict):
    text: str


class Order(TypedDict):
    items: list[str]
    status: NotRequired[Literal["confirmed", "paid", "archived"]]


class Session(TypedDict):
    user: str
    expiresAt: float
    """Milliseconds since 1970, like all times in documents."""


class Task(TypedDict):
    title: str
    scheduledFunctionId: NotRequired[Id]
    completed: NotRequired[bool]
    retries: NotRequired[int]
    status: NotRequired[Literal["failed"]]


class User(TypedDict):
    name: str
    email: str
    profile: NotRequired[str]


schema = define_schema(
    {
        "crons": define_table(Cron).index("enabled_nextRunTime", ["enabled", "nextRunTime"]),
        "items": define_table(Item),
        "messages": define_table(Message),
        "orders": define_table(Order),
        # Validators do what classes do. Here there are reminders of two kinds: of notifications.py and of reminders.py.
        "reminders": define_table(
            v.union(
                v.object({"text": v.string()}),
                v.object(
                    {
                        "message": v.string(),
                        "scheduledFunctionId": v.id("_scheduled_functions"),
                        "status": v.union(v.literal("scheduled"), v.literal("canceled")),
                    }
                ),
            )
        ),
        "sessions": define_table(Session).index("by_expiry", ["expiresAt"]),
        "taskConfigs": define_table({"taskId": v.string(), "enabled": v.boolean()}).index("taskId", ["taskId"]),
        "tasks": define_table(Task),
        "users": define_table(User),
        # Tables that are not declared hold anything: errors, imports, invoices, requests, results, taskRuns, years.
    }
)
