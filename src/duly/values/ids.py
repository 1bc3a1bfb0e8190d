"""Ids: 64-bit, in the order of creation, never reused; as strings unguessable.

An id is a tick of 1/4096 ms since 2020 (53 bits, until 2089) and the number of the node that made it (10 bits).
A document's `_creationTime` is the time of its tick. When ticks run out, or a clock stands still or goes back,
the next tick is borrowed from the future.

As a string an id is 32 hexadecimal digits: the number of the table, the id, and a tag that only the holder of the
secret of the store can compute. So an invented id is refused.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from duly.errors import StoreError
from duly.limits import CLOCK_AHEAD_MS_MAX

EPOCH_MS: Final = 1_577_836_800_000  # 2020-01-01T00:00:00Z
TICKS_PER_MS: Final = 4096
NODE_BITS: Final = 10
ID_MAX: Final = (1 << 63) - 1
END_MS: Final = EPOCH_MS + (ID_MAX >> NODE_BITS) // TICKS_PER_MS
"""The last time that an id can hold, in milliseconds since 1970: in 2089."""
SECRET_BYTES: Final = 32
WRITTEN_MS: Final = 1_796_083_200_000
"""When this was written, in milliseconds since 1970 (2026-12-01): a clock that shows less is wrong."""

TAG_BYTES: Final = 6
_STRING_LENGTH: Final = 2 * (2 + 8 + TAG_BYTES)
_STRINGS: Final = re.compile(rf'"([0-9a-f]{{{_STRING_LENGTH}}})"')
_KNOWN_MAX: Final = 16_384

_head = struct.Struct(">HQ")
_pack: Final = _head.pack


def hint_of(text: object) -> str:
    """Return an addition to messages for a text that has the form of an id, but is no id of this store.

    >>> hint_of("0064" * 8)
    ', which is no id of this store (of another one?)'
    """
    is_like_one = isinstance(text, str) and len(text) == _STRING_LENGTH and not text.strip("0123456789abcdef")
    return ", which is no id of this store (of another one?)" if is_like_one else ""


class IdSource:
    """Makes the ids of one node, each larger than all earlier ones."""

    __slots__ = ("_known_ms", "_now_ms", "_now_tick", "last", "node")

    def __init__(self, node: int, last: int) -> None:
        self.node = node
        self.last = last
        self._now_ms, self._now_tick = 0.0, 0  # the last time and its tick: time stands still in a batch
        self._known_ms = 0.0

    def check(self, now_ms: float) -> None:
        """Raise StoreError if the clock must be wrong: ids and times made by it would stay in the store for ever.

        The check uses what the store knows: its last id, and the times that were accepted before. A new store knows
        nothing and accepts every time that an id can hold.
        """
        latest, why = float(END_MS), "where ids end"
        if self.last or self._known_ms:
            known = max(self._known_ms, creation_time(self.last), WRITTEN_MS)
            if known + CLOCK_AHEAD_MS_MAX < latest:
                latest, why = known + CLOCK_AHEAD_MS_MAX, "ten years after the last that is known (CLOCK_AHEAD_MS_MAX)"
        if not now_ms <= latest:
            raise StoreError(
                f"got a clock that shows {_date(now_ms)}, expected at most {_date(latest)}, {why}; nothing is stored"
                " until it is set right"
            )
        self._known_ms = max(self._known_ms, now_ms)

    def next(self, now_ms: float) -> int:
        """Return a new id."""
        if now_ms != self._now_ms:
            self._now_ms, self._now_tick = now_ms, tick_of(now_ms)
        tick = max(self._now_tick, (self.last >> NODE_BITS) + 1)
        id = tick << NODE_BITS | self.node
        if id > ID_MAX:
            raise StoreError("got a clock beyond the year 2089, expected one that fits a 64-bit id")
        self.last = id
        return id

    def copy(self) -> IdSource:
        """Return a source that makes the same ids."""
        return IdSource(self.node, self.last)


def _date(time_ms: float) -> str:
    """Return a time as text for a message. It may be later than all dates of Python."""
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)).isoformat(" ", "seconds")
    except (OverflowError, ValueError):
        return f"{time_ms:.15g} ms since 1970"


def tick_of(time_ms: float) -> int:
    """Return the tick at or before a time, at least 0."""
    return int((time_ms - EPOCH_MS) * TICKS_PER_MS) if time_ms > EPOCH_MS else 0


def creation_time(id: int) -> float:
    """Return when an id was made, in milliseconds since 1970."""
    return EPOCH_MS + (id >> NODE_BITS) / TICKS_PER_MS


class IdCodec:
    """Converts ids to strings and back, with the secret of one store."""

    def __init__(self, secret: bytes) -> None:
        self._tag = hashlib.blake2b(key=secret, digest_size=TAG_BYTES)
        self._secret = secret
        # An id that was made or read is usually used again at once: returned, validated, fetched, patched.
        self._known: dict[str, tuple[int, int]] = {}

    def encode(self, table: int, id: int) -> str:
        """Return the string of an id of the table with that number."""
        # `_text` and `_know`, written out: most calls and jobs come here.
        head, tag, known = _pack(table, id), self._tag.copy(), self._known
        tag.update(head)
        text = (head + tag.digest()).hex()
        if len(known) >= _KNOWN_MAX:
            known.clear()
        known[text] = (table, id)
        return text

    def decode(self, text: object) -> tuple[int, int] | None:
        """Return the number of the table and the id, or None if `text` is no id of this store."""
        if not isinstance(text, str):
            return None
        known = self._known.get(text)
        if known is None and len(text) == _STRING_LENGTH:
            known = self._decode(text)
            if known is not None:
                self._know(text, known)
        return known

    def found_in(self, texts: Iterable[str]) -> dict[int, set[int]]:
        """Return the ids of this store in texts of JSON, by the number of their table."""
        found: dict[int, set[int]] = {}
        for string in set(_STRINGS.findall("".join(texts))):  # at once: many have none, or the same
            decoded = self.decode(string)
            if decoded is not None:
                found.setdefault(decoded[0], set()).add(decoded[1])
        return found

    def sign(self, text: bytes) -> bytes:
        """Return a tag of any text that only the holder of the secret can compute."""
        return hashlib.blake2b(text, key=self._secret, digest_size=TAG_BYTES, person=b"sign").digest()

    def _know(self, text: str, decoded: tuple[int, int]) -> None:
        if len(self._known) >= _KNOWN_MAX:
            self._known.clear()
        self._known[text] = decoded

    def _text(self, table: int, id: int) -> str:
        head = _head.pack(table, id)
        tag = self._tag.copy()
        tag.update(head)
        return (head + tag.digest()).hex()

    def _decode(self, text: str) -> tuple[int, int] | None:
        try:
            table, id = _head.unpack(bytes.fromhex(text)[: _head.size])
        except (ValueError, struct.error):
            return None
        return (table, id) if id <= ID_MAX and self._text(table, id) == text else None
