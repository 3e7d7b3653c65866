"""Whatever a receiver writes into `Retry-After` is a wait of no more than an hour, or none."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from event_handler.sinks.http import LONGEST_RETRY_AFTER, retry_seconds

PIECES = [
    "Sun",
    "Sunday",
    ",",
    " ",
    "06",
    "-",
    "Nov",
    "94",
    "1994",
    "9999",
    "0",
    "08:49:37",
    "99:99:99",
    "GMT",
    "+9999",
    "-0000",
    "EST",
    ":",
]


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.integers().map(str)))
def test_no_text_breaks_it(text: str) -> None:
    assert 0.0 <= retry_seconds(text) <= LONGEST_RETRY_AFTER
