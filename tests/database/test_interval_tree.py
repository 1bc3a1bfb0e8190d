"""An interval tree finds the holders of ranges that contain a key, and looks at few others."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duly.database.indexes.interval_tree import IntervalTree
from duly.database.indexes.key_range import KeyRange
from duly.values.index_keys import encode


def between(lower: bytes, upper: bytes) -> KeyRange:
    return KeyRange("notes", "by_n", lower, upper)


EVERYTHING = between(b"", b"\xff")

# Few, so that ends are often equal and ranges nested or empty; some are the beginning of others.
KEYS = (b"", b"\x00", b"a", b"a\x00", b"aa", b"b", b"c", b"d", b"da", b"\xff")
keys = st.sampled_from(KEYS)
ranges = st.builds(between, keys, keys)
holders = st.integers(0, 2)


@given(
    st.lists(st.tuples(ranges, holders), min_size=10, max_size=60),
    st.lists(st.tuples(st.booleans(), ranges, holders), max_size=30),
    st.lists(keys, max_size=5).map(sorted),
)
def test_an_interval_tree_finds_what_a_list_finds(
    first: list[tuple[KeyRange, int]], then: list[tuple[bool, KeyRange, int]], search: list[bytes]
) -> None:
    tree, held = IntervalTree[int](), set[tuple[KeyRange, int]]()
    for is_new, interval, holder in [(True, *entry) for entry in first] + then:
        if is_new:
            tree.add(interval, holder)
            held.add((interval, holder))
        else:
            # Most have no holder; so take, too, the next one that has.
            for entry in (
                (interval, holder),
                min((entry for entry in held if entry > (interval, holder)), default=None),
            ):
                if entry is not None:
                    tree.discard(*entry)
                    held.discard(entry)
    assert bool(tree) == bool(held)
    assert tree.all_holders() == {holder for _, holder in held}
    for keys in (search, *([key] for key in KEYS)):
        found = {holder for interval, holder in held if any(interval.lower <= key < interval.upper for key in keys)}
        assert tree.holders_at(keys) == found
    check_reach(tree._root)


def check_reach(node: Any) -> list[bytes]:
    """The upper ends of a tree, each node of which must know the largest of its own."""
    if node is None:
        return []
    uppers = [*check_reach(node.left), node.interval.upper, *check_reach(node.right)]
    assert node.reach == max(uppers)
    return uppers


def test_a_range_holds_its_lower_end_but_not_its_upper() -> None:
    tree = IntervalTree[str]()
    tree.add(between(b"b", b"d"), "b to d")
    assert [tree.holders_at([key]) for key in (b"a", b"b", b"c", b"d")] == [set(), {"b to d"}, {"b to d"}, set()]


def test_a_range_stays_until_the_last_of_its_holders_has_left() -> None:
    tree = IntervalTree[str]()
    for holder in ("ann", "bob"):
        tree.add(EVERYTHING, holder)
    tree.discard(EVERYTHING, "ann")
    assert tree.holders_at([b"a"]) == {"bob"}
    tree.discard(EVERYTHING, "bob")
    assert not tree


class Counted(bytes):
    """A key that counts how often it is compared."""

    comparisons = 0

    def __lt__(self, other: bytes) -> bool:
        Counted.comparisons += 1
        return bytes(self) < other


def of_number(number: int) -> KeyRange:
    return between(encode(10 * number), encode(10 * number + 5))


@pytest.mark.parametrize("others", [[], [EVERYTHING], [between(b"", encode(150_000)), between(encode(3), b"\xff")]])
def test_one_of_thousands_is_found_by_looking_at_few(others: list[KeyRange]) -> None:
    tree = IntervalTree[object]()
    for number in range(20_000):  # in order, which makes the deepest of trees that do not balance
        tree.add(of_number(number), number)
    for interval in others:
        tree.add(interval, interval)
    for number in range(2_000):  # these would be in the way if they stayed
        left = between(encode(number), encode(150_000))
        tree.add(left, number)
        tree.discard(left, number)
    Counted.comparisons = 0
    assert tree.holders_at([Counted(encode(70_013))]) == {7_001, *others}
    assert tree.holders_at([Counted(encode(70_007))]) == {*others}
    assert 0 < Counted.comparisons < 1_000
