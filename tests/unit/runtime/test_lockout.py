"""Failed logins lock their user: at the configured count, by the time of the events, and never twice for the same
events.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from event_handler.errors import ConnectError, RpcError
from event_handler.runtime import lockout
from event_handler.runtime.lockout import LockSettings, LoginLockout
from event_handler.state.sqlite import SqliteStore
from event_handler.teleport.wire.messages import write_time
from tests.support.events import wire
from tests.unit.state.test_damage import OLD

NOW = 1_800_000_000.0


class Cluster:
    """Notes locks, or fails as told."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.locks: list[tuple[str, float]] = []

    async def upsert_lock(self, name: str, *, user: str, login: str, message: str, expires: float) -> None:
        if self.errors:
            raise self.errors.pop(0)
        assert message == "User is locked due to too many failed login attempts"
        self.locks.append((name, expires))


class RefusingCluster(Cluster):
    """Fails for one user, again and again."""

    async def upsert_lock(self, name: str, *, user: str, login: str, message: str, expires: float) -> None:
        if user == "cursed":
            raise RpcError("UpsertLock", "INTERNAL", "scripted fault")
        await super().upsert_lock(name, user=user, login=login, message=message, expires=expires)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made = SqliteStore(tmp_path)
    yield made
    made.close()


def lockout_of(store: SqliteStore, *, duration: float = 0.0, exempt: tuple[str, ...] = ()) -> LoginLockout:
    return LoginLockout(LockSettings(3, 60.0, duration, exempt), store, clock=lambda: NOW)


def failed(moment: float, user: str = "alice", login: str = "", prefix: str = "e", success: object = False) -> bytes:
    """A login that failed so many seconds from NOW."""
    uid = f"{prefix}-{user}-{moment}"
    return write_time(3, NOW + moment) + wire(uid, "user.login", user=user, login=login, success=success)


async def fail(watcher: LoginLockout, *moments: float, **whose: Any) -> None:
    await watcher.observe([failed(moment, **whose) for moment in moments])


async def made(watcher: LoginLockout, cluster: Any) -> list[tuple[str, float]]:
    """The locks that are made at once."""
    await watcher.make_locks(cluster)
    locks_made: list[tuple[str, float]] = cluster.locks
    return locks_made


async def test_exactly_the_configured_count_within_the_period_locks(store: SqliteStore) -> None:
    watcher = lockout_of(store, duration=1800.0)
    await fail(watcher, -59, -30)
    assert await made(watcher, Cluster()) == []
    await fail(watcher, -1)
    assert await made(watcher, Cluster()) == [("event-handler-auto-lock-alice-", NOW + 1800.0)]


async def test_failures_of_several_users_and_of_too_long_a_span_lock_nobody(store: SqliteStore) -> None:
    watcher = lockout_of(store)
    for user in ("alice", "bob", "carol", "dave"):
        await fail(watcher, -5, -4, user=user)
    await fail(watcher, -200, -130, -65, user="erin")
    await fail(watcher, -9, -8, -7, user="frank", success=True)
    await fail(watcher, -9, -8, -7, user="", login="")
    assert await made(watcher, Cluster()) == []


@given(st.lists(st.integers(-600, 0), unique=True, max_size=12), st.randoms(use_true_random=False))
async def test_the_order_in_which_failures_are_read_does_not_matter(moments: list[int], dice: Random) -> None:
    in_order = sorted(moments)
    due = any(last - first < 60 for first, last in zip(in_order, in_order[2:], strict=False))
    dice.shuffle(moments)
    kept = SqliteStore(None)
    await fail(lockout_of(kept), *moments)
    assert bool(kept._rows("SELECT * FROM locks_to_make")) == due


async def test_a_login_without_a_user_is_locked_by_itself(store: SqliteStore) -> None:
    watcher = lockout_of(store)
    await fail(watcher, -3, -2, -1, user="", login="root")
    assert await made(watcher, Cluster()) == [("event-handler-auto-lock--root", 0.0)]


async def test_old_events_of_a_backfill_and_exempt_users_lock_nobody(store: SqliteStore) -> None:
    watcher = lockout_of(store, exempt=("bot-*", "backup"))
    await fail(watcher, -5000, -4999, -4998)
    for user in ("bot-deploy", "backup"):
        await fail(watcher, -3, -2, -1, user=user)
    assert await made(watcher, Cluster()) == []


