"""What runs beside the lines is begun again when it dies, and the end of a run names each sink that failed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator, MutableMapping, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from event_handler.config.model import StartSettings
from event_handler.errors import ConfigurationError, EventHandlerError, StateError
from event_handler.pipeline.batch import Batcher
from event_handler.pipeline.delivery import Delivery
from event_handler.ports import StateStore
from event_handler.report import Report
from event_handler.runtime import supervise
from event_handler.runtime.access import Access
from event_handler.runtime.replicas import Alone
from event_handler.runtime.reporting import Reporter
from event_handler.runtime.worker import KeptWorker
from event_handler.simulator.credentials import write_cluster_files
from event_handler.state.sqlite import SqliteStore
from event_handler.tap import Tap
from event_handler.telemetry.listener import Listener
from event_handler.teleport.auth.credentials import load
from event_handler.teleport.auth.renewal import CredentialsKeeper
from tests.support.sinks import ScriptedSink
from tests.support.waiting import until
from tests.unit.runtime.test_worker import ALL, a_cluster, a_line

start: Any = import_module("event_handler.cli.start")  # the package itself has the command under that name


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(start, "REPORT_EVERY", 0.01)


@pytest.fixture(autouse=True)
def signals_as_they_were() -> Iterator[None]:
    before = {
        number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def access_in(directory: Path) -> tuple[Access, CredentialsKeeper]:
    write_cluster_files(directory, "sim.test")
    settings = StartSettings(teleport_identity=str(directory / "identity"))
    keeper = CredentialsKeeper(lambda: load(str(directory / "identity"), "", "", ""), 0.01)
    return Access(settings, keeper), keeper


def nowhere() -> Listener:
    """A listener that listens nowhere."""

    async def report() -> Report:
        raise AssertionError("nobody asks")

    return Listener(report, Tap(), None, None)


def given(lines: Sequence[KeptWorker], directory: Path) -> tuple[Any, ...]:
    """What `_follow` gets."""
    access, keeper = access_in(directory)
    reporter = Reporter(lines, None, keeper, start=0.0, storage=str(directory))
    windows = start.Windows(reporter, nowhere(), None)
    stopping = asyncio.create_task(start._signalled())
    return list(lines), None, None, access, keeper, windows, 5.0, Alone(str(directory)), stopping


@asynccontextmanager
async def following(directory: Path, *lines: KeptWorker) -> AsyncIterator[list[MutableMapping[str, Any]]]:
    """Runs until a signal comes, which the body may send itself."""
    with capture_logs() as told:
        running = asyncio.create_task(start._follow(*given(lines, directory)))
        yield told
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running, 20)


def events(told: list[MutableMapping[str, Any]]) -> list[str]:
    return [line["event"] for line in told]


async def test_the_report_that_dies_is_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures, sane = [ZeroDivisionError("a fault of ours")], start.day_being_read

    async def odd(store: StateStore) -> str:
        if failures:
            raise failures.pop()
        return str(await sane(store))

    monkeypatch.setattr(start, "day_being_read", odd)
    async with following(tmp_path, await a_line(ScriptedSink(), a_cluster())) as told:
        await until(lambda: "Event processing" in events(told))
    assert events(told).count("the report of counters failed and is started again") == 1


async def test_the_watch_for_renewed_credentials_that_dies_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures, sane = [AttributeError("a fault of ours")], CredentialsKeeper._look

    def odd(keeper: CredentialsKeeper) -> None:
        if failures:
            raise failures.pop()
        sane(keeper)

    monkeypatch.setattr(CredentialsKeeper, "_look", odd)
    monkeypatch.setattr(Access, "connect", lambda *_: a_cluster())
    async with following(tmp_path, await a_line(ScriptedSink(), a_cluster())) as told:
        await until(lambda: not failures)
        write_cluster_files(tmp_path, "sim.test")
        await until(lambda: "credentials renewed" in events(told))
    assert events(told).count("the watch for renewed credentials failed and is started again") == 1


async def test_a_sink_whose_files_cannot_be_opened_again_leaves_the_others_and_the_next_sighup_alone(
    tmp_path: Path,
) -> None:
    reopened: list[str] = []

    class Failing(ScriptedSink):
        async def reopen(self) -> None:
            raise PermissionError(13, "Permission denied")

    class Reopening(ScriptedSink):
        async def reopen(self) -> None:
            reopened.append(self.name)

    async with following(
        tmp_path, await a_line(Failing(), a_cluster()), await a_line(sink := Reopening(), a_cluster())
    ) as told:
        await until(lambda: bool(sink.delivered))
        for number in (1, 2):
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda number=number: len(reopened) == number)  # type: ignore[misc]  # no type is inferred for a default
    assert events(told).count("files cannot be opened again") == 2


async def test_at_the_end_the_sink_that_failed_is_named_and_the_others_have_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bad(ScriptedSink):
        name = "bad"

    good, bad, sane = ScriptedSink(), Bad(), Delivery.run

    async def odd(self: Delivery, batcher: Batcher) -> None:
        if self.sink is bad:
            raise StateError("the disk is full")
        await sane(self, batcher)

    monkeypatch.setattr(Delivery, "run", odd)
    lines = [await a_line(sink, a_cluster(), exit_on_last_event=True) for sink in (bad, good)]
    with capture_logs(), pytest.raises(EventHandlerError) as caught:
        await asyncio.wait_for(start._follow(*given(lines, tmp_path)), 20)
    assert caught.value.message == "not everything was delivered (bad: the disk is full)"
    assert caught.value.exit_code == 1
    assert set(good.delivered) == {*ALL, "r1"}


async def test_a_signal_ends_the_wait_for_credentials(tmp_path: Path) -> None:
    with capture_logs() as told:
        waiting = asyncio.create_task(start._credentials(StartSettings(teleport_identity=str(tmp_path / "absent"))))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await asyncio.wait_for(waiting, 20) is None
    assert events(told) == ["stopping", "Successfully shut down"]


async def test_a_start_without_a_position_says_where_it_begins_and_the_next_one_does_not(tmp_path: Path) -> None:
    store = SqliteStore(None)
    settings = StartSettings(storage=str(tmp_path))
    with capture_logs() as told:
        begun = await start._start_time(settings, store, "fluentd")
        assert await start._start_time(settings, store, "fluentd") == begun
    (line,) = told
    assert line["event"] == "no position in the storage: beginning at the start time"
    assert line["storage"] == str(tmp_path)
    assert line["start_time"]


def test_a_lease_beside_a_database_is_refused() -> None:
    settings = StartSettings(storage="postgresql://handler@localhost/teleport", lease="kubernetes")
    with pytest.raises(ConfigurationError, match=r"lease is set, and the state is in a database.*Leave lease out"):
        start._membership(settings, "sim.test")
