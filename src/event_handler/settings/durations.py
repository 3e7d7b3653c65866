"""Durations as Go writes them: `10s`, `1m30s`, `24h`, `500ms`; a unit is always needed."""

from __future__ import annotations

import re

UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")


def parse(text: str) -> float:
    """Seconds of a duration, or ValueError whose message shows the right spelling."""
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    total, at = 0.0, 0
    for part in _PART.finditer(rest):
        if part.start() != at:
            break
        total += float(part[1]) * UNITS[part[2]]
        at = part.end()
    if at != len(rest) or not rest:
        example = f'"{rest}s" or "{rest}m"' if rest.isdigit() else '"10s", "1m30s" or "24h"'
        raise ValueError(f"{text!r} is no duration; write a number and a unit, for example {example}")
    return sign * total


def render(seconds: float) -> str:
    """The shortest spelling: 86400 becomes `24h`."""
    if seconds <= 0:
        return "0"
    left, parts = round(seconds * 1000), []
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "1ms"
