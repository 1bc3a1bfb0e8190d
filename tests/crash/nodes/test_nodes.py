"""Nodes die, stall and lose their connections, and PostgreSQL does: nothing is lost, doubled, run twice or stuck."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path
from random import Random

import pytest

from duly import App
from tests import postgres
from tests.crash import load
from tests.crash.checker import DOUBLED, KINDS, LOST, STUCK, WRONG, check
from tests.crash.history import read_diary
from tests.crash.test_crash import crash
from tests.crash.worker import Client

asyncpg = pytest.importorskip("asyncpg")

from tests.crash.nodes import campaign  # noqa: E402  (it needs the driver)
from tests.crash.nodes.faults import GONE_FOR_LONG  # noqa: E402
from tests.crash.nodes.history import read_history  # noqa: E402
from tests.crash.nodes.probe import Probe  # noqa: E402

pytestmark = pytest.mark.crash
needs_server = pytest.mark.skipif(bool(campaign.unavailable()), reason=str(campaign.unavailable()))
needs_postgres = pytest.mark.skipif(bool(postgres.unavailable()), reason=str(postgres.unavailable()))


@needs_server
def test_fifteen_faults_on_three_nodes_lose_and_double_nothing() -> None:
    counts, output = crash("--engine", "postgres", "--kills", "15", "--seed", "15")

    assert counts["faults"] >= 15
    assert all(counts[kind] for kind in campaign.SHARES if kind != GONE_FOR_LONG)
    assert counts["calls acknowledged"] >= 200
    assert {counts.get(kind, 0) for kind in KINDS} == {0}
    assert json.loads(output.splitlines()[-1])["seed"] == 15


def test_of_a_hundred_faults_each_kind_has_its_share() -> None:
    kinds = [kind for steps in campaign.rounds(300, seed=1) for kind in steps.kinds]

    assert {kind: 3 * share for kind, share in campaign.SHARES.items()} == Counter(kinds)
    assert 100 == sum(campaign.SHARES.values())


def test_of_few_faults_there_is_one_of_each_kind_that_does_not_take_long() -> None:
    [steps] = campaign.rounds(15, seed=1)

    assert 15 == len(steps.kinds)
    assert campaign.SHARES.keys() - {GONE_FOR_LONG} == set(steps.kinds)


def test_the_same_seed_draws_the_same_faults() -> None:
    assert list(campaign.rounds(120, seed=7)) == list(campaign.rounds(120, seed=7))
    assert list(campaign.rounds(120, seed=7)) != list(campaign.rounds(120, seed=8))


# What the store of such a campaign says is read past duly: a store that was tampered with is found out.


async def work(store: str, folder: Path) -> None:
    """Be one node that nothing happens to."""
    diary = load.keep_diary(folder / "diary-0")
    async with AsyncExitStack() as stack:
        stack.callback(diary.close)
        app = await stack.enter_async_context(App({"load": load, "schema": load.schema}, store))
        diary.write("epoch", app.database.epoch)
        client = Client(app, diary, Random(1), itertools.count(1))
        for _ in range(20):
            await client.place()
        while not await app.query("load:finished"):
            await asyncio.sleep(0.01)


@needs_postgres
def test_a_store_that_was_tampered_with_is_found_out(store_of: Callable[[str], str], tmp_path: Path) -> None:
    store = store_of("postgres")
    asyncio.run(work(store, tmp_path))
    with closing(Probe(store)) as probe:
        tamper(probe, tmp_path)


def tamper(probe: Probe, folder: Path) -> None:
    [(table,)] = probe.fetch("SELECT number FROM duly.tables WHERE name = 'markers'")
    tampering = {
        WRONG: f"UPDATE duly.t{table}_markers SET document = replace(document, '\"number\":', '\"number\":9')",
        DOUBLED: f"INSERT INTO duly.t{table}_markers SELECT max(id) + 1, min(document) FROM duly.t{table}_markers",
        LOST: f"DELETE FROM duly.t{table}_markers WHERE id = (SELECT min(id) FROM duly.t{table}_markers)",
        STUCK: "INSERT INTO duly.jobs SELECT id + 1, name, args, scheduled_time, 0, 'pending', lane, parent"
        " FROM duly.completed_jobs WHERE id = (SELECT min(id) FROM duly.completed_jobs)",
    }
    assert [] == check(read_history(folder, probe, 1, set()))
    for kind, sql in tampering.items():
        probe.fetch(sql)
        assert kind in {violation.kind for violation in check(read_history(folder, probe, 1, set()))}


@needs_postgres
def test_a_gap_in_the_log_and_an_epoch_of_two_processes_are_found_out(
    store_of: Callable[[str], str], tmp_path: Path
) -> None:
    store = store_of("postgres")
    asyncio.run(work(store, tmp_path))
    (tmp_path / "diary-1").write_text((tmp_path / "diary-0").read_text())
    with closing(Probe(store)) as probe:
        probe.fetch("DELETE FROM duly.log WHERE version = (SELECT max(version) - 1 FROM duly.log)")

        integrity = read_history(tmp_path, probe, 2, set()).integrity

    [epoch] = [line.number for line in read_diary(tmp_path, 0) if line.deed == "epoch"]
    assert f"the log lacks 1 versions; the epochs [{epoch}] were given twice" == integrity


@needs_postgres
@pytest.mark.parametrize(
    ("lines", "disturbed", "expected"),
    [
        (["epoch 1"], set[int](), {0}),
        (["epoch 1"], {0}, set[int]()),
        (["epoch 1", "epoch 2"], set[int](), set[int]()),
    ],
    ids=["in peace", "killed", "taken for lost"],
)
def test_an_action_may_be_interrupted_only_where_something_has_happened_to_its_node(
    store_of: Callable[[str], str], tmp_path: Path, lines: list[str], disturbed: set[int], expected: set[int]
) -> None:
    store = store_of("postgres")
    asyncio.run(work(store, tmp_path))
    (tmp_path / "diary-0").write_text("".join(f"{line}\n" for line in lines))

    with closing(Probe(store)) as probe:
        history = read_history(tmp_path, probe, 1, disturbed)

    assert expected == history.undisturbed
