"""`start`: builds a worker for each sink from the settings and runs them until a signal comes or, if asked, all is
delivered.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import monotonic, time
from typing import Any, TypeVar

import structlog

from event_handler import about
from event_handler.cli.introduction import introduction
from event_handler.cli.listening import export_options, listen_options, local_socket
from event_handler.config.model import StartSettings, settings_shown
from event_handler.errors import ConfigurationError, EventHandlerError, StateError, StorageError
from event_handler.go_plugin.import_state import import_state
from event_handler.kubernetes.lease import LeaseMembership
from event_handler.pipeline.filters import Filter
from event_handler.pipeline.select import ANNOUNCING
from event_handler.ports import Membership, StateStore
from event_handler.runtime.access import Access, addresses, wait_for_credentials
from event_handler.runtime.lockout import LockSettings, LoginLockout
from event_handler.runtime.login_watch import LoginWatch
from event_handler.runtime.replicas import Alone, Telling, in_turn, join, lease_api, wait_for_turn
from event_handler.runtime.reporting import Reporter
from event_handler.runtime.reread import before_reading
from event_handler.runtime.service_manager import ServiceManager
from event_handler.runtime.session import FollowSettings, day_being_read
from event_handler.runtime.shared_reading import SharedReading
from event_handler.runtime.sinks import PlannedSink, planned_sinks
from event_handler.runtime.state_bucket import S3Bucket
from event_handler.runtime.supervise import log_error, supervise
from event_handler.runtime.worker import ERRORS_OF_THE_CLUSTER, KeptWorker
from event_handler.state.bucket import BucketStore, is_bucket, object_of, read_only
from event_handler.state.directory import migrate_layout, state_directory
from event_handler.state.moving import copy_into_memory
from event_handler.state.postgresql.replica import Replica
from event_handler.state.postgresql.session import is_database, shown_place
from event_handler.state.postgresql.store import PostgresStore
from event_handler.state.sqlite import FILE, SqliteStore
from event_handler.tap import Tap
from event_handler.telemetry.listener import Listener
from event_handler.telemetry.logs import on_terminal, say
from event_handler.telemetry.otlp import Exporter
from event_handler.telemetry.progress_line import show_progress
from event_handler.telemetry.summary import seconds_left
from event_handler.teleport.auth.credentials import Credentials
from event_handler.teleport.auth.renewal import CredentialsKeeper
from event_handler.teleport.transport import split_address, srv
from event_handler.teleport.wire.decode import COMPILED

OPEN_AGAIN_AFTER = 1.0  # seconds; joining again has pauses of its own
REPORT_EVERY = 60.0  # seconds between counter lines, as the Go plugin prints them
ARRAY = 'Where the receiver takes arrays, fluentd-format = "array" costs a seventh of the CPU (docs/sinks.md).'
LOGINS_READ_WITHIN = 60.0  # seconds; with `exit-on-last-event` the failed logins are read to the end as well
SEARCH_POLL = 2.0  # seconds; an idle log is searched at that pace at least, and events are late by half of it
STANDS_BY_AFTER = 0.5  # seconds of waiting to take part, after which it tells of itself while it waits
BULK_POLL = 10.0  # seconds; a chunk appears about once a minute, and each listing lists a bucket on the server

R = TypeVar("R")

log = structlog.get_logger()


def run(settings: StartSettings, warnings: Sequence[str]) -> None:
    """Run until done. Raises EventHandlerError."""
    try:
        planned = planned_sinks(settings)
        for given, address in zip(settings.teleport_addr, addresses(settings), strict=True):
            if "://" in given:
                log.warning(
                    "teleport.addr is host:port, not a URL; the scheme and the path are left out", address=address
                )
        keeper = asyncio.run(_credentials(settings))
        if keeper is None:
            return
        access = Access(settings, keeper)
        if on_terminal() and not settings.debug:
            say("\n".join(introduction(settings, planned, keeper.current)))
        else:
            log.info(
                "starting",
                build=about.line(),
                decoder="compiled" if COMPILED else "python",
                teleport=",".join(addresses(settings)),
                cluster=keeper.current.cluster,
                identity_expires=keeper.current.not_after.isoformat(),
                storage=shown_place(settings.storage),
                sinks=",".join(plan.sink.name for plan in planned),
            )
            log.info("settings", **settings_shown(settings))
        _log_settings(settings, planned)
    finally:  # also before an error, which they may explain
        for warning in warnings:
            log.warning(warning)
    asyncio.run(_run(settings, planned, access, keeper))


async def _credentials(settings: StartSettings) -> CredentialsKeeper | None:
    """The credentials as soon as they are valid, None when a signal came before. Raises as `wait_for_credentials`."""
    stopping = asyncio.create_task(_signalled())
    waiting = asyncio.create_task(wait_for_credentials(settings))
    await asyncio.wait([stopping, waiting], return_when=asyncio.FIRST_COMPLETED)
    for task in (stopping, waiting):
        task.cancel()
    _, keeper = await asyncio.gather(stopping, waiting, return_exceptions=True)
    if isinstance(keeper, asyncio.CancelledError):
        log.info("Successfully shut down")
        return None
    if isinstance(keeper, BaseException):
        raise keeper
    return keeper


def _log_settings(settings: StartSettings, planned: Sequence[PlannedSink]) -> None:
    for plan in planned:
        if plan.sink.limits.events == 1:
            log.info("each event is sent in a request of its own", sink=plan.sink.name, next_step=ARRAY)
    if is_bucket(settings.storage):
        log.info(
            "the state is written into the bucket again and again; a crash repeats what was delivered since",
            storage=shown_place(settings.storage),
            seconds=settings.storage_interval,
        )
    if settings.dry_run:
        log.warning("dry run: nothing is delivered and nothing remembered")
    if settings.exit_on_last_event:
        log.warning("will stop when everything is delivered")


@asynccontextmanager
async def _stores(
    settings: StartSettings, planned: Sequence[PlannedSink], cluster: str, membership: Membership
) -> AsyncIterator[list[StateStore]]:
    """The state of each sink, closed at the end. Raises StateError."""
    opened: list[StateStore] = []
    try:
        for plan in planned:
            opened.append(await _open(settings, cluster, plan.sink.name, membership))
        yield opened
    finally:
        for finished in await asyncio.gather(*(store.finish() for store in opened), return_exceptions=True):
            if isinstance(finished, BaseException):
                log.error("what was delivered last is not remembered, and is sent again", error=str(finished))
        for store in opened:
            store.close()


async def _open(settings: StartSettings, cluster: str, sink: str, membership: Membership) -> StateStore:
    if is_database(settings.storage):
        if settings.dry_run:
            return await copy_into_memory(settings.storage, cluster, sink)
        return await PostgresStore.open(settings.storage, cluster, sink, membership.epoch, membership.lost)
    if is_bucket(settings.storage):
        bucket, name = S3Bucket(settings.storage), object_of(cluster, sink)
        if settings.dry_run:
            return await read_only(bucket, name) or SqliteStore(None)
        counter, epoch = membership.counter, membership.epoch
        return await BucketStore.open(
            bucket, name, settings.storage_interval, membership.lost, counter=counter, epoch=epoch
        )
    storage = Path(settings.storage)
    directory = state_directory(storage, cluster, sink)
    if settings.dry_run:
        return SqliteStore(None, copy_from=directory / FILE)
    if sink == "fluentd":  # the only sink that there was when state was kept by address
        migrate_layout(storage, directory, _hosts(settings))
    return SqliteStore(directory, begin_known=settings.start_time is not None)


async def _prepare(store: StateStore, settings: StartSettings, cluster: str, plan: PlannedSink) -> None:
    """Make sure that the state may be used for this cluster, and take over what there was before it."""
    if not settings.dry_run:
        await store.claim(cluster)
    in_directory = not is_database(settings.storage) and not is_bucket(settings.storage)
    if plan.sink.name == "fluentd" and in_directory:  # the only one that the plugin delivers to
        await import_state(store, Path(settings.storage), _hosts(settings), settings.start_time)
    await before_reading(store, plan.sink.name, plan.filters.lists(), settings.reread_from)


def _hosts(settings: StartSettings) -> list[tuple[str, int]]:
    return [split_address(address) for address in addresses(settings) if not srv.is_service(address)]


async def _start_time(settings: StartSettings, store: StateStore, sink: str) -> float:
    """Where reading began: remembered on the first run, and not to be changed afterwards."""
    asked = settings.start_time.timestamp() if settings.start_time else None
    new = await store.start() is None
    begin = await store.begin(asked)
    if new:
        log.info(
            "no position in the storage: beginning at the start time",
            sink=sink,
            storage=shown_place(settings.storage),
            start_time=datetime.fromtimestamp(begin, UTC).isoformat(),
            chosen_by="start-time" if asked is not None else "the clock: events before now are not read",
        )
    if asked is not None and int(asked) != begin:
        began = datetime.fromtimestamp(begin, UTC).isoformat()
        raise StorageError(
            f"--start-time differs from the one this storage began with ({began})",
            "Leave --start-time out to go on, or name another --storage to start over.",
        )
    return begin


async def _follow_settings(
    settings: StartSettings, plan: PlannedSink, store: StateStore, cluster: str
) -> FollowSettings:
    recordings = not settings.no_session_recordings and not settings.dry_run
    types = Filter(plan.filters.types).exact_types()  # the server knows neither patterns nor codes
    needed = ANNOUNCING if recordings else ()
    return FollowSettings(
        cluster=cluster,
        start=await _start_time(settings, store, plan.sink.name),
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


def _login_watch(settings: StartSettings, store: StateStore, access: Access) -> LoginWatch | None:
    """One for all sinks, or each failure would count several times; `store` remembers what it has counted."""
    if not settings.lock_enabled or settings.dry_run:
        return None
    count, period, duration = settings.lock_failed_attempts_count, settings.lock_period, settings.lock_for
    return LoginWatch(access.connect, LoginLockout(LockSettings(count, period, duration, settings.lock_exempt), store))


async def _run(
    settings: StartSettings, planned: Sequence[PlannedSink], access: Access, keeper: CredentialsKeeper
) -> None:
    membership = _membership(settings, keeper.current.cluster)
    stopping = asyncio.create_task(_signalled())
    try:
        while await _joined(settings, keeper, membership, stopping):
            try:
                await _work(settings, planned, access, keeper, membership, stopping)
            except StateError as error:
                if not membership.lost.is_set():
                    if isinstance(error, StorageError) or not is_database(settings.storage):
                        raise
                    log.warning("cannot use the storage, will try again", error=str(error))
                    await _begin_again(planned, membership)
                    planned = planned_sinks(settings)
                    continue
                log.warning("the state is another process's now", error=str(error))
            if stopping.done() or not membership.lost.is_set():
                break
            log.warning("this replica was taken out, or its state went back; it begins again", epoch=membership.epoch)
            planned = planned_sinks(settings)
    finally:
        stopping.cancel()
        await membership.leave()
    log.info("Successfully shut down")


async def _begin_again(planned: Sequence[PlannedSink], membership: Membership) -> None:
    """The database was away while the states were opened: give back what this replica has, and pause."""
    for plan in planned:
        await plan.sink.close()
    await membership.leave()
    await asyncio.sleep(OPEN_AGAIN_AFTER)


def _membership(settings: StartSettings, cluster: str) -> Membership:
    """How this process is one of several. Raises ConfigurationError."""
    if settings.dry_run:
        return Alone(shown_place(settings.storage))
    if is_database(settings.storage):
        if settings.lease != "none":
            raise ConfigurationError(
                "lease is set, and the state is in a database, where replicas share the work without one",
                "Leave lease out.",
            )
        return Replica(settings.storage, cluster)
    if settings.lease == "kubernetes":
        return LeaseMembership(lease_api(settings, cluster))
    return Alone(shown_place(settings.storage))


async def _joined(
    settings: StartSettings, keeper: CredentialsKeeper, membership: Membership, stopping: asyncio.Task[None]
) -> bool:
    """Wait until this process may work; return whether it may, and no signal to stop has come.

    While it waits it answers health checks and keeps its credentials new. Raises StorageError.
    """
    joining = asyncio.create_task(join(membership))
    beside: list[asyncio.Task[None]] = []
    try:
        await asyncio.wait([joining, stopping], timeout=STANDS_BY_AFTER, return_when=asyncio.FIRST_COMPLETED)
        if not joining.done() and not stopping.done():
            beside = _standing_by(settings, keeper, membership)
            await asyncio.wait([joining, stopping, beside[0]], return_when=asyncio.FIRST_COMPLETED)
            if beside[0].done():  # by an error only: the port cannot be had
                await beside[0]
        if joining.done():
            await joining
        return joining.done() and not stopping.done()
    finally:
        for task in (joining, *beside):
            task.cancel()
        await asyncio.gather(joining, *beside, return_exceptions=True)


def _standing_by(
    settings: StartSettings, keeper: CredentialsKeeper, membership: Membership
) -> list[asyncio.Task[None]]:
    """What runs meanwhile, the listener first."""

    async def renew(_: Credentials) -> None:
        """There is no connection that they would have to get into."""

    reporter = Reporter(
        [], None, keeper, start=time(), storage=settings.storage, standing_by=lambda: membership.standing_by
    )
    # In a directory that they share, the socket is of the one at work.
    apart = is_bucket(settings.storage) or is_database(settings.storage)
    socket = local_socket(settings, keeper.current.cluster) if apart else None
    listener = Listener(reporter.report, Tap(), listen_options(settings), socket)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, keeper.look_now)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: None)  # there is nothing to count
    return [
        asyncio.create_task(listener.run()),
        asyncio.create_task(supervise("the watch for renewed credentials", partial(keeper.watch, renew))),
    ]


async def _unless(ends: Sequence[asyncio.Task[Any]], work: Coroutine[Any, Any, R]) -> R | None:
    """The result of `work`, None when one of the others ended before; it is cancelled then."""
    working = asyncio.create_task(work)
    try:
        await asyncio.wait([working, *ends], return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def _work(
    settings: StartSettings,
    planned: Sequence[PlannedSink],
    access: Access,
    keeper: CredentialsKeeper,
    membership: Membership,
    stopping: asyncio.Task[None],
) -> None:
    cluster = keeper.current.cluster
    lost = asyncio.create_task(membership.lost.wait())
    telling = Telling()  # from now on: to take over a large state may take longer than a sign of life holds
    beat = supervise("the signs of life of this replica", partial(membership.run, telling))
    beating = asyncio.create_task(beat)
    try:
        async with _stores(settings, planned, cluster, membership) as stores:
            plans = await _unless([stopping, lost], _plans(settings, planned, stores, cluster))
            if plans is not None:
                await _deliver(settings, plans, access, keeper, membership, telling, stopping)
    finally:
        for task in (lost, beating):
            task.cancel()
        await asyncio.gather(lost, beating, return_exceptions=True)


async def _plans(
    settings: StartSettings, planned: Sequence[PlannedSink], stores: Sequence[StateStore], cluster: str
) -> list[tuple[PlannedSink, StateStore, FollowSettings]]:
    """Each sink with its state, which is ready to be used, and how it is read for."""
    plans = []
    for plan, store in zip(planned, stores, strict=True):
        await wait_for_turn(store, "start")  # or each replica would say where it begins
        await _prepare(store, settings, cluster, plan)
        plans.append((plan, store, await _follow_settings(settings, plan, store, cluster)))
        await store.end_turn("start")
    return plans


async def _deliver(
    settings: StartSettings,
    plans: list[tuple[PlannedSink, StateStore, FollowSettings]],
    access: Access,
    keeper: CredentialsKeeper,
    membership: Membership,
    telling: Telling,
    stopping: asyncio.Task[None],
) -> None:
    shared = SharedReading(access.connect, plans[0][2], len(plans)) if len(plans) > 1 else None
    tap = Tap()
    workers = [
        KeptWorker(plan, store, access.connect, follow, settings.max_in_flight_bytes, shared, None if number else tap)
        for number, (plan, store, follow) in enumerate(plans)
    ]
    start = min(follow.start for _, _, follow in plans)
    reporter = Reporter(
        workers,
        shared,
        keeper,
        start=start,
        storage=settings.storage,
        listener_certificate=settings.listen_cert,
        replicas=lambda: membership.seen,
    )
    telling.report = reporter.report
    socket = None if settings.dry_run else local_socket(settings, keeper.current.cluster)
    listener = Listener(reporter.report, tap, listen_options(settings), socket)
    export = export_options(settings)
    windows = Windows(reporter, listener, Exporter(reporter.report, export) if export else None)
    watch = _login_watch(settings, plans[0][1], access)
    try:
        await _follow(workers, shared, watch, access, keeper, windows, settings.shutdown_timeout, membership, stopping)
    finally:
        await _log(workers)


@dataclass(frozen=True, slots=True)
class Windows:
    """Through which others look into the process."""

    reporter: Reporter
    listener: Listener
    exporter: Exporter | None


async def _follow(
    workers: list[KeptWorker],
    shared: SharedReading | None,
    watch: LoginWatch | None,
    access: Access,
    keeper: CredentialsKeeper,
    windows: Windows,
    shutdown_timeout: float,
    membership: Membership,
    stopping: asyncio.Task[None],
) -> None:
    """Read and deliver until all workers are done, the cluster turns out to be a wrong one, or a signal comes."""

    async def renew(newer: Credentials) -> None:
        for worker in workers:
            await worker.renew(lambda: access.connect(newer))
        if shared is not None:
            await shared.renew(access.connect(newer))

    reporter = windows.reporter
    running = {asyncio.create_task(worker.run()): worker for worker in workers}
    reading = [asyncio.create_task(shared.run())] if shared is not None else []
    manager = ServiceManager()
    beside = [
        asyncio.create_task(supervise("the report of counters", partial(_report, workers, reporter))),
        asyncio.create_task(supervise("the service manager", partial(manager.run, reporter.report))),
        asyncio.create_task(supervise("the watch for renewed credentials", partial(keeper.watch, renew))),
    ]
    if on_terminal():
        beside.append(asyncio.create_task(supervise("the progress line", partial(show_progress, reporter.report))))
    if windows.exporter is not None:
        beside.append(asyncio.create_task(supervise("the export of telemetry", windows.exporter.run)))
    if watch is not None:
        watching = partial(in_turn, workers[0].store, "logins", watch.run)
        beside.append(asyncio.create_task(supervise("locking users", watching)))
    lost = asyncio.create_task(membership.lost.wait())
    serving = asyncio.create_task(windows.listener.run())
    hang_up = asyncio.Event()
    beside.append(
        asyncio.create_task(supervise("reading files again", partial(_reload, hang_up, workers, keeper, manager)))
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hang_up.set)
    asked = asyncio.Event()
    beside.append(asyncio.create_task(supervise("the counters on request", partial(_log_when, asked, workers))))
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, asked.set)
    try:
        await _until_done([*reading, *running], watch, stopping, serving, lost)
    finally:
        taken_out = membership.lost.is_set()
        if not taken_out:
            manager.stopping()
        for task, worker in running.items():
            worker.stop(task, 0.0 if taken_out else shutdown_timeout)  # what it remembers now is refused
        for task in reading:
            task.cancel()
        read = await asyncio.gather(*reading, return_exceptions=True)
        ended = await asyncio.gather(*running, return_exceptions=True)
        for task in (serving, *beside):
            task.cancel()
        lost.cancel()
        served = await asyncio.gather(serving, return_exceptions=True)
        await asyncio.gather(lost, *beside, return_exceptions=True)
    if taken_out:
        return
    if not all(worker.drained for worker in workers):
        log.warning("stopped with events in flight; they are sent again at the next start", waited_s=shutdown_timeout)
    names = ["the listener", *["the reading for all sinks"] * len(read), *(worker.sink.name for worker in workers)]
    ends = zip(names, [*served, *read, *ended], strict=True)
    _raise_failure({name: error for name, error in ends if isinstance(error, Exception)})


async def _until_done(
    reading: list[asyncio.Task[None]],
    watch: LoginWatch | None,
    stopping: asyncio.Task[None],
    serving: asyncio.Task[None],
    lost: asyncio.Task[Any],
) -> None:
    """Wait for all workers, then for failed logins; `serving` ends by a failure only.

    Not longer than to the signal to stop, until the other replicas have taken this one out, or to an error that
    concerns them all.
    """
    left: set[asyncio.Task[Any]] = {*reading, stopping, serving, lost}
    while stopping in left and len(left) > 3:
        done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        failed = [task.exception() for task in done if task not in (stopping, lost)]
        if serving in done or lost in done or any(isinstance(error, ERRORS_OF_THE_CLUSTER) for error in failed):
            return
    if watch is not None and not stopping.done():
        finishing = asyncio.create_task(watch.finish(LOGINS_READ_WITHIN))
        await asyncio.wait([finishing, stopping], return_when=asyncio.FIRST_COMPLETED)
        finishing.cancel()


def _raise_failure(failed: dict[str, Exception]) -> None:
    """Raise for what ended by an error, by its name, what the user shall read at the end."""
    for error in failed.values():
        if isinstance(error, ERRORS_OF_THE_CLUSTER):
            raise error
    if failed:
        reasons = "; ".join(f"{name}: {_reason(error)}" for name, error in failed.items())
        raise EventHandlerError(
            f"not everything was delivered ({reasons})",
            "What is missing comes with the next start. Log level debug shows where a fault is.",
        )


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, EventHandlerError) else f"{type(error).__name__}: {error}"


async def _reload(
    hang_up: asyncio.Event, workers: list[KeptWorker], keeper: CredentialsKeeper, manager: ServiceManager
) -> None:
    """After each SIGHUP: files may have been renewed or moved away."""
    while True:
        await hang_up.wait()
        hang_up.clear()
        manager.reloading()
        log.info("reading credentials and TLS files again, opening files again", signal="SIGHUP")
        keeper.look_now()
        for worker in workers:
            try:
                await worker.sink.reopen()
            except Exception as error:  # of one sink; the others are opened all the same
                log_error("files cannot be opened again", error, sink=worker.sink.name)


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


async def _report(workers: list[KeptWorker], reporter: Reporter) -> None:
    """One line a minute: how much, how far, how far behind, and how long that still takes."""
    events, sessions, at = 0, 0, monotonic()
    earlier = await reporter.report()
    while True:
        await asyncio.sleep(REPORT_EVERY)
        for worker in workers:
            worker.end_minute()
        report = await reporter.report()
        left = seconds_left(earlier, report)
        minutes = (monotonic() - at) / 60
        now_events = sum(worker.audit.delivered for worker in workers)
        now_sessions = sum(worker.recordings.delivered for worker in workers)
        dates = [day for worker in workers if (day := await day_being_read(worker.store))]
        log.info(
            "Event processing",
            events_per_minute=round((now_events - events) / minutes),
            sessions_per_minute=round((now_sessions - sessions) / minutes),
            date=min(dates, default=""),
            lag_s=None if report.lag is None else round(report.lag),
            backlog_left_s=None if left is None else round(left),
        )
        events, sessions, at, earlier = now_events, now_sessions, monotonic(), report


async def _log_when(asked: asyncio.Event, workers: list[KeptWorker]) -> None:
    """After each SIGUSR1."""
    while True:
        await asked.wait()
        asked.clear()
        await _log(workers)


async def _log(workers: list[KeptWorker]) -> None:
    for worker in workers:
        log.info("delivered", **await worker.facts())
