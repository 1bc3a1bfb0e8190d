"""The tables of a typed shop: of a TypedDict, of a dataclass, of a pydantic model, and of no class."""

from dataclasses import dataclass, field
from typing import Literal, NotRequired, TypedDict

from pydantic import BaseModel

from duly import Id, define_schema, define_table, v


@dataclass
class Customer:
    name: str
    email: str
    visits: int = 0
    tags: list[str] = field(default_factory=list[str])


class Line(TypedDict):
    item: str
    pence: int


class Order(TypedDict):
    customer: Id[Customer]
    lines: list[Line]
    status: Literal["open", "paid"]
    note: NotRequired[str]


class Invoice(BaseModel):
    order: Id[Order]
    pence: int
    sent: bool = False


schema = define_schema(
    {
        "customers": define_table(Customer).index("by_email", ["email"]),
        "orders": define_table(Order).index("by_customer", ["customer", "status"]),
        "invoices": define_table(Invoice),
        "events": define_table({"what": v.string(), "at": v.number(), "who": {"name": v.string()}}),
    }
)
