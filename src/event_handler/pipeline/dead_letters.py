"""Sends dead letters again that the user asked for with `dead-letter retry`, apart from the stream of new events."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

import orjson
import structlog

from event_handler.errors import MalformedEventError
from event_handler.event import Event, Unreadable
from event_handler.pipeline.transforms.chain import Chain
from event_handler.ports import DeadLetter, Delivered, Partial, Reject, Sink, Split
from event_handler.redact import credentials
from event_handler.state.store import Store
from event_handler.teleport.wire.raw import restored

LOOK_EVERY = 2.0  # seconds between looks for letters that a person has just asked for
AFTER_FAILURE = 30.0  # seconds until letters that a failing collector did not take are sent again
MOST_FAILURES = 100  # letters; when so many were not taken, the collector is left alone
NO_TRANSFORMS = Chain()
RECORDINGS = "recordings"  # the sink named in letters about recordings that could not be read

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)")

log = structlog.get_logger()

Counted = Callable[[Event], None]


async def retry_dead_letters(
    sink: Sink, store: Store, end: asyncio.Event, delivered: Counted, chain: Chain = NO_TRANSFORMS
) -> None:
    """Run until `end` is set, and then until each letter was tried once more.

    A letter is dropped when it is delivered, of which `delivered` is told, and kept with the new reason when it is
    refused again.
    """
    while True:
        last, taken = end.is_set(), True
        try:
            taken = await _try_all(sink, store, delivered, chain)
        except Exception as error:  # of the state or the sink; the letters are kept, and new events must not suffer
            log.error("dead letters cannot be retried now", error=str(error))
        if last:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_EVERY if taken else AFTER_FAILURE):
                await end.wait()


async def _try_all(sink: Sink, store: Store, delivered: Counted, chain: Chain) -> bool:
    """Try each letter, as long as not too many fail; return whether the sink had an answer for all of them."""
    number = failed = 0
    while failed < MOST_FAILURES and (some := store.dead_letters_to_retry(number)):
        for number, letter in some:
            failed += not await _retry(sink, store, number, letter, delivered, chain)
    return not failed


async def _retry(sink: Sink, store: Store, number: int, letter: DeadLetter, delivered: Counted, chain: Chain) -> bool:
    """Send one letter again and return True; when the sink takes nothing now, it stays to be retried."""
    if letter.sink == RECORDINGS:
        if letter.session_id:
            store.recording_again(letter.session_id)
            store.dead_letter_delivered(number)
        else:
            store.dead_letter_refused(number, letter.reason)  # the event itself was delivered with the others
        return True
    try:
        event = chain.apply(_event(letter))
    except Exception as error:  # as where events are selected: one that cannot be read must not hold up the others
        store.dead_letter_refused(number, str(error))
        return True
    if event is None:
        store.dead_letter_delivered(number)
        log.info("dead letter dropped by a transform", number=number, type=letter.type, id=letter.id)
        return True
    verdict = await sink.deliver([event])
    if isinstance(verdict, Delivered):
        store.dead_letter_delivered(number)
        delivered(event)
        log.info("dead letter delivered", number=number, type=letter.type, id=letter.id)
    elif isinstance(verdict, Reject | Split) or (isinstance(verdict, Partial) and verdict.rejected):
        reason = credentials(verdict.rejected[0] if isinstance(verdict, Partial) else verdict.reason)
        store.dead_letter_refused(number, reason)
        log.warning("dead letter refused again", number=number, type=letter.type, id=letter.id, reason=reason)
    else:
        return False
    return True


def _event(letter: DeadLetter) -> Event:
    """The event as it was sent the first time, with its own time and its place in the recording."""
    raw = restored(letter.body, letter.session_id)
    if isinstance(raw, Unreadable):
        raise MalformedEventError(letter.reason)
    if raw is not None:
        return raw.event()
    if letter.time is not None:
        return Event(letter.type, letter.id, letter.time, letter.index, letter.body, letter.session_id)
    content = orjson.loads(letter.body)
    index = content.get("ei")
    seconds = read_time(content.get("time"))
    return Event(
        letter.type, letter.id, seconds, index if isinstance(index, int) else 0, letter.body, letter.session_id
    )


def read_time(text: object) -> float:
    """An RFC 3339 time with any fraction, in seconds since the epoch: the number that the cluster's own time of the
    event becomes.

    Anything else is 0.0, as for an event that has none.
    """
    found = _RFC3339.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return 0.0
    seconds, fraction, zone = found.groups()
    try:
        whole = datetime.fromisoformat(seconds.upper() + zone.upper()).timestamp()
    except (ValueError, OverflowError):
        return 0.0
    return whole + int((fraction or "0").ljust(9, "0")[:9]) / 1e9
