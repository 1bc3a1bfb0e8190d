"""Measures the other job systems on one PostgreSQL server: bench/peers/run.py ADDRESS [--quick] [--only KEY ...]."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.peers.catalogue import PEERS, Peer
from bench.peers.databases import Databases, PostgresDatabases
from bench.peers.drivers import Failed
from bench.peers.install import Missing, install
from bench.peers.measuring import KILLS, Drained, Measuring, Scale
from bench.report import lined_up, percentiles

CALLERS = 64
FULL = Scale(seconds=3, rounds=3, latencies=500)
QUICK = Scale(seconds=0.8, rounds=1, latencies=100)

Row = dict[str, Any]
"""A figure: peer, workload, unit, figures, their median. Or why there is none."""

TITLES = {
    "W1": "jobs enqueued one after another",
    "W1x64": f"jobs enqueued by {CALLERS} callers",
    "W2": "jobs enqueued 1,000 a call",
    "W3": "jobs that do nothing",
    "W3x2": "jobs that do nothing, two processes",
    "W4": "jobs that read, update, insert",
    "W4x2": "jobs that read, update, insert, two processes",
    "killed": f"jobs that read, update, insert, while their worker is killed {KILLS} times",
    "W5 p50": "start after the enqueuing call returned, p50",
    "W5 p99": "start after the enqueuing call returned, p99",
    "W5 of call p50": "start after the enqueuing call began, p50",
    "W5 of call p99": "start after the enqueuing call began, p99",
}


Workload = Callable[[Measuring], Awaitable[list[Row]]]


async def measure(
    peers: Iterable[Peer],
    databases: Databases,
    scale: Scale,
    say: Callable[[str], None],
    workloads: Mapping[str, Workload],
) -> list[Row]:
    """The rows of some systems; `say` is told what goes on."""
    return [row for peer in peers async for row in _rows(peer, databases, scale, say, workloads)]


async def _rows(
    peer: Peer, databases: Databases, scale: Scale, say: Callable[[str], None], workloads: Mapping[str, Workload]
) -> AsyncIterator[Row]:
    about = {"peer": peer.name, "version": "", "settings": peer.settings, "guarantee": peer.guarantee}
    try:
        say(f"{peer.name}: installing …")
        measuring = Measuring(peer, install(peer), databases, scale)
    except Missing as why:
        yield about | {"workload": None, "why": str(why)}
        return
    try:
        about["version"] = await measuring.set_up()
        for workload, figures in workloads.items():
            say(f"{peer.name}: {workload} …")
            for row in await _figures(workload, figures(measuring)):
                yield about | row
    except Exception as why:
        yield about | {"workload": None, "why": _sentence(why)}
    finally:
        with suppress(Exception):  # the server may have gone
            await measuring.tear_down()


async def _figures(workload: str, figures: Awaitable[list[Row]]) -> list[Row]:
    """The rows of a workload; one that says why, if it failed: others may not."""
    try:
        return await figures
    except Exception as why:
        return [{"workload": workload, "why": _sentence(why)}]


async def _w1(measuring: Measuring) -> list[Row]:
    return [_row("W1", [await measuring.calls(1)])]


async def _w1x64(measuring: Measuring) -> list[Row]:
    return [_row("W1x64", [await measuring.calls(CALLERS)])]


async def _w2(measuring: Measuring) -> list[Row]:
    return [_row("W2", [await measuring.bulk()])]


async def _w3(measuring: Measuring) -> list[Row]:
    return [_row("W3", [drained.rate for drained in await measuring.drains("noop", measuring.peer.noops)])]


async def _w3x2(measuring: Measuring) -> list[Row]:
    drains = await measuring.drains("noop", measuring.peer.noops, processes=2, rounds=1)
    return [_row("W3x2", [drained.rate for drained in drains])]


async def _w4(measuring: Measuring) -> list[Row]:
    return [_written("W4", await measuring.drains("count", measuring.peer.counts))]


async def _w4x2(measuring: Measuring) -> list[Row]:
    return [_written("W4x2", await measuring.drains("count", measuring.peer.counts, processes=2, rounds=1))]


def _written(workload: str, drains: list[Drained]) -> Row:
    lost, doubled = sum(drained.lost for drained in drains), sum(drained.doubled for drained in drains)
    return _row(workload, [drained.rate for drained in drains]) | {"lost": lost, "doubled": doubled}


async def _killed(measuring: Measuring) -> list[Row]:
    _, lost, doubled = await measuring.killed(measuring.peer.counts)
    return [{"workload": "killed", "title": TITLES["killed"], "unit": "jobs", "lost": lost, "doubled": doubled}]


async def _w5(measuring: Measuring) -> list[Row]:
    rows: list[Row] = []
    for since, latencies in (await measuring.latencies()).items():
        p50, p99 = percentiles(latencies)
        rows += [_row(f"W5{since} p50", [p50], "ms"), _row(f"W5{since} p99", [p99], "ms")]
    return rows


def _row(workload: str, figures: list[float], unit: str = "jobs/s") -> Row:
    return {
        "workload": workload,
        "title": TITLES[workload],
        "unit": unit,
        "figures": figures,
        "median": median(figures),
    }


WORKLOADS: dict[str, Workload] = {
    "W1": _w1,
    "W1x64": _w1x64,
    "W2": _w2,
    "W3": _w3,
    "W3x2": _w3x2,
    "W4": _w4,
    "W4x2": _w4x2,
    "W5": _w5,
}
SQLITE_WORKLOADS: dict[str, Workload] = {"W3": _w3, "W4": _w4, "killed": _killed, "W5": _w5}

COLUMNS = ("W1", "W1x64", "W2", "W3", "W3x2", "W4", "W4x2", "lost, doubled", "W5 p50", "W5 p99")
SQLITE_COLUMNS = ("W3", "W4", "lost, doubled", "killed", "W5 p50", "W5 p99")
HEADS = {"W5 p50": "W5 p50 ms", "W5 p99": "W5 p99 ms", "killed": f"by {KILLS} kills"}


def table(rows: Iterable[Row], columns: Sequence[str] = COLUMNS) -> str:
    """A line for each system, and below what each was set to, promises, or failed with."""
    by_peer: dict[str, list[Row]] = {}
    for row in rows:
        by_peer.setdefault(row["peer"], []).append(row)
    head = ("jobs/s", "version", *(HEADS.get(column, column) for column in columns))
    lines = [head, *(_line(peer, of_peer, columns) for peer, of_peer in by_peer.items())]
    notes = [note for peer, of_peer in by_peer.items() for note in _notes(peer, of_peer)]
    return "\n".join([lined_up(lines, left=2), "", *notes])


def _line(peer: str, rows: list[Row], columns: Sequence[str]) -> tuple[str, ...]:
    cells = {row["workload"]: _number(row["median"]) for row in rows if "median" in row}
    cells["lost, doubled"] = _lost([row for row in rows if "lost" in row and row["workload"] != "killed"])
    cells["killed"] = _lost([row for row in rows if "lost" in row and row["workload"] == "killed"])
    return (peer, rows[0]["version"], *(cells.get(column, "–") for column in columns))


def _lost(rows: list[Row]) -> str:
    lost, doubled = (sum(row[kind] for row in rows) for kind in ("lost", "doubled"))
    return f"{lost}, {doubled}" if rows else "–"


def _notes(peer: str, rows: list[Row]) -> list[str]:
    whys = [f"- {peer}, {row['workload'] or 'all'}: {row['why']}." for row in rows if "why" in row]
    return [f"- {peer}: {rows[0]['guarantee']}. Settings: {rows[0]['settings']}.", *whys]


def _sentence(why: Exception) -> str:
    return (str(why) if isinstance(why, Failed) else f"{type(why).__name__}: {why}").rstrip(".")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _progress(text: str) -> None:
    print(text, file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench/peers/run.py", description="Measure other job systems on PostgreSQL.")
    parser.add_argument("address", help="a server, as a superuser: postgresql://user@host:port/postgres")
    parser.add_argument("--only", nargs="+", choices=[peer.key for peer in PEERS], default=[], metavar="KEY")
    parser.add_argument("--quick", action="store_true", help="one short round: figures are rough")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    options = parser.parse_args()
    peers = [peer for peer in PEERS if not options.only or peer.key in options.only]
    rows = asyncio.run(
        measure(peers, PostgresDatabases(options.address), QUICK if options.quick else FULL, _progress, WORKLOADS)
    )
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
