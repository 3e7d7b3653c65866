"""How long to wait before something that failed is tried again."""

from __future__ import annotations

import random

FIRST_WAIT = 0.25  # seconds at most before the first repeat, doubled each time


def backoff(attempt: int, longest: float, first: float = FIRST_WAIT) -> float:
    """Exponential with full jitter, in seconds, for the `attempt`-th failure (from 0)."""
    return random.uniform(0.0, min(longest, first * 2.0 ** min(attempt, 16)))  # noqa: S311 - jitter, no secret
