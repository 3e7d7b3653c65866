"""Follows a cluster: connects, finds out how its log can be read, reads, and starts again after every loss of the
connection, and when another sink joins the reading.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic, time

import structlog

from event_handler.backoff import backoff
from event_handler.checkpoint import Mode, day_of
from event_handler.errors import ConfigurationError, ConnectError, CredentialsError, EventHandlerError, RpcError
from event_handler.ports import Commit, StateStore
from event_handler.report import Reading
from event_handler.runtime.fan_out import FanOut
from event_handler.runtime.merged_state import MergedState
from event_handler.runtime.supervise import cause_of, log_error, supervise
from event_handler.sources.export import BulkSource
from event_handler.sources.recordings import RECORDING_PACE, RecordingPace, RecordingSource
from event_handler.sources.search import SearchSource
from event_handler.teleport.rpc.client import Client, Cluster

PROBE_AHEAD = 2 * 86400.0  # seconds; a day that has no events yet
LONGEST_WAIT = 15.0  # seconds between tries to connect
RIGHTS = "Give the role the rule: resources [event, session], verbs [list, read]."
REMIND_EVERY = 60.0  # seconds between lines while the cluster cannot be reached
STEADY_CONNECTION = 60.0  # seconds; a connection that lasted so long was a good one, and the next try may be quick
MOST_FAULTS = 5  # of our own code, after which a run with `exit_on_last_event` ends instead of trying for ever

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class FollowSettings:
    """How to read `cluster`.

    Times are seconds, `start` since the epoch; `page` 0 is the largest, `startup_timeout` 0 is for ever. Tries to
    connect are at most `longest_wait` apart.
    """

    cluster: str
    start: float
    window: float
    page: int
    types: tuple[str, ...]
    look_back: float
    search_poll: float
    bulk_poll: float
    late_days: int
    concurrency: int
    missing_ttl: float
    recordings: bool
    startup_timeout: float
    exit_on_last_event: bool
    recording_pace: RecordingPace = RECORDING_PACE
    longest_wait: float = LONGEST_WAIT


class Follower:
    """Runs the sources of one cluster for the members of `group`. `connect` makes a new client from the newest
    credentials.
    """

    def __init__(self, connect: Callable[[], Client], group: FanOut, settings: FollowSettings) -> None:
        self._connect = connect
        self._group = group
        self._state = MergedState(group)
        self._settings = settings
        self._fetcher = RecordingSource(
            group.recordings,
            self._state,
            concurrency=settings.concurrency,
            missing_ttl=settings.missing_ttl,
            pace=settings.recording_pace,
        )
        self._near = False
        self._client: Client | None = None
        self._source: BulkSource | SearchSource | None = None
        self._since = time()  # when the connection was made or lost
        self._connections = 0
        self._version = ""
        self._failure: Exception | None = None  # while there is no connection
        self._reached = False
        self._first_try = monotonic()
        self._begun = monotonic()  # when the last try to connect was
        self._delivered = 0  # events, when reading ended the last time
        self._attempt = 0
        self._faults = 0
        self._logged: dict[str, float] = {}  # errors and when they were logged, since something was delivered

    @property
    def reading(self) -> Reading:
        """How far reading is, and what it fails for."""
        position, connected = self._source.position if self._source else None, self._version != ""
        if position is not None and self._failure is not None:
            position = replace(position, caught_up=False)
        failure = self._failure
        return Reading(
            sinks=tuple(member.name for member in self._group.members),
            connected=connected and failure is None,
            since=self._since,
            connections=self._connections,
            address=self._client.address if self._client else "",
            route=self._client.route if self._client else "",
            version=self._version,
            position=position,
            failing="" if failure is None else getattr(failure, "message", "") or str(failure),
            next_step="" if failure is None else _next_step(failure),
        )

    async def run(self, *, near: bool = False) -> None:
        """Return when `exit_on_last_event` is set and all is delivered; otherwise run until cancelled, whatever
        happens. With `near` also when the end of the log is near.

        Raises ConnectError when the cluster was not reached within the startup timeout, ConfigurationError when it is
        another one.
        With `exit_on_last_event` also what fails again and again because of our own code.
        """
        self._near = near
        while True:
            try:
                await self._connect_and_read()
                return
            except Exception as error:
                failure = cause_of(error)
            finally:
                if (client := self._client) is not None:
                    self._client = None
                    await client.aclose()
            if (task := asyncio.current_task()) and task.cancelling():
                raise asyncio.CancelledError  # the task group drops a wish to stop that comes while it is failing
            if self._failure is None:
                self._since = time()
            self._failure = failure
            await self._wait(failure)
            # What was read before is delivered first: the next source starts at the remembered positions, and its
            # trackers must not move past events that are still in flight under the old ones. Recordings wait each for
            # itself.
            await self._group.audit.drain_all()

    async def _connect_and_read(self) -> None:
        self._begun = monotonic()
        client = self._client = self._connect()
        cluster = await client.ping()
        self._check(cluster)
        bulk = await client.has_bulk_export(time() + PROBE_AHEAD)
        log.info(
            "connected to Teleport", cluster=cluster.name, version=cluster.version, reading="bulk" if bulk else "search"
        )
        self._reached = True
        self._since, self._failure, self._version = time(), None, cluster.version
        self._connections += 1
        await self._read(client, bulk)

    async def renew(self, fresh: Client) -> None:
        """Move to a new connection without interrupting a call. `fresh` belongs to the follower from now on.

        Raises ConnectError or RpcError when it does not get in; the old one stays then.
        """
        old = self._client
        try:
            await fresh.ping()
            if old is not None and old is self._client:
                old.move_to(fresh)
                return
        except BaseException:
            fresh.close()
            raise
        fresh.close()

    def _check(self, cluster: Cluster) -> None:
        """Refuse another cluster than the one that the state belongs to: its events would be mixed with those of the
        first.
        """
        if cluster.name == self._settings.cluster:
            return
        message = (
            f"this is the cluster {cluster.name}, and the credentials and the state are for {self._settings.cluster}"
        )
        hint = "Correct teleport.addr, or make an identity in that cluster."
        raise ConnectError(message, hint, conclusive=True) if self._reached else ConfigurationError(message, hint)

    async def _wait(self, failure: Exception) -> None:
        """Tell what failed and pause, longer with each failure since something was delivered.

        Raises what waiting does not repair.
        """
        now = monotonic()
        delivered = self._group.delivered
        if delivered != self._delivered or now - self._begun > STEADY_CONNECTION:
            self._attempt = 0
            self._logged.clear()
        self._delivered = delivered
        if isinstance(failure, ConfigurationError) and not self._reached:
            raise failure
        limit = self._settings.startup_timeout
        if limit and not self._reached and now - self._first_try > limit:
            raise ConnectError(f"Teleport was not reached within {limit:.0f} s ({failure})")
        if not isinstance(failure, EventHandlerError):
            self._faults += 1
            if self._settings.exit_on_last_event and self._faults >= MOST_FAULTS:
                raise failure
        self._log(failure, now)
        self._attempt += 1
        await asyncio.sleep(0.2 + backoff(self._attempt, self._settings.longest_wait))

    def _log(self, failure: Exception, now: float) -> None:
        text = f"{type(failure).__name__}: {failure}"
        if now - self._logged.get(text, now - REMIND_EVERY) < REMIND_EVERY:
            return
        self._logged[text] = now
        if not isinstance(failure, EventHandlerError):
            log_error("reading failed by a fault of the event handler, will try again", failure)
            return
        next_step = _next_step(failure)
        person_needed = (
            _is_refused(failure)
            or isinstance(failure, CredentialsError | ConfigurationError)
            or getattr(failure, "conclusive", False)
        )
        say = log.error if person_needed else log.warning
        say("cannot read now, will try again", error=failure.message, **({"next_step": next_step} if next_step else {}))

    async def _read(self, client: Client, bulk: bool) -> None:
        """Read until all is read, and begin again whenever the members change."""
        while await self._group.admit(forever=not self._settings.exit_on_last_event):
            if await self._read_for_members(client, bulk):
                return
            # As after a lost connection: what is in flight is delivered before reading begins at the remembered
            # positions.
            await self._group.audit.drain_all()

    async def _read_for_members(self, client: Client, bulk: bool) -> bool:
        """Return whether all is read; else the members have changed."""
        source = self._source = await self._make_source(client, bulk)
        most = int(self._settings.exit_on_last_event)  # then nobody waits for ever, and the whole reading begins again
        async with asyncio.TaskGroup() as tasks:
            fetching = []
            if self._settings.recordings:
                fetch = partial(self._fetcher.run, client)
                fetching.append(tasks.create_task(supervise("fetching recordings", fetch, most=most)))
            reading = tasks.create_task(self._read_to_the_end(source))
            changed = tasks.create_task(self._group.changed())
            await asyncio.wait({reading, changed}, return_when=asyncio.FIRST_COMPLETED)
            for task in (reading, changed, *fetching):
                task.cancel()
        return not reading.cancelled()

    async def _read_to_the_end(self, source: BulkSource | SearchSource) -> None:
        if isinstance(source, BulkSource) and not self._group.audit.ordered:
            await source.run()
        else:  # one replica at a time, which goes on where the one before it has come to
            async with self._state.turn("reading"):
                await self._state.know_others()
                await source.run()
                await self._group.audit.drain_all()
        if self._near:
            return
        await self._group.drain()
        if self._settings.recordings and (missing := await self._fetcher.finish()):
            log.warning("recordings not yet available stay queued for the next start", recordings=missing)

    async def _make_source(self, client: Client, bulk: bool) -> BulkSource | SearchSource:
        s, group = self._settings, self._group
        mode = Mode.BULK if bulk else Mode.SEARCH
        async with self._state.turn("mode"):  # or the position of a replica that reads already would be replaced
            await group.of_each(lambda store: convert_checkpoint(store, mode, s.look_back))
        if bulk:
            await self._state.agree_on_days()
            return BulkSource(
                client,
                group.audit,
                self._state,
                start=group.start,
                late_days=s.late_days,
                poll=s.bulk_poll,
                until_caught_up=s.exit_on_last_event,
                near=self._near,
            )
        return SearchSource(
            client,
            group.audit,
            self._state,
            start=group.start,
            window=s.window,
            page=s.page,
            types=group.types,
            look_back=s.look_back,
            poll=s.search_poll,
            until_caught_up=s.exit_on_last_event,
            near=self._near,
        )


def _is_refused(failure: Exception) -> bool:
    return isinstance(failure, RpcError) and failure.code == "PERMISSION_DENIED"


def _next_step(failure: Exception) -> str:
    return RIGHTS if _is_refused(failure) else getattr(failure, "hint", "")


async def day_being_read(store: StateStore) -> str:
    """The UTC date (`2026-11-23`) that is read at the moment, "" before anything was read."""
    progress = await store.progress()
    if progress.mode is Mode.BULK:
        return str(progress.newest_day or "")
    return "" if progress.searched is None else str(day_of(progress.searched))


async def convert_checkpoint(store: StateStore, mode: Mode, look_back: float) -> None:
    """When the cluster is read in another way than before (upgraded, downgraded, moved), hand the position over.

    The two ways know different positions, so the days that bulk export still polls are read again; duplicates are
    dropped by id.
    """
    before = await store.progress()
    if before.mode is mode:
        return
    after = replace(before, mode=mode)
    if before.mode is Mode.SEARCH and before.searched is not None:
        first = day_of(before.searched - look_back)
        after = replace(after, first_day=first, closed_days=frozenset(), chunks={})
    elif before.mode is Mode.BULK and before.polled_since is not None:
        after = replace(after, searched=before.polled_since)
    await store.commit(Commit(progress=after))
    if before.mode is not None:
        log.warning(
            "the cluster is read in another way than before; the position was carried over",
            before=before.mode.value,
            now=mode.value,
        )
