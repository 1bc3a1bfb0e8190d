"""An interval tree of key ranges and their holders: finds, among thousands, the ranges that contain one of a few keys.

The tree is a treap: a search tree in the order of the ranges, and a heap in the order of their hashes. Hashes are as
good as random, so the tree has the depth of one grown in random order, about log n, whatever is added or removed. Each
node knows how far the ranges below it reach, so that a search skips subtrees that end before its keys.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Generic, TypeVar

from duly.database.indexes.key_range import KeyRange

T = TypeVar("T")


class IntervalTree(Generic[T]):
    """A set of pairs (range, holder). Ranges may overlap or be equal; an empty range contains nothing."""

    __slots__ = ("_nodes", "_root")

    def __init__(self) -> None:
        self._nodes: dict[KeyRange, _Node[T]] = {}
        self._root: _Node[T] | None = None

    def __bool__(self) -> bool:
        return bool(self._nodes)

    def add(self, interval: KeyRange, holder: T) -> None:
        node = self._nodes.get(interval)
        if node is None:
            node = self._nodes[interval] = _Node(interval)
            self._root = _insert(self._root, node)
        node.holders.add(holder)

    def discard(self, interval: KeyRange, holder: T) -> None:
        """Remove a pair, if it is there."""
        node = self._nodes.get(interval)
        if node is None:
            return
        node.holders.discard(holder)
        if not node.holders:
            del self._nodes[interval]
            self._root = _remove(self._root, node)

    def all_holders(self) -> set[T]:
        """Return the holders of all ranges."""
        return {holder for node in self._nodes.values() for holder in node.holders}

    def holders_at(self, keys: Sequence[bytes]) -> set[T]:
        """Return the holders of ranges that contain at least one of the keys, which must be sorted."""
        found: set[T] = set()
        todo = [(self._root, 0, len(keys))]
        while todo:
            node, start, end = todo.pop()
            if node is None:
                continue
            end = bisect_left(keys, node.reach, start, end)
            if start == end:
                continue
            todo.append((node.left, start, end))
            # A key below this range is below all ranges on its right as well.
            start = bisect_left(keys, node.interval.lower, start, end)
            if start < end:
                todo.append((node.right, start, end))
                if keys[start] < node.interval.upper:
                    found |= node.holders
        return found


class _Node(Generic[T]):
    __slots__ = ("holders", "left", "rank", "reach", "right", "interval")

    def __init__(self, interval: KeyRange) -> None:
        self.interval = interval
        self.rank = hash(interval)
        self.holders: set[T] = set()
        self.reach = interval.upper
        """The largest upper end of this range and of all ranges below this node."""
        self.left: _Node[T] | None = None
        self.right: _Node[T] | None = None

    def update_reach(self) -> _Node[T]:
        """Recompute `reach` after a change below this node; return the node."""
        reach, left, right = self.interval.upper, self.left, self.right
        if left is not None and left.reach > reach:
            reach = left.reach
        if right is not None and right.reach > reach:
            reach = right.reach
        self.reach = reach
        return self


def _insert(tree: _Node[T] | None, node: _Node[T]) -> _Node[T]:
    """Return the tree with one more node."""
    if tree is None or tree.rank < node.rank:
        node.left, node.right = _split(tree, node.interval)
        return node.update_reach()
    if node.interval < tree.interval:
        tree.left = _insert(tree.left, node)
    else:
        tree.right = _insert(tree.right, node)
    return tree.update_reach()


def _remove(tree: _Node[T] | None, node: _Node[T]) -> _Node[T] | None:
    """Return the tree without one of its nodes."""
    if tree is None or tree is node:
        return _join(node.left, node.right)
    if node.interval < tree.interval:
        tree.left = _remove(tree.left, node)
    else:
        tree.right = _remove(tree.right, node)
    return tree.update_reach()


def _split(tree: _Node[T] | None, interval: KeyRange) -> tuple[_Node[T] | None, _Node[T] | None]:
    """Split a tree into the parts before and behind a range."""
    if tree is None:
        return None, None
    if tree.interval < interval:
        tree.right, behind = _split(tree.right, interval)
        return tree.update_reach(), behind
    before, tree.left = _split(tree.left, interval)
    return before, tree.update_reach()


def _join(before: _Node[T] | None, behind: _Node[T] | None) -> _Node[T] | None:
    """Join two trees, of which one lies before the other."""
    if before is None:
        return behind
    if behind is None:
        return before
    if before.rank > behind.rank:
        before.right = _join(before.right, behind)
        return before.update_reach()
    behind.left = _join(before, behind.left)
    return behind.update_reach()
