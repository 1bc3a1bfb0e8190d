"""What the figures were measured on: the versions, the processors, and how long the disk takes to flush."""

from __future__ import annotations

import os
import platform
import resource
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

import apsw

from bench.report import percentiles

PAGE = bytes(4_096)
FLUSHES = 500


def describe(folder: Path, flushes: int = FLUSHES) -> dict[str, Any]:
    p50, p99 = flush_ms(folder, flushes)
    return {
        "python": platform.python_version(),
        "apsw": apsw.apsw_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "flush_p50_ms": p50,
        "flush_p99_ms": p99,
    }


def sentence(machine: dict[str, Any]) -> str:
    return (
        "Python {python}, apsw {apsw}, SQLite {sqlite}, {system}, {cpus} CPUs, load {load}\n"
        "Flush of 4 KiB: median {flush_p50_ms:.2f} ms, p99 {flush_p99_ms:.2f} ms"
    ).format(**machine)


def flush_ms(folder: Path, count: int) -> tuple[float, float]:
    """Append a page and wait until the disk has it, again and again: median and p99."""
    path, times = folder / "flushes", list[float]()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for _ in range(count):
            started = perf_counter()
            os.write(file, PAGE)
            os.fdatasync(file)
            times.append(1_000 * (perf_counter() - started))
    finally:
        os.close(file)
        path.unlink()
    return percentiles(times)


def resident_kb(process: int) -> float:
    """The memory that a process has now, in kilobytes of 1,000 bytes."""
    with open(f"/proc/{process}/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1_000


def memory_mib() -> float:
    """The most memory that this process has had at once."""
    status = Path("/proc/self/status")
    if status.exists():
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) / 1_024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)  # bytes, where there is no /proc


def cpu_seconds(process: int | None) -> float:
    """What a process and its children that live have used of the processors; nothing where there is no /proc."""
    if process is None or not Path("/proc").exists():
        return 0.0
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            pid, _, rest = stat.read_text().partition(" (")
            fields = rest.rpartition(") ")[2].split()  # from the third of `man proc_pid_stat` on
            if process in (int(pid), int(fields[1])):
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
