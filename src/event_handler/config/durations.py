"""Durations as Go writes them: `10s`, `1m30s`, `24h`, `500ms`; a unit is always needed."""

from __future__ import annotations

import re
from fractions import Fraction

# Nanoseconds of each unit, largest first. The two spellings of micro are different characters.
UNITS = {
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1000,
    "µs": 1000,
    "μs": 1000,
    "ns": 1,
}
LONGEST_DURATION = 2**63 - 1  # nanoseconds: what Go can hold, about 292 years
_ONE_SECOND = UNITS["s"]
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")


def parse(text: str) -> float:
    """Seconds of a duration, or ValueError whose message shows the right spelling."""
    return nanoseconds(text) / _ONE_SECOND


def nanoseconds(text: str) -> int:
    """The duration as the whole number Go keeps; parts of a nanosecond are dropped."""
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    total, at = 0, 0
    for part in _PART.finditer(rest):
        if part.start() != at:
            break
        total += int(Fraction(part[1].rstrip(".")) * UNITS[part[2]])
        at = part.end()
    if at != len(rest) or not rest:
        plain = rest.isascii() and rest.isdigit()
        example = f'"{rest}s" or "{rest}m"' if plain else '"10s", "1m30s" or "24h"'
        raise ValueError(f"expected a duration with its unit, for example {example}, got {text!r}")
    if total > LONGEST_DURATION:
        raise ValueError(f"expected a duration of at most {render(LONGEST_DURATION / _ONE_SECOND)}, got {text!r}")
    return sign * total


def render(seconds: float) -> str:
    """The shortest spelling that `parse` and Go read back as the same value: 86400 becomes `24h`."""
    whole = round(Fraction(seconds) * _ONE_SECOND)
    left, parts = min(abs(whole), LONGEST_DURATION), []
    for unit in ("h", "m", "s", "ms", "us", "ns"):
        count, left = divmod(left, UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return ("-" if whole < 0 else "") + ("".join(parts) or "0")
