"""A time on the command line may be written in full, as a day, or as how long ago."""

from __future__ import annotations

from time import time

import click
import pytest

from event_handler.cli.moments import Moment


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-27T10:00:00Z", 1_795_773_600.0),
        ("2026-11-27T12:00:00+02:00", 1_795_773_600.0),
        ("2026-11-27", 1_795_737_600.0),
    ],
)
def test_a_time_or_a_day_in_utc_is_taken(text: str, seconds: float) -> None:
    assert Moment().convert(text, None, None) == seconds


def test_a_duration_is_so_long_ago() -> None:
    before = time()
    assert before - 5400.0 <= Moment().convert("90m", None, None) <= time() - 5400.0


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "2026-11-27T10", "27.11.2026", "-"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match="expected a time as 2026-11-27T10:00:00Z"):
        Moment().convert(text, None, None)
