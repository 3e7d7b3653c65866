"""Sends one marked event to a sink, and tells in words what the receiver said."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from time import time
from uuid import uuid4

import orjson

from event_handler import redact
from event_handler.event import Event
from event_handler.ports import Delivered, Partial, Sink, Verdict

TEST_TYPE = "teleport-event-handler.test"  # no type of Teleport's, so that nobody takes it for an event of the cluster
LONGEST_TEST = 60.0  # seconds for one sink


async def try_sink(sink: Sink) -> tuple[bool, str]:
    """Whether it took the event, and what was said, without a secret. The sink stays open."""
    try:
        verdict = await asyncio.wait_for(sink.deliver([marked()]), LONGEST_TEST)
    except TimeoutError:
        return False, f"no answer within {LONGEST_TEST:.0f} s"
    return isinstance(verdict, Delivered), redact.credentials(_in_words(verdict))


def marked() -> Event:
    now, uid = time(), str(uuid4())
    content = {
        "event": TEST_TYPE,
        "message": "sent by `teleport-event-handler sinks test`",
        "time": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "uid": uid,
    }
    return Event(TEST_TYPE, uid, now, 0, orjson.dumps(content))


def _in_words(verdict: Verdict) -> str:
    if isinstance(verdict, Delivered):
        return "the receiver took the event"
    if isinstance(verdict, Partial):
        return next(iter(verdict.rejected.values()), verdict.reason)
    return verdict.reason
