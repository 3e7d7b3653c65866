"""Failed logins are read on a connection of their own, from every back end, late ones too, whatever fails in
between.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import time

import pytest

from event_handler.errors import ConnectError, StateError
from event_handler.runtime import login_watch
from event_handler.runtime.lockout import LockSettings, LoginLockout
from event_handler.runtime.login_watch import LoginWatch
from event_handler.state.sqlite import SqliteStore
from event_handler.teleport.wire.messages import write_time
from tests.support.events import wire
from tests.support.scripted_cluster import ScriptedClient
from tests.support.waiting import until


class Cluster(ScriptedClient):
    """Notes the users that are locked."""

    def __init__(self) -> None:
        super().__init__()
        self.locked: list[str] = []
        self.closed = 0

    async def upsert_lock(self, name: str, *, user: str, login: str, message: str, expires: float) -> None:
        self.locked.append(user)

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_watch, "POLL", 0.01)
    monkeypatch.setattr(login_watch, "POLL_BULK", 0.01)
    monkeypatch.setattr(login_watch, "SWEEP_EVERY", 0.05)
    monkeypatch.setattr(login_watch, "LONGEST_LOGIN_WAIT", 0.02)


def failures(user: str, count: int, ago: float = 10.0) -> list[bytes]:
    moments = [time() - ago + number / 100 for number in range(count)]
    names = [f"{user}-{number}-{ago}" for number in range(count)]
    return [
        write_time(3, at) + wire(name, "user.login", user=user, success=False)
        for at, name in zip(moments, names, strict=True)
    ]


def lockout(store: SqliteStore, count: int = 3) -> LoginLockout:
    return LoginLockout(LockSettings(count, 60.0, 0.0), store)


@asynccontextmanager
async def watching(connect: Callable[[], Cluster], watcher: LoginLockout) -> AsyncIterator[LoginWatch]:
    watch = LoginWatch(connect, watcher)
    running = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("bulk", [True, False])
async def test_fifty_of_fifty_failed_logins_are_seen(bulk: bool) -> None:
    client, store = Cluster(), SqliteStore(None)
    client.bulk = bulk
    client.log = failures("alice", 49)
    async with watching(lambda: client, lockout(store, 50)) as watch:
        await until(lambda: len(client.searched) > 3)
        assert client.locked == []
        client.log += failures("alice", 1, 9.0)
        await until(lambda: client.locked == ["alice"])
        await watch.finish(20.0)
    assert client.locked == ["alice"]


async def test_a_login_that_appears_late_is_counted() -> None:
    client, store = Cluster(), SqliteStore(None)
    client.log = failures("alice", 2, 290.0) + failures("bob", 1, 1.0)
    async with watching(lambda: client, lockout(store)):
        await until(lambda: len(client.searched) > 3)
        client.log += failures("alice", 1, 291.0)
        await until(lambda: client.locked == ["alice"])


async def test_whatever_fails_the_watch_goes_on_and_counts_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    client, store = Cluster(), SqliteStore(None)
    faults: list[Exception] = [
        ConnectError("away"),
        StateError("disk"),
        ZeroDivisionError(),
        AttributeError("library"),
        OSError(5),
    ]
    watcher = lockout(store)
    observe = watcher.observe

    async def failing(wires: list[bytes]) -> None:
        await observe(wires)
        if faults:
            raise faults.pop()

    monkeypatch.setattr(watcher, "observe", failing)
    client.breaks["search"] = ["UNAVAILABLE", "INTERNAL", "RESOURCE_EXHAUSTED"]
    client.log = failures("alice", 2)
    async with watching(lambda: client, watcher):
        await until(lambda: not faults and len(client.searched) > 12)
        assert client.locked == []
        assert client.closed >= 8
        client.log += failures("alice", 1, 9.0)
        await until(lambda: client.locked == ["alice"])


async def test_after_a_restart_what_was_counted_counts_once() -> None:
    client, store = Cluster(), SqliteStore(None)
    client.log = failures("alice", 2)
    for _ in range(3):
        async with watching(lambda: client, lockout(store)) as watch:
            await watch.finish(20.0)
    assert client.locked == []
    client.log += failures("alice", 1, 9.0)
    for _ in range(3):
        async with watching(lambda: client, lockout(store)) as watch:
            await watch.finish(20.0)
    assert client.locked == ["alice"]


async def test_where_a_search_is_a_costly_query_it_is_made_every_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_watch, "POLL_BULK", 3600.0)
    costly, cheap = Cluster(), Cluster()
    cheap.bulk = False
    async with (
        watching(lambda: costly, lockout(SqliteStore(None))),
        watching(lambda: cheap, lockout(SqliteStore(None))),
    ):
        await until(lambda: len(cheap.searched) > 5)
    assert len(costly.searched) == 1


async def test_the_end_does_not_wait_for_ever_for_a_cluster_that_is_away() -> None:
    def away() -> Cluster:
        raise ConnectError("away")

    async with watching(away, lockout(SqliteStore(None))) as watch, asyncio.timeout(20):
        await watch.finish(0.05)
