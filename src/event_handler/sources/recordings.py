"""Fetches announced session recordings, a few at once and apart from the audit log, until each has been delivered.

Every call makes the cluster write an audit event, so tries are spaced: a recording that is not there yet is asked for
ever less often, and given up after the missing-recording time only. One is done when the end of its session was in it,
or when a later look brings nothing new: a stream that ends well may be of a recording that is not there whole yet.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import time

import orjson
import structlog

from event_handler.checkpoint import Recording, RecordingCheckpoint
from event_handler.errors import ConnectError, RpcError
from event_handler.ports import RECORDINGS, Consumer, DeadLetter, RecordingItem, RecordingQueue, Stream
from event_handler.teleport.rpc.client import Client
from event_handler.teleport.wire.decode import event_place
from event_handler.teleport.wire.raw import raw_events

LONGEST_RECORDING_WAIT = 21_600.0  # seconds
PASSING_CODES = frozenset(
    {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED", "ABORTED"}
)  # of the cluster, not of one recording
LARGEST_INDEX = 2**31 - 1  # start_index is an int32 on the wire; larger indexes are resumed by skipping here
ENDS = frozenset(
    {"session.end", "db.session.end", "windows.desktop.session.end", "app.session.end"}
)  # seldom the very last event
EMPTY_LOOKS = 2  # looks without any event, ten seconds and a minute apart, before another one is believed
MOST_AHEAD = 10_000  # indexes behind a gap that are remembered until it is filled; some recorders count nanoseconds

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RecordingPace:
    """All in seconds. `look` between looks at the queue, which is a local table; `waits` before the 2nd, 3rd, … try,
    the last of which is repeated; at most `passing` while it is the cluster that fails, doubled from `waits[0]`.
    """

    look: float = 0.5
    waits: tuple[float, ...] = (10.0, 60.0, 300.0, 1800.0, 7200.0, LONGEST_RECORDING_WAIT)
    passing: float = 300.0


RECORDING_PACE = RecordingPace()


class Unbroken:
    """How far the indexes of a recording are without a gap: every event below `index` was read, in whatever order they
    came.
    """

    def __init__(self, begin: int) -> None:
        self._begin = self._next = begin
        self._ahead: set[int] = set()
        self._repeated = False

    def add(self, index: int) -> None:
        if 0 <= index < self._next:
            self._repeated = True
        elif index > self._next and len(self._ahead) < MOST_AHEAD:
            self._ahead.add(index)
        elif index == self._next:
            self._next += 1
            while self._next in self._ahead:
                self._ahead.remove(self._next)
                self._next += 1

    @property
    def index(self) -> int:
        """The last one itself is read again: another event may have it too. Where indexes repeat, they tell nothing."""
        return 0 if self._repeated else max(self._begin, self._next - 1)


@dataclass(slots=True)
class _Look:
    """What a stream that ended well has brought: no event at all, the end of the session, something new."""

    empty: bool = True
    ended: bool = False
    grown: bool = False


class RecordingSource:
    """Works on the queue of recordings. `concurrency` bounds the streams at a time, `missing_ttl` is in seconds.

    It outlives a connection: run() is cancelled when that is lost, and called again with the next one.
    """

    def __init__(
        self,
        pipeline: Consumer,
        store: RecordingQueue,
        *,
        concurrency: int,
        missing_ttl: float,
        pace: RecordingPace = RECORDING_PACE,
    ) -> None:
        self._pipeline = pipeline
        self._store = store
        self._concurrency = concurrency
        self._missing_ttl = missing_ttl
        self._pace = pace
        self._running: set[str] = set()
        self._in_flight: dict[str, Stream] = {}  # of what was begun, until it is delivered
        self._tries: dict[str, int] = {}  # in a row that the cluster failed or that were cut off, by session
        self._ended: set[str] = set()  # sessions, while the queue is asked: what it says of them may be out of date
        self._asked: set[str] = set()  # sessions that were asked for by this process and are not done

    async def run(self, client: Client) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                self._ended.clear()
                for item in await self._store.due_recordings(time(), self._concurrency * 2, LONGEST_RECORDING_WAIT):
                    if self._may_begin(item.session_id):
                        self._running.add(item.session_id)
                        group.create_task(self._fetch(client, item))
                await asyncio.sleep(self._pace.look)

    async def finish(self) -> int:
        """Wait, while run() runs, until everything was tried; return how many recordings are still missing.

        What an earlier process has looked at is looked at again, what this one has is left for the next.
        """
        await self._store.recordings_due_now(await self._to_look_at_again())
        while True:
            waiting, untried = await self._store.waiting_recordings()
            if not self._running and not untried and not await self._to_look_at_again():
                return waiting
            await asyncio.sleep(0.05)

    async def _to_look_at_again(self) -> list[str]:
        looked_at = await self._store.recordings_looked_at()
        return [session_id for session_id in looked_at if session_id not in self._asked]

    def _may_begin(self, session_id: str) -> bool:
        """One that was begun is read again when what is in flight of it is delivered: a new tracker must not move past
        that.
        """
        before = self._in_flight.get(session_id)
        free = len(self._running) < self._concurrency and session_id not in self._running | self._ended
        return free and (before is None or before.drained)

    async def _fetch(self, client: Client, item: RecordingItem) -> None:
        try:
            stream = await self._pipeline.track(Recording(item.session_id))
            self._in_flight[item.session_id] = stream
            self._asked.add(item.session_id)
            wait = await self._space(item.session_id)
            look = await self._stream(client, item, stream)
            self._tries.pop(item.session_id, None)
            await self._looked(item, look)
        except (RpcError, ConnectError) as error:
            # The next try has a tracker of its own, which must not move past events that are still in flight under this
            # one.
            await self._pipeline.drain(stream)
            await self._later(item, error, wait)
        finally:
            self._running.discard(item.session_id)
            self._ended.add(item.session_id)
            if (begun := self._in_flight.get(item.session_id)) is not None and begun.drained:
                del self._in_flight[item.session_id]

    async def _space(self, session_id: str) -> float:
        """Put the next try off before this one begins, so that tries are spaced also when they are cut off.

        Return the pause.
        """
        before = self._tries[session_id] = self._tries.get(session_id, -1) + 1
        wait = min(self._pace.waits[0] * 2.0 ** min(before, 16), self._pace.passing)
        await self._store.recording_later(session_id, time() + wait, counted=False)
        return wait

    async def _stream(self, client: Client, item: RecordingItem, stream: Stream) -> _Look:
        """Read a recording to the end of the stream, until all of it is delivered."""
        start = item.next_index if item.next_index <= LARGEST_INDEX else 0
        unbroken, look = Unbroken(item.next_index), _Look()
        async for events in client.recording(item.session_id, start):
            new = []
            look.empty = look.empty and not events
            for event in events:
                kind, index = event_place(event)
                look.ended = look.ended or kind in ENDS
                if index < 0 or index >= item.next_index:
                    new.append(event)
                    unbroken.add(index)
            reached = RecordingCheckpoint(Recording(item.session_id), unbroken.index)
            fresh = await self._pipeline.put(stream, raw_events(new, item.session_id), reached)
            look.grown = look.grown or fresh > 0
        await self._pipeline.drain(stream)
        look.grown = look.grown or unbroken.index > item.next_index
        return look

    async def _looked(self, item: RecordingItem, look: _Look) -> None:
        """A stream has ended well: the recording is done, or is looked at again later."""
        enough = not look.grown and item.looks >= (EMPTY_LOOKS if look.empty else 1)
        if look.ended or enough or item.looks >= len(self._pace.waits):
            await self._store.recording_done(item.session_id)
            self._asked.discard(item.session_id)
            if look.empty:
                log.warning("the recording has no events to deliver", session=item.session_id, looks=item.looks + 1)
            else:
                log.info("recording delivered", session=item.session_id)
            return
        wait = self._pace.waits[min(item.looks, len(self._pace.waits) - 1)]
        await self._store.recording_looked(item.session_id, time() + wait)
        log.info("recording without the end of its session, will look again", session=item.session_id, wait_s=wait)

    async def _later(self, item: RecordingItem, error: RpcError | ConnectError, passing_wait: float) -> None:
        """Ask again, ever less often.

        What the cluster still refuses after the missing-recording time is given up, not forgotten.
        """
        now = time()
        refused = isinstance(error, RpcError) and error.code not in PASSING_CODES
        if refused:
            del self._tries[item.session_id]
        if refused and now - item.announced > self._missing_ttl and item.attempts >= len(self._pace.waits):
            body = orjson.dumps({"sid": item.session_id, "announced": item.announced})
            reason = f"the recording could not be read in {item.attempts + 1} tries ({error})"
            letter = DeadLetter(RECORDINGS, reason, "", item.session_id, item.session_id, body)
            await self._store.recording_given_up(letter)
            self._asked.discard(item.session_id)
            log.error("recording given up; kept as dead letter", session=item.session_id, error=str(error))
            return
        wait = self._pace.waits[min(item.attempts, len(self._pace.waits) - 1)] if refused else passing_wait
        await self._store.recording_later(item.session_id, now + wait, counted=refused)
        missing = isinstance(error, RpcError) and error.code == "NOT_FOUND"
        say = log.info if missing else log.warning
        say("recording not available, will ask again", session=item.session_id, wait_s=wait, error=str(error))
