"""What the tests of validators share: a store that knows ids, and the words of what was refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from duly.values.schema.validator import Mismatch, Validator


class Store:
    """A store whose ids start with the name of their table."""

    def table_of(self, id: str) -> str | None:
        table = id.partition(":")[0]
        return table if table in ("orders", "users") else None


STORE = Store()


def refusal(validator: Validator, value: object) -> str:
    with pytest.raises(Mismatch) as caught:
        validator.check(value, STORE)
    return str(caught.value)


def complaint(act: Callable[..., object], *args: Any) -> str:
    with pytest.raises(TypeError) as caught:
        act(*args)
    return str(caught.value)
