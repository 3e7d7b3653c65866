"""`start`: builds a line for each sink from the settings and runs them until a signal comes or, if asked, all is delivered."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import structlog

from event_handler import about
from event_handler.cli.access import Access, keep_credentials
from event_handler.cli.line import Line, open_line
from event_handler.cli.sinks import PlannedSink, planned_sinks
from event_handler.errors import EventHandlerError, StateError, StorageError
from event_handler.pipeline.filters import Filter
from event_handler.pipeline.select import ANNOUNCING
from event_handler.settings.model import StartSettings, options, shown
from event_handler.sources.follow import FollowSettings, export_date
from event_handler.sources.locks import LockSettings, LoginGuard
from event_handler.sources.login_watch import LoginWatch
from event_handler.sources.reread import before_reading
from event_handler.sources.take_over import take_over
from event_handler.state.directory import adopt, state_directory
from event_handler.state.store import FILE, Store
from event_handler.teleport.decode import COMPILED
from event_handler.teleport.dial import split_address
from event_handler.teleport.renewal import CredentialsKeeper

REPORT_EVERY = 60.0  # seconds between counter lines, as the Go plugin prints them
LOGINS_READ_WITHIN = 60.0  # seconds; with `exit-on-last-event` the failed logins are read to the end as well
SEARCH_POLL = 2.0  # seconds; an idle log is searched at that pace at least, and events are late by half of it
BULK_POLL = 10.0  # seconds; a chunk appears about once a minute, and each listing lists a bucket on the server

log = structlog.get_logger()


def run(settings: StartSettings, warnings: Sequence[str]) -> None:
    """Run until done. Raises EventHandlerError."""
    try:
        keeper = keep_credentials(settings)
        access = Access(settings, keeper)
        planned = planned_sinks(settings)
        log.info(
            "starting",
            build=about.line(),
            decoder="compiled" if COMPILED else "python",
            teleport=",".join(settings.teleport_addr),
            cluster=keeper.current.cluster,
            identity_expires=keeper.current.not_after.isoformat(),
            storage=settings.storage,
            sinks=",".join(plan.sink.name for plan in planned),
            format=settings.fluentd_format,
        )
        _tell_settings(settings)
    finally:  # also before an error, which they may explain
        for warning in warnings:
            log.warning(warning)
    with _stores(settings, planned, keeper.current.cluster) as stores:
        asyncio.run(_run(settings, list(zip(planned, stores, strict=True)), access, keeper))


def _tell_settings(settings: StartSettings) -> None:
    """What differs from its default, as a user would write it."""
    chosen = {name: value for name, value in settings if value != StartSettings.model_fields[name].default}
    log.info("settings", **{name: shown(option, chosen[name]) for name, option in options().items() if name in chosen})
    if settings.dry_run:
        log.warning("dry run: nothing is delivered and nothing remembered")
    if settings.exit_on_last_event:
        log.warning("will stop when everything is delivered")


@contextmanager
def _stores(settings: StartSettings, planned: Sequence[PlannedSink], cluster: str) -> Iterator[list[Store]]:
    """The state of each sink, closed at the end. Raises StateError."""
    opened: list[Store] = []
    try:
        for plan in planned:
            opened.append(_store(settings, cluster, plan.sink.name))
            before_reading(opened[-1], plan.sink.name, plan.filters.lists(), settings.reread_from)
        yield opened
    finally:
        for store in opened:
            store.close()


def _store(settings: StartSettings, cluster: str, sink: str) -> Store:
    storage = Path(settings.storage)
    directory = state_directory(storage, cluster, sink)
    addresses = [split_address(address.strip()) for address in settings.teleport_addr]
    if settings.dry_run:
        store = Store(None, copy_from=directory / FILE)
    else:
        if sink == "fluentd":  # the only sink that there was when state was kept by address
            adopt(storage, directory, addresses)
        store = Store(directory, begin_known=settings.start_time is not None)
        store.claim(cluster)
    if sink == "fluentd":  # the only one that the Go plugin delivers to
        take_over(store, storage, addresses, settings.start_time)
    return store


def _start_time(settings: StartSettings, store: Store) -> float:
    """Where reading began: remembered on the first run, and not to be changed afterwards."""
    asked = settings.start_time.timestamp() if settings.start_time else None
    begin = store.begin(asked)
    if asked is not None and int(asked) != begin:
        began = datetime.fromtimestamp(begin, UTC).isoformat()
        raise StorageError(
            f"--start-time differs from the one this storage began with ({began})",
            "Leave --start-time out to go on, or name another --storage to start over.",
        )
    return begin


def _follow_settings(settings: StartSettings, plan: PlannedSink, store: Store, cluster: str) -> FollowSettings:
    recordings = not settings.no_session_recordings and not settings.dry_run
    types = Filter(plan.filters.types).exact_types()  # the server knows neither patterns nor codes
    needed = ANNOUNCING if recordings else ()
    return FollowSettings(
        cluster=cluster,
        start=_start_time(settings, store),
        window=settings.window_size,
        page=settings.batch,
        types=tuple(dict.fromkeys((*types, *needed))) if types else (),  # or the filter would turn recordings off
        look_back=settings.look_back,
        search_poll=settings.poll_interval or min(settings.timeout, SEARCH_POLL),
        bulk_poll=settings.poll_interval or BULK_POLL,
        late_days=settings.late_days,
        concurrency=settings.concurrency,
        missing_ttl=settings.missing_recording_ttl,
        recordings=recordings,
        startup_timeout=settings.startup_timeout,
        exit_on_last_event=settings.exit_on_last_event,
    )


def _login_watch(settings: StartSettings, store: Store, access: Access) -> LoginWatch | None:
    """One for all sinks, or each failure would count several times; `store` remembers what it has counted."""
    if not settings.lock_enabled or settings.dry_run:
        return None
    count, period, duration = settings.lock_failed_attempts_count, settings.lock_period, settings.lock_for
    return LoginWatch(access.connect, LoginGuard(LockSettings(count, period, duration, settings.lock_exempt), store))


async def _run(settings: StartSettings, jobs: list[tuple[PlannedSink, Store]], access: Access, keeper: CredentialsKeeper) -> None:
    async with AsyncExitStack() as stack:
        lines: list[Line] = []
        for plan, store in jobs:
            follow = _follow_settings(settings, plan, store, keeper.current.cluster)
            opened = open_line(plan.sink, store, plan.filters, access.connect, follow, settings.max_in_flight_bytes)
            lines.append(await stack.enter_async_context(opened))
        try:
            await _follow(lines, _login_watch(settings, jobs[0][1], access), keeper, settings.shutdown_timeout)
        finally:
            _tell(lines)
    log.info("Successfully shut down")


async def _follow(lines: list[Line], watch: LoginWatch | None, keeper: CredentialsKeeper, shutdown_timeout: float) -> None:
    """Read and deliver until all lines are done, one fails for good, or a signal comes."""

    async def renew() -> None:
        for line in lines:
            await line.follower.renew()

    following = asyncio.create_task(_read_all(lines, watch))
    stopping = asyncio.create_task(_signalled())
    beside = [asyncio.create_task(_report(lines)), asyncio.create_task(keeper.watch(renew))]
    if watch is not None:
        beside.append(asyncio.create_task(watch.run()))

    def look_again() -> None:
        beside.append(asyncio.create_task(_look_again(lines, keeper)))

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, look_again)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _tell, lines)
    try:
        await asyncio.wait([following, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped = stopping.done()
        following.cancel()
        for task in (stopping, *beside):
            task.cancel()
        result = (await asyncio.gather(following, stopping, *beside, return_exceptions=True))[0]
    if stopped:
        finished = await asyncio.gather(*(line.finish(shutdown_timeout) for line in lines))
        if not all(finished):
            log.warning("stopped with events in flight; they are sent again at the next start", waited_s=shutdown_timeout)
    if isinstance(result, BaseException) and not (stopped and isinstance(result, asyncio.CancelledError)):
        raise _cause(result)


async def _read_all(lines: list[Line], watch: LoginWatch | None) -> None:
    async with asyncio.TaskGroup() as group:
        for line in lines:
            group.create_task(line.run())
    if watch is not None:
        await watch.finish(LOGINS_READ_WITHIN)


async def _look_again(lines: list[Line], keeper: CredentialsKeeper) -> None:
    """SIGHUP: files may have been renewed or moved away."""
    log.info("reading credentials and TLS files again, opening files anew", signal="SIGHUP")
    keeper.look_now()
    for line in lines:
        await line.sink.reopen()


def _cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and not isinstance(error, EventHandlerError):
        error = error.exceptions[0]
    return error


async def _signalled() -> None:
    """Return at the first SIGTERM or SIGINT; the second one ends the process at once."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def first(number: signal.Signals) -> None:
        for other in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(other)
            signal.signal(other, signal.SIG_DFL)
        log.info("stopping", signal=number.name)  # whoever reads it may send the second one
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, first, number)
    await stop.wait()


