"""Fetches announced session recordings, a few at once and apart from the audit log, until each has been delivered.

Every call makes the cluster write an audit event, so tries are spaced: a recording that is not there yet is asked for ever less
often, and given up after the missing-recording time only.
"""

from __future__ import annotations

import asyncio
from time import time

import orjson
import structlog

from event_handler.errors import ConnectError, RpcError
from event_handler.pipeline.engine import Pipeline
from event_handler.pipeline.ledger import Ledger
from event_handler.pipeline.letters import RECORDINGS
from event_handler.state.store import Commit, DeadLetter, RecordingItem, Store
from event_handler.teleport.client import Client
from event_handler.teleport.decode import event_index

LOOK_EVERY = 0.5  # seconds between looks at the queue, which is a local table
LONGEST_WAIT = 21_600.0  # seconds
WAITS = (10.0, 60.0, 300.0, 1800.0, 7200.0, LONGEST_WAIT)  # seconds before the 2nd, 3rd, … try; the last is repeated
LONGEST_PASSING_WAIT = 300.0  # seconds between tries while it is the cluster that fails; doubled from the first of WAITS
PASSING = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED", "ABORTED"})  # of the cluster, not of one recording
LARGEST_INDEX = 2**31 - 1  # start_index is an int32 on the wire; larger indexes are resumed by skipping here

log = structlog.get_logger()


class RecordingSource:
    """Works on the queue of recordings. `concurrency` bounds the streams at a time, `missing_ttl` is in seconds.

    It outlives a connection: run() is cancelled when that is lost, and called again with the next one.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        store: Store,
        *,
        concurrency: int,
        missing_ttl: float,
    ) -> None:
        self._pipeline = pipeline
        self._store = store
        self._concurrency = concurrency
        self._missing_ttl = missing_ttl
        self._running: set[str] = set()
        self._in_flight: dict[str, Ledger] = {}  # of what was begun, until it is delivered
        self._tries: dict[str, int] = {}  # in a row that the cluster failed or that were cut off, by session

    async def run(self, client: Client) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                for item in self._store.due_recordings(time(), self._concurrency * 2, LONGEST_WAIT):
                    if self._may_begin(item.session_id):
                        self._running.add(item.session_id)
                        group.create_task(self._fetch(client, item))
                await asyncio.sleep(LOOK_EVERY)

    async def finish(self) -> int:
        """Wait, while run() runs, until everything was tried; return how many recordings are still missing."""
        self._store.recordings_due_now()
        while True:
            waiting, untried = self._store.waiting_recordings()
            if not self._running and not untried:
                return waiting
            await asyncio.sleep(0.05)

    def _may_begin(self, session_id: str) -> bool:
        """One that was begun is read again when what is in flight of it is delivered: a new ledger must not move past that."""
        before = self._in_flight.get(session_id)
        free = len(self._running) < self._concurrency and session_id not in self._running
        return free and (before is None or before.drained)

    async def _fetch(self, client: Client, item: RecordingItem) -> None:
        ledger = self._in_flight[item.session_id] = Ledger(f"recording/{item.session_id}")
        try:
            wait = self._space(item.session_id)
            await self._stream(client, item, ledger)
            self._store.recording_done(item.session_id)
            self._tries.pop(item.session_id, None)
            log.info("recording delivered", session=item.session_id)
        except (RpcError, ConnectError) as error:
            # The next try has a ledger of its own, which must not move past events that are still in flight under this one.
            await self._pipeline.drain(ledger)
            self._later(item, error, wait)
        finally:
            self._running.discard(item.session_id)
            if ledger.drained:
                del self._in_flight[item.session_id]

    def _space(self, session_id: str) -> float:
        """Put the next try off before this one begins, so that tries are spaced also when they are cut off; return the pause."""
        before = self._tries[session_id] = self._tries.get(session_id, -1) + 1
        wait = min(WAITS[0] * 2.0 ** min(before, 16), LONGEST_PASSING_WAIT)
        self._store.recording_later(session_id, time() + wait, counted=False)
        return wait

    async def _stream(self, client: Client, item: RecordingItem, ledger: Ledger) -> None:
        start = item.next_index if item.next_index <= LARGEST_INDEX else 0
        async for wires in client.recording(item.session_id, start):
            indexes = [event_index(wire) for wire in wires]
            new = [wire for wire, index in zip(wires, indexes, strict=True) if index < 0 or index >= item.next_index]
            after = max(item.next_index, *indexes)
            await self._pipeline.put(ledger, new, str(after), item.session_id)
        await self._pipeline.drain(ledger)

    def _later(self, item: RecordingItem, error: RpcError | ConnectError, passing_wait: float) -> None:
        """Ask again, ever less often; what the cluster still refuses after the missing-recording time is given up, not forgotten."""
        now = time()
        refused = isinstance(error, RpcError) and error.code not in PASSING
        if refused:
            del self._tries[item.session_id]
        if refused and now - item.announced > self._missing_ttl and item.attempts >= len(WAITS):
            body = orjson.dumps({"sid": item.session_id, "announced": item.announced})
            reason = f"the recording could not be read in {item.attempts + 1} tries ({error})"
            letter = DeadLetter(RECORDINGS, reason, "", item.session_id, item.session_id, body)
            self._store.commit(Commit(dead_letters=[letter]))
            self._store.recording_done(item.session_id)
            log.error("recording given up; kept as dead letter", session=item.session_id, error=str(error))
            return
        wait = WAITS[min(item.attempts, len(WAITS) - 1)] if refused else passing_wait
        self._store.recording_later(item.session_id, now + wait, counted=refused)
        missing = isinstance(error, RpcError) and error.code == "NOT_FOUND"
        say = log.info if missing else log.warning
        say("recording not available, will ask again", session=item.session_id, wait_s=wait, error=str(error))
