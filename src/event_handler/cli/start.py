"""`start`: builds the line from the settings and runs it until a signal comes or, if asked, until everything is delivered."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, time

import structlog

from event_handler import __version__
from event_handler.errors import EventHandlerError, StateError
from event_handler.event import Event
from event_handler.pipeline.duplicates import DuplicateWindow
from event_handler.pipeline.engine import Pipeline
from event_handler.pipeline.select import ANNOUNCING, Selector
from event_handler.settings.model import StartSettings
from event_handler.sinks.base import Delivered, Limits, Sink, Verdict
from event_handler.sinks.fluentd import FluentdSettings, FluentdSink
from event_handler.sources.follow import Follower, FollowSettings
from event_handler.sources.take_over import take_over
from event_handler.state.directory import FILE, adopt, state_directory
from event_handler.state.store import Store
from event_handler.teleport import credentials
from event_handler.teleport.client import Client
from event_handler.teleport.connection import Connection
from event_handler.teleport.dial import Way, direct, split_address
from event_handler.teleport.entrance import Entrance
from event_handler.teleport.renewal import CredentialsKeeper
from event_handler.teleport.tls import client_context

REPORT_EVERY = 60.0  # seconds between counter lines, as the Go plugin prints them
SEARCH_POLL = 2.0  # seconds; an idle log is searched at that pace at least, and events are late by half of it
BULK_POLL = 10.0  # seconds; a chunk appears about once a minute, and each listing lists a bucket on the server

log = structlog.get_logger()


class DryRunSink:
    """Takes everything and sends nothing."""

    name = "dry-run"
    limits = Limits(500, 1_048_576, 1, 0.05)

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        return Delivered()

    async def close(self) -> None:
        return None


def run(settings: StartSettings, warnings: Sequence[str]) -> None:
    """Run until done. Raises EventHandlerError."""
    for warning in warnings:
        log.warning(warning)
    if settings.lock_enabled:
        log.error("lock-enabled is set, but this version does not lock users yet", next_step="keep the Go plugin for locks")
    keeper = CredentialsKeeper(
        lambda: _credentials(settings), settings.teleport_refresh_interval if settings.teleport_refresh_enabled else 0.0
    )
    signed_in = keeper.current
    signed_in.check_not_expired()
    log.info(
        "starting",
        version=__version__,
        teleport=",".join(settings.teleport_addr),
        cluster=signed_in.cluster,
        identity_expires=signed_in.not_after.isoformat(),
        storage=settings.storage,
        url=settings.fluentd_url,
        format=settings.fluentd_format,
    )
    addresses = [split_address(address.strip()) for address in settings.teleport_addr]
    sink = _sink(settings)
    store = _store(settings, signed_in.cluster, addresses)
    try:
        asyncio.run(_follow(settings, sink, store, keeper))
    finally:
        store.close()


def _store(settings: StartSettings, cluster: str, addresses: Sequence[tuple[str, int]]) -> Store:
    directory = state_directory(Path(settings.storage), cluster)
    if settings.dry_run:
        store = Store(None, copy_from=directory / FILE)
    else:
        adopt(directory, addresses)
        store = Store(directory)
        store.claim(cluster)
    take_over(store, directory.parent, addresses, settings.start_time)
    return store


def _credentials(settings: StartSettings) -> credentials.Credentials:
    return credentials.load(settings.teleport_identity, settings.teleport_cert, settings.teleport_key, settings.teleport_ca)


def _sink(settings: StartSettings) -> Sink:
    if settings.dry_run:
        return DryRunSink()
    return FluentdSink(
        FluentdSettings(
            settings.fluentd_url,
            settings.fluentd_session_url,
            settings.fluentd_ca,
            settings.fluentd_cert,
            settings.fluentd_key,
            settings.fluentd_format,
            settings.fluentd_max_connections or settings.concurrency * 2,
        )
    )


def _start_time(settings: StartSettings, store: Store) -> float:
    """Where reading began: remembered on the first run, and not to be changed afterwards."""
    saved = store.fact("start_time")
    asked = settings.start_time.timestamp() if settings.start_time else None
    if not saved:
        begin = float(int(asked if asked is not None else time()))
        store.remember("start_time", str(begin))
        return begin
    if asked is not None and asked != float(saved):
        began = datetime.fromtimestamp(float(saved), UTC).isoformat()
        raise StateError(
            f"--start-time differs from the one this storage began with ({began})",
            "Leave --start-time out to go on, or name another --storage to begin anew.",
        )
    return float(saved)


def _server_types(settings: StartSettings) -> tuple[str, ...]:
    """The types that the server is asked for: also those that announce recordings, or a filter would turn recordings off."""
    if not settings.types or settings.no_session_recordings:
        return settings.types
    return (*settings.types, *ANNOUNCING)


def _connect(entrance: Entrance, newest: credentials.Credentials) -> Client:
    newest.check_not_expired()
    return Client(Connection(entrance, client_context(newest)))


async def _follow(settings: StartSettings, sink: Sink, store: Store, keeper: CredentialsKeeper) -> None:
    window = DuplicateWindow()
    window.load(store.delivered_ids())
    selector = Selector(
        sink.name,
        window,
        types=settings.types,
        skip_types=settings.skip_event_types,
        skip_session_types=settings.skip_session_types,
    )
    follow = FollowSettings(
        cluster=keeper.current.cluster,
        start=_start_time(settings, store),
        window=settings.window_size,
        page=settings.batch,
        types=_server_types(settings),
        look_back=settings.look_back,
        search_poll=settings.poll_interval or min(settings.timeout, SEARCH_POLL),
        bulk_poll=settings.poll_interval or BULK_POLL,
        late_days=settings.late_days,
        concurrency=settings.concurrency,
        missing_ttl=settings.missing_recording_ttl,
        recordings=not settings.no_session_recordings and not settings.dry_run,
        startup_timeout=settings.startup_timeout,
        exit_on_last_event=settings.exit_on_last_event,
    )
    async with Pipeline(sink, store, selector, settings.max_in_flight_bytes) as line:
        entrance = Entrance([Way("direct", direct(address.strip())) for address in settings.teleport_addr])
        follower = Follower(lambda: _connect(entrance, keeper.current), line, store, follow)
        following = asyncio.create_task(follower.run())
        stopping = asyncio.create_task(_signalled())
        beside = [asyncio.create_task(_report(line)), asyncio.create_task(keeper.watch(follower.renew))]
        await asyncio.wait([following, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopped = stopping.done()
        for task in (following, stopping, *beside):
            task.cancel()
        await asyncio.gather(stopping, *beside, return_exceptions=True)
        if stopped:
            await _finish(line, settings.shutdown_timeout)
        result = (await asyncio.gather(following, return_exceptions=True))[0]
        _tell(line)
    if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
        raise _cause(result)
    log.info("Successfully shut down")


async def _finish(line: Pipeline, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await line.drain_all()
    except TimeoutError:
        log.warning("stopped with events in flight; they will be sent again at the next start", waited_s=seconds)


def _cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and not isinstance(error, EventHandlerError):
        error = error.exceptions[0]
    return error


async def _signalled() -> None:
    """Return at the first SIGTERM or SIGINT; the second one ends the process at once."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def first(number: signal.Signals) -> None:
        log.info("stopping", signal=number.name)
        for other in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(other)
            signal.signal(other, signal.SIG_DFL)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, first, number)
    await stop.wait()


async def _report(line: Pipeline) -> None:
    before, sessions, at = 0, 0, monotonic()
    while True:
        await asyncio.sleep(REPORT_EVERY)
        minutes = (monotonic() - at) / 60
        log.info("Event processing", events_per_minute=round((line.counters.delivered - before) / minutes))
        log.info("Session processing", sessions_per_minute=round((line.counters.session_events - sessions) / minutes))
        before, sessions, at = line.counters.delivered, line.counters.session_events, monotonic()


def _tell(line: Pipeline) -> None:
    log.info(
        "delivered",
        events=line.counters.delivered,
        session_events=line.counters.session_events,
        duplicates_dropped=line.duplicates,
        dead_letters=line.counters.dead,
        retries=line.counters.retries,
    )
