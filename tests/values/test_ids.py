"""Ids rise, are never reused, and cannot be made up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duly.values.ids import EPOCH_MS, ID_MAX, IdCodec, IdSource, creation_time

codec = IdCodec(b"secret" * 5)
NOW = 1_893_456_000_000.0  # 2030-01-01


@given(st.lists(st.floats(EPOCH_MS, EPOCH_MS + 1e9), min_size=2))
def test_ids_rise_whatever_the_clock_does(times: list[float]) -> None:
    source = IdSource(0, 0)
    ids = [source.next(time) for time in times]
    assert ids == sorted(set(ids))


def test_the_time_of_creation_is_the_clock_of_the_id() -> None:
    source = IdSource(3, 0)
    assert creation_time(source.next(NOW)) == NOW
    assert creation_time(source.next(NOW)) == NOW + 1 / 4096
    assert creation_time(source.next(NOW + 0.5)) == NOW + 0.5


def test_a_clock_that_stands_still_borrows_from_the_next_millisecond() -> None:
    source = IdSource(0, 0)
    ids = [source.next(NOW) for _ in range(5_000)]
    assert creation_time(ids[4095]) < NOW + 1 <= creation_time(ids[4096])


def test_ids_go_on_above_the_last_one_stored_when_the_clock_was_set_back() -> None:
    last = IdSource(0, 0).next(NOW)
    assert IdSource(0, last).next(NOW - 86_400_000) > last


def test_ids_reach_to_the_year_2089_and_no_further() -> None:
    assert IdSource(0, 0).next(3_776_859_743_000) < ID_MAX  # 2089-09-06
    with pytest.raises(OverflowError, match="beyond the year 2089"):
        IdSource(0, 0).next(3_776_873_600_000)


@given(st.integers(0, 65_535), st.integers(0, ID_MAX))
def test_an_id_comes_back_from_its_string(table: int, id: int) -> None:
    text = codec.encode(table, id)
    assert len(text) == 32
    assert codec.decode(text) == (table, id)


def test_strings_of_one_table_sort_in_the_order_of_creation() -> None:
    source = IdSource(0, 0)
    strings = [codec.encode(100, source.next(NOW)) for _ in range(100)]
    assert strings == sorted(strings)


@pytest.mark.parametrize("text", ["", "abc", "g" * 32, "0" * 32, 5, None, [1], "0" * 33, "é" * 32])
def test_what_was_not_encoded_here_is_no_id(text: object) -> None:
    assert codec.decode(text) is None


def test_an_id_with_a_changed_digit_or_of_another_store_is_no_id() -> None:
    text = codec.encode(100, 12_345)
    for position in range(32):
        changed = "1" if text[position] != "1" else "2"
        assert codec.decode(text[:position] + changed + text[position + 1 :]) is None
    assert codec.decode(text.upper()) is None or text.upper() == text
    assert IdCodec(b"another").decode(text) is None
