"""Durations are read as Go reads them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_handler.config import durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("-0", 0),
        ("10s", 10),
        ("1m30s", 90),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("1.s", 1),
        ("+5s", 5),
        ("-5s", -5),
        ("87600h", 315_360_000),
        ("500ms", 0.5),
        ("1us", 1e-6),
        ("1µs", 1e-6),
        ("1μs", 1e-6),
        ("7ns", 7e-9),
        ("0.1ns", 0),
    ],
)
def test_what_go_accepts(text: str, seconds: float) -> None:
    assert durations.parse(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "1d", "5", "1 s", "+-5s", "1e3s", "10S", "1s5", ".s", "٣s", "-", "1s "])
def test_what_go_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        durations.parse(text)


def test_a_bare_number_shows_the_right_spelling() -> None:
    with pytest.raises(ValueError, match='"5s" or "5m"'):
        durations.parse("5")


def test_longer_than_go_can_hold() -> None:
    assert durations.nanoseconds("9223372036854775807ns") == durations.LONGEST_DURATION
    with pytest.raises(ValueError, match="expected a duration of at most"):
        durations.parse("9223372036854775808ns")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (86400, "24h"),
        (90, "1m30s"),
        (0.5, "500ms"),
        (0, "0"),
        (-5, "-5s"),
        (1e-9, "1ns"),
    ],
)
def test_the_shortest_spelling(seconds: float, text: str) -> None:
    assert durations.render(seconds) == text


@given(st.integers(-(2**52), 2**52))
def test_every_nanosecond_survives_the_round_trip(count: int) -> None:
    seconds = count / 1_000_000_000
    assert durations.parse(durations.render(seconds)) == seconds
    assert durations.nanoseconds(durations.render(seconds)) == count


@given(st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from(list(durations.UNITS))), min_size=1, max_size=8))
def test_parts_add_up_in_any_order(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{count}{unit}" for count, unit in parts)
    assert durations.nanoseconds(text) == sum(count * durations.UNITS[unit] for count, unit in parts)


@given(st.text(max_size=20))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(durations.parse(text), float)
