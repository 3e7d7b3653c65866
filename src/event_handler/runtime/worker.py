"""One sink at work: its state, its lines, and its own reading of the cluster, so that a sink that is down stops no
other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

from event_handler.errors import ConfigurationError, ConnectError, StateError
from event_handler.event import Event
from event_handler.pipeline.dead_letters import retry_dead_letters
from event_handler.pipeline.dedup import DuplicateWindow
from event_handler.pipeline.engine import Counters, Pipeline, PipelineLimits
from event_handler.pipeline.select import Selector
from event_handler.pipeline.transforms.chain import Chain
from event_handler.ports import Sink
from event_handler.runtime.session import Follower, FollowSettings
from event_handler.runtime.sinks import PlannedSink
from event_handler.runtime.supervise import cause_of, supervise
from event_handler.state.store import Store
from event_handler.teleport.rpc.client import Client

OF_THE_CLUSTER = (
    ConfigurationError,
    ConnectError,
)  # errors that no line can repair: another cluster, or none within the time given
MOST_FAILURES = 5  # in a row, after which a line with `exit_on_last_event` is given up instead of started for ever
RECORDINGS_SHARE = (
    4  # recordings get a quarter of the bytes and requests: a backlog of them never holds up the audit log
)


@dataclass(slots=True)
class Worker:
    """A running line. `audit` and `recordings` deliver apart from each other."""

    sink: Sink
    store: Store
    selector: Selector
    audit: Pipeline
    recordings: Pipeline
    follower: Follower
    retrying: asyncio.Task[None]
    read: asyncio.Event  # everything was, so letters are tried for the last time

    async def run(self) -> None:
        """Read and deliver until cancelled, or with `exit_on_last_event` until all is delivered and all letters were
        tried.
        """
        await self.follower.run()
        self.read.set()
        await self.retrying

    async def finish(self, seconds: float) -> bool:
        """Wait up to `seconds` until what is in flight has been delivered; return whether it has."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.follower.drain()
                return True
        return False


@asynccontextmanager
async def open_worker(
    plan: PlannedSink,
    store: Store,
    connect: Callable[[], Client],
    follow: FollowSettings,
    max_bytes: int,
) -> AsyncIterator[Worker]:
    """Start the deliverers of a sink; reading begins with `run()`. The sink stays open.

    A fault of our own code in one of its tasks cancels whoever uses it and is raised at the end of the block, in a
    group.
    """
    sink, filters, chain = plan.sink, plan.filters, Chain(plan.transforms)
    window = DuplicateWindow()
    window.load(store.delivered_ids())
    selector = Selector(
        sink.name,
        window,
        types=filters.types,
        skip_types=filters.skip_types,
        skip_session_types=filters.skip_session_types,
        recordings=follow.recordings,
    )
    requests = max(1, sink.limits.requests // RECORDINGS_SHARE)
    limits = PipelineLimits(max(1, sink.limits.requests - requests), max_bytes - max_bytes // RECORDINGS_SHARE)
    async with (
        Pipeline(sink, store, selector, limits, chain) as audit,
        Pipeline(sink, store, selector, PipelineLimits(requests, max_bytes // RECORDINGS_SHARE), chain) as recordings,
    ):
        read = asyncio.Event()

        def delivered(event: Event) -> None:
            (recordings if event.session_id else audit).dead_letter_delivered(event)

        retry = partial(retry_dead_letters, sink, store, read, delivered, chain)
        retrying = asyncio.create_task(supervise("retrying dead letters", retry, most=MOST_FAILURES, sink=sink.name))
        follower = Follower(connect, audit, recordings, store, follow)
        try:
            yield Worker(sink, store, selector, audit, recordings, follower, retrying, read)
        finally:
            retrying.cancel()
            await asyncio.gather(retrying, return_exceptions=True)


class KeptWorker:
    """A sink's line that is opened again after every failure, so that one sink's failure of any kind stops no other.

    `name` is the sink's. The counters count since the start of the process.
    """

    def __init__(
        self,
        plan: PlannedSink,
        store: Store,
        connect: Callable[[], Client],
        follow: FollowSettings,
        max_bytes: int,
    ) -> None:
        self.sink = plan.sink
        self.store = store
        self.audit, self.recordings = Counters(), Counters()
        self.drained = True  # whether all that was in flight when it ended was delivered
        self._open = partial(open_worker, plan, store, connect, follow, max_bytes)
        self._most = MOST_FAILURES if follow.exit_on_last_event else 0
        self._grace: float | None = None
        self._line: Worker | None = None  # the last one that was opened
        self._running = False
        self._failure = ""

    async def run(self) -> None:
        """Read and deliver until cancelled, or with `exit_on_last_event` until all is delivered.

        Raises an error of the cluster that nobody here can repair; with `exit_on_last_event` also one that comes again
        and again.
        """
        try:
            await supervise("the sink's line", self._once, most=self._most, final=OF_THE_CLUSTER, sink=self.sink.name)
        finally:
            await self.sink.close()

    async def _once(self) -> None:
        try:
            async with self._open() as worker:
                worker.audit.counters, worker.recordings.counters = self.audit, self.recordings
                self._line, self._running, self._failure = worker, True, ""
                try:
                    await worker.run()
                except asyncio.CancelledError:
                    if self._grace is not None:
                        self.drained = await worker.finish(self._grace)
                    raise
        except Exception as error:
            cause = cause_of(error)
            self._failure = str(cause) or type(cause).__name__
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
        if self._line is not None and self._running:
            await self._line.follower.renew(connect())

    def facts(self) -> dict[str, object]:
        """What is told about it on request. What a line counts for itself begins again when it is opened again."""
        worker = self._line
        return {
            "sink": self.sink.name,
            "events": self.audit.delivered,
            "session_events": self.recordings.delivered,
            "duplicates_dropped": worker.selector.duplicates if worker else 0,
            "dead_letters": self.audit.dead + self.recordings.dead,
            "dead_letters_kept": self._dead_letters_kept(),
            "retries": worker.audit.retries + worker.recordings.retries if worker else 0,
            "requests_allowed": worker.audit.requests_allowed + worker.recordings.requests_allowed if worker else 0,
            "failing": self._failure or (worker.audit.failing or worker.recordings.failing if worker else ""),
        }

    def _dead_letters_kept(self) -> int | str:
        """How many dead letters there are now, whoever kept or dropped them."""
        try:
            return self.store.dead_letter_totals()[0]
        except StateError:
            return "unknown"
