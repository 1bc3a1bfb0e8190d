"""Sales are pydantic models, clerks a dataclass, shifts a TypedDict."""

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NotRequired, TypedDict

from pydantic import BaseModel

from duly import Id, define_schema, define_table


class Kind(enum.StrEnum):
    CASH = "cash"
    CARD = "card"


@dataclass
class Clerk:
    name: str
    hired: datetime


class Item(BaseModel):
    name: str
    price: Decimal


class Sale(BaseModel):
    clerk: Id[Clerk]
    items: list[Item]
    kind: Kind
    at: datetime

    @property
    def total(self) -> Decimal:
        return sum((item.price for item in self.items), Decimal(0))


class Shift(TypedDict):
    clerk: Id[Clerk]
    begun: datetime
    lasts: NotRequired[timedelta]


class Report(BaseModel):
    """No table has these."""

    by_kind: dict[Kind, Decimal]
    best: Sale | None


schema = define_schema(
    {
        "clerks": define_table(Clerk),
        "sales": define_table(Sale).index("by_clerk", ["clerk", "at"]),
        "shifts": define_table(Shift),
    }
)