async def _report(lines: list[Line]) -> None:
    events, sessions, at = 0, 0, monotonic()
    while True:
        await asyncio.sleep(REPORT_EVERY)
        minutes = (monotonic() - at) / 60
        now_events = sum(line.audit.counters.delivered for line in lines)
        now_sessions = sum(line.recordings.counters.delivered for line in lines)
        dates = [date for line in lines if (date := export_date(line.store))]
        log.info("Event processing", events_per_minute=round((now_events - events) / minutes), date=min(dates, default=""))
        log.info("Session processing", sessions_per_minute=round((now_sessions - sessions) / minutes))
        events, sessions, at = now_events, now_sessions, monotonic()


def _tell(lines: list[Line]) -> None:
    for line in lines:
        log.info(
            "delivered",
            sink=line.sink.name,
            events=line.audit.counters.delivered,
            session_events=line.recordings.counters.delivered,
            duplicates_dropped=line.selector.duplicates,
            dead_letters=line.audit.counters.dead + line.recordings.counters.dead,
            dead_letters_kept=_letters_kept(line),
            retries=line.audit.retries + line.recordings.retries,
            requests_allowed=line.audit.requests_allowed + line.recordings.requests_allowed,
            failing=line.audit.failing or line.recordings.failing,
        )


def _letters_kept(line: Line) -> int | str:
    """How many dead letters there are now, whoever kept or dropped them."""
    try:
        return line.store.letter_totals()[0]
    except StateError:
        return "unknown"
