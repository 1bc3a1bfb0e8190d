"""The shop's tables. The classes are for type checkers and validators alike: documents are plain dicts."""

from typing import Literal, NotRequired, TypedDict

from duly import Id, define_schema, define_table, v

OrderStatus = Literal["pending", "confirmed", "archived"]
PaymentStatus = Literal["processing", "succeeded", "failed"]


class Order(TypedDict):
    items: list[str]
    customer: str
    """An email address."""
    status: OrderStatus


class User(TypedDict):
    name: str
    email: str
    plan: Literal["free", "trial"]
    trial_ends_at: NotRequired[float]
    """Milliseconds since 1970, like all times in documents."""


class Reminder(TypedDict):
    email: str
    text: str
    remind_at: float
    sent: bool
    scheduled_id: NotRequired[Id]
    """The scheduled function that will send it; with this it can be canceled."""


class Payment(TypedDict):
    order_id: Id[Order]
    pence: int
    card: str
    status: PaymentStatus
    attempts: int


class Printing(TypedDict):
    pages: int
    printed: bool


schema = define_schema(
    {
        "orders": define_table(Order).index("by_status", ["status"]),
        "users": define_table(User),
        "reminders": define_table(Reminder),
        "payments": define_table(Payment).index("by_order", ["order_id"]),
        "printings": define_table(Printing),
        # A table may also be declared with validators, field by field.
        "outbox": define_table({"to": v.string(), "subject": v.string()}).index("by_recipient", ["to"]),
        "stocktakings": define_table({"items": v.array(v.string())}),
        "counts": define_table({"item": v.string(), "packets": v.int64()}).index("by_item", ["item"]),
    }
)