async def test_events_that_are_read_again_count_once_also_after_a_restart(store: SqliteStore) -> None:
    watcher = lockout_of(store)
    await fail(watcher, -3, -2)
    for _ in range(3):
        watcher = lockout_of(store)
        await fail(watcher, -3, -2)
    assert await made(watcher, Cluster()) == []
    await fail(watcher, -1)
    again = lockout_of(store)
    assert len(await made(again, Cluster())) == 1
    last = lockout_of(store)
    await fail(last, -3, -2, -1)
    assert await made(last, Cluster()) == []


async def test_a_cluster_that_is_away_is_asked_again_and_a_missing_right_is_told_once(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher, away = lockout_of(store), Cluster(ConnectError("away"), RpcError("UpsertLock", "UNAVAILABLE", "no"))
    await fail(watcher, -3, -2, -1)
    for _ in range(3):  # not each time that somebody asks
        assert await made(watcher, away) == []
    monkeypatch.setattr(watcher, "_clock", lambda: NOW + lockout.RETRY_AFTER)
    assert await made(watcher, away) == []
    monkeypatch.setattr(watcher, "_clock", lambda: NOW + 2 * lockout.RETRY_AFTER)
    assert len(await made(watcher, away)) == 1
    denied = RpcError("UpsertLock", "PERMISSION_DENIED", "access denied")
    with capture_logs() as lines:
        await fail(watcher, -3, -2, -1, user="bob")
        await fail(watcher, -3, -2, -1, user="carol")
        assert await made(watcher, Cluster(denied, denied)) == []
    assert [(line["log_level"], line.get("next_step")) for line in lines] == [
        ("warning", "Give the role the rule: resources [lock], verbs [create, update].")
    ]


async def test_failures_that_led_to_a_lock_do_not_count_for_the_next_one(store: SqliteStore) -> None:
    watcher, cluster = lockout_of(store), Cluster()
    await fail(watcher, -9, -8, -7)
    assert len(await made(watcher, cluster)) == 1
    await fail(watcher, -6, -5)
    assert len(await made(watcher, cluster)) == 1
    await fail(watcher, -4)
    assert len(await made(watcher, cluster)) == 2


async def test_a_lock_that_the_cluster_cannot_make_holds_up_no_other(store: SqliteStore) -> None:
    watcher = lockout_of(store)
    for user in ("cursed", "alice"):
        await fail(watcher, -3, -2, -1, user=user)
    assert await made(watcher, RefusingCluster()) == [("event-handler-auto-lock-alice-", 0.0)]


async def test_a_user_who_waits_for_the_lock_waits_once_however_many_failures_follow(store: SqliteStore) -> None:
    watcher = lockout_of(store)
    await fail(watcher, *(-number / 100 for number in range(3000)))
    assert len(await made(watcher, Cluster())) == 1


async def test_what_is_no_failed_login_counts_for_nobody(store: SqliteStore) -> None:
    watcher = lockout_of(store)
    await watcher.observe(
        [b"\xff\xff", wire("a", "cert.create", user="alice", success=False), wire("b", "user.login"), b""]
    )
    await fail(watcher, -3, -2, -1, success="false")
    assert store._rows("SELECT * FROM failed_logins") == []


async def test_a_failure_costs_the_same_however_many_were_counted_before(store: SqliteStore) -> None:
    watcher = lockout_of(store)
    for begin in range(0, 20_000, 1000):
        await watcher.observe([failed(-1, user=f"user{number}") for number in range(begin, begin + 1000)])
    steps: list[None] = []
    before = store._db.total_changes
    store._db.set_progress_handler(lambda: steps.append(None), 100)  # every hundred instructions of SQLite's
    await fail(watcher, -1, user="one more")
    assert store._db.total_changes - before == 1
    assert len(steps) < 10
    assert len(await store.failed_logins_of("one more")) == 1


async def test_failures_that_can_count_no_more_are_forgotten(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = lockout_of(store)
    await fail(watcher, *(-number / 100 for number in range(500)), user="a")
    monkeypatch.setattr(watcher, "_clock", lambda: NOW + 60.0 + lockout.LATEST + 10.0)
    await fail(watcher, 60.0 + lockout.LATEST)
    assert store._rows("SELECT id FROM failed_logins") == [(f"e-alice-{60.0 + lockout.LATEST}",)]


async def test_locks_that_an_older_release_had_to_make_are_made(tmp_path: Path) -> None:
    shutil.copy(OLD, tmp_path / "state.db")
    store = SqliteStore(tmp_path)
    assert await store.locks_due() == [("bob", "")]
    assert await store.failed_logins_of("alice") == [1_795_255_200.0, 1_795_255_201.0]
    store.close()
