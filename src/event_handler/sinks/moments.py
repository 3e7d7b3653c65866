"""The time of an event in the forms that receivers want."""

from __future__ import annotations

from datetime import UTC, datetime

FIRST_MOMENT = -62_135_596_800.0  # seconds since the epoch at the beginning of year 1
LAST_MOMENT = 253_402_300_799.0  # and at the last second of year 9999


def moment(seconds: float) -> datetime:
    """A time in UTC. One outside the years that have a form in RFC 3339 becomes the nearest that has one."""
    return datetime.fromtimestamp(min(max(seconds, FIRST_MOMENT), LAST_MOMENT), UTC)


def rfc3339(seconds: float) -> bytes:
    """`2026-11-24T10:45:14.123456Z`."""
    return moment(seconds).isoformat(timespec="microseconds").replace("+00:00", "Z").encode()
