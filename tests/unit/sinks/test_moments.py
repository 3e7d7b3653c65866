"""Times are written as datetime writes them, only faster."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from event_handler.sinks.moments import FIRST_MOMENT, LAST_MOMENT, rfc3339, rfc3339_milliseconds


@given(st.floats(FIRST_MOMENT, LAST_MOMENT) | st.floats(0.0, 4e9))
@example(59.9999999)
@example(1_790_000_000.0078125)  # exactly between two microseconds
@example(-0.0000001)
def test_every_time_is_written_as_datetime_writes_it(seconds: float) -> None:
    expected = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    assert rfc3339(seconds) == f"{expected}Z".encode()
    assert rfc3339_milliseconds(seconds) == f"{expected[:-3]}Z".encode()


@pytest.mark.parametrize(("seconds", "year"), [(-1e18, b"0001"), (1e18, b"9999")])
def test_a_time_that_no_calendar_has_is_the_nearest_one(seconds: float, year: bytes) -> None:
    assert rfc3339(seconds)[:4] == year
