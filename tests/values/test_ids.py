"""Ids rise, are never reused, and cannot be made up."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duly.errors import StoreError
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
    source = IdSource(0, 0)
    with pytest.raises(StoreError, match="beyond the year 2089"):
        source.next(3_776_873_600_000)
    assert creation_time(source.next(NOW)) == NOW  # what was refused has changed nothing


YEAR = 365.25 * 86_400_000


@pytest.mark.parametrize("years", [0.0, 1.0, 9.9, -60.0])
def test_a_clock_may_be_some_years_ahead_of_what_is_known_or_any_time_behind(years: float) -> None:
    source = IdSource(0, IdSource(0, 0).next(NOW))
    source.check(NOW + years * YEAR)


@pytest.mark.parametrize("wrong", [NOW + 11 * YEAR, NOW + 60 * YEAR, 7_258_118_400_000.0, 1e17, math.inf, math.nan])
def test_a_clock_that_is_far_ahead_of_what_is_known_is_refused(wrong: float) -> None:
    known = IdSource(0, IdSource(0, 0).next(NOW)), IdSource(0, 0)
    known[1].check(NOW)  # a new store knows when it was made
    for source in known:
        with pytest.raises(
            StoreError, match=r"got a clock that shows .*, expected at most 20(40|89)-.*nothing is stored"
        ):
            source.check(wrong)
        source.check(NOW)
        assert creation_time(source.next(NOW)) < NOW + 1


def test_a_clock_that_was_never_set_may_be_set_to_what_is_right() -> None:
    source = IdSource(0, 0)
    source.check(0.0)
    source.next(0.0)
    source.check(NOW)


def test_a_clock_is_known_to_be_right_that_has_come_there_step_by_step() -> None:
    source = IdSource(0, 1)
    for year in range(0, 55, 5):
        source.check(NOW + year * YEAR)
    with pytest.raises(StoreError, match="expected at most 2089-09-06"):
        source.check(NOW + 60 * YEAR)


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


def test_a_codec_remembers_a_bounded_number_of_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duly.values.ids._KNOWN_MAX", 10)
    codec = IdCodec(b"secret" * 4)
    texts = [codec.encode(100, id) for id in range(1, 101)]
    assert len(codec._known) <= 10
    assert [codec.decode(text) for text in texts] == [(100, id) for id in range(1, 101)]
    assert len(codec._known) <= 10
