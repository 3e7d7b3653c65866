"""The forms of a time that RFC 3339 allows and Teleport can send, with the instant that each means.

Go writes as many digits of the fraction as are needed, and none for a whole second.
"""

from __future__ import annotations

SECOND = 1_000_000_000  # nanoseconds
MORNING = 1_767_262_830 * SECOND  # 2026-01-01T10:20:30Z

FRACTIONS = {digits: int(digits.ljust(9, "0")) for digits in ("123456789"[:size] for size in range(1, 10))}
ZONES = {"Z": 0, "+00:00": 0, "+05:30": 19_800, "-08:00": -28_800}  # seconds east of UTC

FORMS = {
    f"2026-01-01T10:20:30{'.' if digits else ''}{digits}{zone}": MORNING + fraction - east * SECOND
    for digits, fraction in {"": 0, **FRACTIONS, "000000001": 1, "999999999": 999_999_999}.items()
    for zone, east in ZONES.items()
}
# Allowed too, although Go writes capitals only.
SMALL_LETTERS = {"2026-01-01t10:20:30z": MORNING, "2026-01-01t10:20:30.5z": MORNING + SECOND // 2}
