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
from event_handler.event import Event, RawEvent, Unreadable
from event_handler.pipeline.transforms.chain import Chain
from event_handler.ports import RECORDINGS, DeadLetter, DeadLetterStore, Delivered, Partial, Reject, Sink, Split
from event_handler.redact import credentials

LOOK_EVERY = 2.0  # seconds between looks for letters that a person has just asked for
AFTER_FAILURE = 30.0  # seconds until letters that a failing collector did not take are sent again
MOST_REFUSALS = 100  # letters; when so many were not taken, the collector is left alone
NO_TRANSFORMS = Chain()

_ANY_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)")

log = structlog.get_logger()

Restore = Callable[[bytes, str], RawEvent | None]  # what a letter's body holds in place of an event


class DeadLetterRetry:
    """Sends the letters of one sink. `restore` reads those that are no events; `delivered` is called for each that was
    taken.
    """

    def __init__(
        self,
        sink: Sink,
        store: DeadLetterStore,
        restore: Restore,
        delivered: Callable[[Event], None],
        chain: Chain = NO_TRANSFORMS,
        *,
        look_every: float = LOOK_EVERY,
        after_failure: float = AFTER_FAILURE,
    ) -> None:
        self._sink = sink
        self._store = store
        self._restore = restore
        self._delivered = delivered
        self._chain = chain
        self._look_every = look_every
        self._after_failure = after_failure

    async def run(self, end: asyncio.Event) -> None:
        """Run until `end` is set, and then until each letter was tried once more.

        A letter is dropped when it is delivered, and kept with the new reason when it is refused again.
        """
        while True:
            last, taken = end.is_set(), True
            try:
                taken = await self._try_all()
            except Exception as error:  # of the state or the sink; the letters are kept, and new events must not suffer
                log.error("dead letters cannot be retried now", error=str(error))
            if last:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(self._look_every if taken else self._after_failure):
                    await end.wait()

    async def _try_all(self) -> bool:
        """Try each letter, as long as not too many fail; return whether the sink had an answer for all of them."""
        number = failed = 0
        while failed < MOST_REFUSALS and (some := await self._store.dead_letters_to_retry(number)):
            for number, letter in some:
                failed += not await self._retry(number, letter)
        return not failed

    async def _retry(self, number: int, letter: DeadLetter) -> bool:
        """Send one letter again and return True; when the sink takes nothing now, it stays to be retried."""
        store = self._store
        if letter.sink == RECORDINGS:
            if letter.session_id:
                await store.recording_again(letter.session_id)
                await store.dead_letter_delivered(number)
            else:
                await store.dead_letter_refused(number, letter.reason)  # the event itself was delivered with the others
            return True
        try:
            event = self._chain.apply(self._event(letter))
        except Exception as error:  # as where events are selected: one that cannot be read must not hold up the others
            await store.dead_letter_refused(number, str(error))
            return True
        if event is None:
            await store.dead_letter_delivered(number)
            log.info("dead letter dropped by a transform", number=number, type=letter.type, id=letter.id)
            return True
        verdict = await self._sink.deliver([event])
        if isinstance(verdict, Delivered):
            await store.dead_letter_delivered(number)
            self._delivered(event)
            log.info("dead letter delivered", number=number, type=letter.type, id=letter.id)
        elif isinstance(verdict, Reject | Split) or (isinstance(verdict, Partial) and verdict.rejected):
            reason = credentials(verdict.rejected[0] if isinstance(verdict, Partial) else verdict.reason)
            await store.dead_letter_refused(number, reason)
            log.warning("dead letter refused again", number=number, type=letter.type, id=letter.id, reason=reason)
        else:
            return False
        return True

    def _event(self, letter: DeadLetter) -> Event:
        raw = self._restore(letter.body, letter.session_id)
        if isinstance(raw, Unreadable):
            raise MalformedEventError(letter.reason)
        return _as_sent(letter) if raw is None else raw.event()


def _as_sent(letter: DeadLetter) -> Event:
    """The event as it was sent the first time, with its own time and its place in the recording."""
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
    found = _ANY_RFC3339.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return 0.0
    seconds, fraction, zone = found.groups()
    try:
        whole = datetime.fromisoformat(seconds.upper() + zone.upper()).timestamp()
    except (ValueError, OverflowError):
        return 0.0
    return whole + int((fraction or "0").ljust(9, "0")[:9]) / 1e9
