"""The time of an event in the forms that receivers want."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

FIRST_MOMENT = -62_135_596_800.0  # seconds since the epoch at the beginning of year 1
LAST_MOMENT = 253_402_300_799.0  # and at the last second of year 9999
SECONDS_OF_MINUTE = 60.0  # seconds
LAST_OF_MINUTE = 59_999_999  # microseconds


def moment(seconds: float) -> datetime:
    """A time in UTC. One outside the years that have a form in RFC 3339 becomes the nearest that has one."""
    return datetime.fromtimestamp(min(max(seconds, FIRST_MOMENT), LAST_MOMENT), UTC)


def rfc3339(seconds: float) -> bytes:
    """`2026-11-24T10:45:14.123456Z`."""
    if 0.0 <= seconds < LAST_MOMENT:  # every event has a time, and many share a minute, so its text is written once
        left = seconds % SECONDS_OF_MINUTE
        micros = round(left * 1e6)
        if micros <= LAST_OF_MINUTE:
            return b"%b%02d.%06dZ" % (_minute(seconds - left), micros // 1_000_000, micros % 1_000_000)
    return moment(seconds).isoformat(timespec="microseconds").replace("+00:00", "Z").encode()


def rfc3339_milliseconds(seconds: float) -> bytes:
    """`2026-11-24T10:45:14.123Z`: what is less than a millisecond is left out."""
    return b"%bZ" % rfc3339(seconds)[:-4]


@lru_cache(maxsize=4096)
def _minute(seconds: float) -> bytes:
    """`2026-11-24T10:45:`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:17].encode()
