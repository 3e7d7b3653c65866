"""One sink at work: its state and its pipelines, which take part in the reading for all, or read alone."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from time import monotonic, time

from event_handler.errors import ConfigurationError, ConnectError, StateError
from event_handler.event import Event
from event_handler.pipeline.dead_letters import DeadLetterRetry
from event_handler.pipeline.dedup import DuplicateWindow
from event_handler.pipeline.engine import Pipeline, PipelineLimits
from event_handler.pipeline.select import Selector
from event_handler.pipeline.transforms.chain import Chain
from event_handler.ports import Remembering, Sink, StateStore
from event_handler.report import Counters, Reading, SinkReport, lag
from event_handler.runtime.certificate_file import CertificateFile
from event_handler.runtime.fan_out import FanOut, Member
from event_handler.runtime.session import Follower, FollowSettings
from event_handler.runtime.shared_reading import Outcome, SharedReading
from event_handler.runtime.sinks import PlannedSink
from event_handler.runtime.supervise import cause_of, supervise
from event_handler.tap import Tap
from event_handler.teleport.rpc.client import Client
from event_handler.teleport.wire.raw import restored

ERRORS_OF_THE_CLUSTER = (
    ConfigurationError,
    ConnectError,
)  # errors that no worker can repair: another cluster, or none within the time given
MOST_FAILURES = 5  # in a row, after which a worker with `exit_on_last_event` is given up instead of started for ever
FIRST_ALONE = 30.0  # seconds that a sink that was detached reads alone at least, doubled each time
LONGEST_ALONE = 1800.0  # seconds; all begin to read again when one joins, so one that is too slow must do so seldom
STATE_ANSWERS_WITHIN = 1.0  # seconds; a report does not wait for a disk that hangs
HISTORY = 60  # minutes
BETWEEN = 5.0  # seconds between two looks whether the end of the log is near
RECORDINGS_SHARE = (
    4  # recordings get a quarter of the bytes and requests: a backlog of them never holds up the audit log
)


@dataclass(slots=True)
class Worker:
    """The running pipelines of one sink. `audit` and `recordings` deliver apart from each other.

    `follower` reads for this sink alone; `alone` says whether it does.
    """

    sink: Sink
    store: StateStore
    selector: Selector
    audit: Pipeline
    recordings: Pipeline
    retrying: asyncio.Task[None]
    read: asyncio.Event  # everything was, so letters are tried for the last time
    connect: Callable[[], Client]
    follow: FollowSettings
    know: Callable[[list[bytes]], None]
    follower: Follower = field(init=False)
    alone: bool = True

    def __post_init__(self) -> None:
        self.follower = Follower(self.connect, FanOut([self._member()]), self.follow)

    def _member(self) -> Member:
        follow = self.follow
        return Member(self.sink.name, self.store, self.audit, self.recordings, follow.start, follow.types, self.know)

    async def run(self, shared: SharedReading | None = None) -> None:
        """Read and deliver until cancelled, or with `exit_on_last_event` until all is delivered and all letters were
        tried.
        """
        if shared is None:
            await self.follower.run()
        else:
            await self._take_part(shared)
        self.read.set()
        await self.retrying

    async def _take_part(self, shared: SharedReading) -> None:
        """Get what is read for all, and read alone while that is not possible."""
        pause = 0.0
        while True:
            begun, self.alone = monotonic(), False
            outcome = await shared.attend(self._member())
            if outcome is Outcome.ENDED:
                await self.drain()
                return
            self.alone = True
            await self.drain()  # which is when the sink is back
            if self.follow.exit_on_last_event:
                await self._read_alone(near=False)
                return
            shortest = FIRST_ALONE if outcome is Outcome.DETACHED else BETWEEN
            pause = shortest if monotonic() - begun > LONGEST_ALONE else min(max(shortest, 2.0 * pause), LONGEST_ALONE)
            await self._catch_up(pause)

    async def _catch_up(self, at_least: float) -> None:
        """Read alone until the end is near, and for so many seconds."""
        end = monotonic() + at_least
        await self._read_alone(near=True)
        while monotonic() < end:
            await asyncio.sleep(min(BETWEEN, at_least))
            await self._read_alone(near=True)
        await self.drain()  # the next reading begins at what is remembered

    async def _read_alone(self, *, near: bool) -> None:
        self.follower = Follower(self.connect, FanOut([self._member()]), self.follow)
        await self.follower.run(near=near)

    async def drain(self) -> None:
        """Wait until everything that it has taken has been delivered and remembered."""
        await self.audit.drain_all()
        await self.recordings.drain_all()

    async def finish(self, seconds: float) -> bool:
        """Wait up to `seconds` until what is in flight has been delivered; return whether it has."""
        # Who calls it is being cancelled: asyncio.timeout of Python 3.11.2 (Debian 12) gives no TimeoutError then.
        with suppress(TimeoutError):
            await asyncio.wait_for(self.drain(), seconds)
            return True
        return False


@asynccontextmanager
async def open_worker(
    plan: PlannedSink,
    store: StateStore,
    connect: Callable[[], Client],
    follow: FollowSettings,
    max_bytes: int,
    counters: tuple[Counters, Counters] | None = None,
    tap: Tap | None = None,
) -> AsyncIterator[Worker]:
    """Start the deliverers of a sink; reading begins with `run()`. The sink stays open.

    A fault of our own code in one of its tasks cancels whoever uses it and is raised at the end of the block, in a
    group.
    """
    of_audit, of_recorded = counters or (Counters(), Counters())
    sink, filters, chain = plan.sink, plan.filters, Chain(plan.transforms)
    if isinstance(sink, Remembering):
        await sink.remember_in(store)
    window = DuplicateWindow()
    window.load(await store.delivered_ids())
    selector = Selector(
        sink.name,
        window,
        types=filters.types,
        skip_types=filters.skip_types,
        skip_session_types=filters.skip_session_types,
        recordings=follow.recordings,
    )
    requests = max(1, sink.limits.requests // RECORDINGS_SHARE)
    of_recordings = PipelineLimits(requests, max_bytes // RECORDINGS_SHARE)
    limits = PipelineLimits(max(1, sink.limits.requests - requests), max_bytes - max_bytes // RECORDINGS_SHARE)
    async with (
        Pipeline(sink, store, selector, limits, chain, counters=of_audit, tap=tap) as audit,
        Pipeline(sink, store, selector, of_recordings, chain, counters=of_recorded) as recordings,
    ):
        read = asyncio.Event()

        def delivered(event: Event) -> None:
            (recordings if event.session_id else audit).dead_letter_delivered(event)

        retry = partial(DeadLetterRetry(sink, store, restored, delivered, chain).run, read)
        retrying = asyncio.create_task(supervise("retrying dead letters", retry, most=MOST_FAILURES, sink=sink.name))
        try:
            yield Worker(sink, store, selector, audit, recordings, retrying, read, connect, follow, window.load)
        finally:
            retrying.cancel()
            await asyncio.gather(retrying, return_exceptions=True)


class KeptWorker:
    """A sink's worker that is opened again after every failure, so that one sink's failure of any kind stops no other.

    `name` is the sink's; what it delivers is shown to `tap`. The counters count since the start of the process.
    """

    def __init__(
        self,
        plan: PlannedSink,
        store: StateStore,
        connect: Callable[[], Client],
        follow: FollowSettings,
        max_bytes: int,
        shared: SharedReading | None = None,
        tap: Tap | None = None,
    ) -> None:
        self.sink = plan.sink
        self._shared = shared
        self.store = store
        self.audit, self.recordings = Counters(), Counters()
        self.drained = True  # whether all that was in flight when it ended was delivered
        self._open = partial(open_worker, plan, store, connect, follow, max_bytes, (self.audit, self.recordings), tap)
        self._most = MOST_FAILURES if follow.exit_on_last_event else 0
        self._grace: float | None = None
        self._worker: Worker | None = None  # the last one that was opened
        self._running = False
        self._failure = ""
        self._failed_at: float | None = None
        self._history: deque[int] = deque(maxlen=HISTORY)
        self._noted = 0
        self._type = plan.type
        self._certificate = CertificateFile(plan.certificate)

    async def run(self) -> None:
        """Read and deliver until cancelled, or with `exit_on_last_event` until all is delivered.

        Raises an error of the cluster that nobody here can repair; with `exit_on_last_event` also one that comes again
        and again.
        """
        try:
            name = self.sink.name
            await supervise("the sink's pipeline", self._once, most=self._most, final=ERRORS_OF_THE_CLUSTER, sink=name)
        finally:
            await self.sink.close()

    async def _once(self) -> None:
        try:
            async with self._open() as worker:
                self._worker, self._running, self._failure = worker, True, ""
                try:
                    await worker.run(self._shared)
                except asyncio.CancelledError:
                    if self._grace is not None:
                        self.drained = await worker.finish(self._grace)
                    raise
        except Exception as error:
            cause = cause_of(error)
            self._failure, self._failed_at = str(cause) or type(cause).__name__, time()
            raise
        finally:
            self._running = False

    def stop(self, task: asyncio.Task[None], seconds: float) -> None:
        """Stop reading and end `task`, in which it runs, as soon as what is in flight was delivered, or after
        `seconds`.
        """
        self._grace = seconds
        task.cancel()

    async def renew(self, connect: Callable[[], Client]) -> None:
        """Move to a new connection. Raises as `connect` does, ConnectError or RpcError when it does not get in."""
        if self._worker is not None and self._running and self._worker.alone:
            await self._worker.follower.renew(connect())

    @property
    def reading(self) -> Reading | None:
        """The reading of its own, None while it takes part in that for all."""
        worker = self._worker
        return worker.follower.reading if worker is not None and worker.alone and self._running else None

    def end_minute(self) -> None:
        """Note how many events were delivered since the last call, for the history."""
        total = self.audit.delivered + self.recordings.delivered
        self._history.append(total - self._noted)
        self._noted = total

    async def report(self, now: float, shared: Reading | None) -> SinkReport:
        """All about it at the time `now`; `shared` is the reading for all."""
        worker = self._worker
        pipelines = [worker.audit, worker.recordings] if worker else []
        loads = tuple(pipeline.load for pipeline in pipelines)
        oldest = min((load.oldest for load in loads if load.oldest is not None), default=None)
        alone = worker is None or worker.alone
        reading = self.reading if alone else shared
        failing = next((pipeline for pipeline in pipelines if pipeline.failing), None)
        letters, waiting, size = await self._kept()
        return SinkReport(
            name=self.sink.name,
            type=self._type,
            audit=self.audit,
            recordings=self.recordings,
            load=loads,
            alone=alone,
            lag=lag(now, reading.position if reading else None, oldest),
            oldest=oldest,
            failing=self._failure or (failing.failing if failing else ""),
            failing_since=self._failed_at if self._failure else failing.failing_since if failing else None,
            next_step=failing.next_step if failing and not self._failure else "",
            dead_letters=letters[0] if letters else None,
            dead_letter_bytes=letters[1] if letters else None,
            recordings_waiting=waiting,
            state_bytes=size,
            certificate_expires=self._certificate.expires(),
            history=tuple(self._history),
        )

    async def _kept(self) -> tuple[tuple[int, int] | None, int | None, int | None]:
        """Dead letters and their bytes, recordings that wait, and the size of the state; None for what is unknown."""
        try:
            async with asyncio.timeout(STATE_ANSWERS_WITHIN):
                letters = await self.store.dead_letter_totals()
                waiting, _ = await self.store.waiting_recordings()
                return letters, waiting, await self.store.size()
        except (StateError, TimeoutError):
            return None, None, None

    async def facts(self) -> dict[str, object]:
        """What is logged about it on request."""
        worker = self._worker
        return {
            "sink": self.sink.name,
            "events": self.audit.delivered,
            "session_events": self.recordings.delivered,
            "duplicates_dropped": self.audit.duplicates + self.recordings.duplicates,
            "dead_letters": self.audit.dead + self.recordings.dead,
            "dead_letters_kept": await self._dead_letters_kept(),
            "retries": self.audit.retries + self.recordings.retries,
            "requests_allowed": worker.audit.load.allowed + worker.recordings.load.allowed if worker else 0,
            "reading": "own" if worker is None or worker.alone else "shared",
            "failing": self._failure or (worker.audit.failing or worker.recordings.failing if worker else ""),
        }

    async def _dead_letters_kept(self) -> int | str:
        """How many dead letters there are now, whoever kept or dropped them."""
        try:
            return (await self.store.dead_letter_totals())[0]
        except StateError:
            return "unknown"
