"""Figures as text: percentiles, medians, and a table that reads well in a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any, NamedTuple


class Measure(NamedTuple):
    """One figure that a workload measures."""

    unit: str
    goal: float
    label: str = ""

    @property
    def less_is_better(self) -> bool:
        return self.unit == "ms"


class Result(NamedTuple):
    """What the rounds of one figure came to; round by round, the floor, if there is one, ran before the product."""

    key: str
    title: str
    measure: Measure
    product: list[float]
    floor: list[float]

    @property
    def of_floor(self) -> float | None:
        """How much of what the floor can do duly does: 1 is all of it."""
        if not self.floor:
            return None
        ratios = (product / floor for product, floor in zip(self.product, self.floor, strict=True))
        ratio = median(ratios)
        return 1 / ratio if self.measure.less_is_better else ratio

    def as_json(self) -> dict[str, Any]:
        unit, goal, label = self.measure
        return {
            "workload": self.key,
            "title": " ".join(filter(None, (self.title, label))),
            "unit": unit,
            "duly": self.product,
            "floor": self.floor,
            "of_floor": self.of_floor,
            "goal": goal,
        }


def percentiles(values: Iterable[float]) -> tuple[float, float]:
    """The median and the 99th percentile."""
    ordered = sorted(values)
    return median(ordered), ordered[min(len(ordered) * 99 // 100, len(ordered) - 1)]


HEAD = ("", "workload", "unit", "duly", "min – max", "floor", "of floor", "goal")


def table(results: Iterable[Result]) -> str:
    return lined_up([HEAD, *map(_row, results)], left=3)


def lined_up(rows: Sequence[Sequence[str]], left: int) -> str:
    """A table of cells, its head first, whose first `left` columns stand at the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = [("-" * width if at < left else "-" * (width - 1) + ":") for at, width in enumerate(widths)]
    return "\n".join(_line(row, widths, left) for row in (rows[0], rule, *rows[1:]))


def _row(result: Result) -> tuple[str, ...]:
    title = ", ".join(filter(None, (result.title, result.measure.label)))
    return (
        result.key,
        title,
        result.measure.unit,
        _number(median(result.product)),
        f"{_number(min(result.product))} – {_number(max(result.product))}",
        "–" if result.of_floor is None else _number(median(result.floor)),
        "–" if result.of_floor is None else f"{result.of_floor:.0%}",
        _number(result.measure.goal),
    )


def _line(cells: Sequence[str], widths: Sequence[int], left: int) -> str:
    padded = (
        cell.ljust(width) if at < left else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return f"| {' | '.join(padded)} |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
