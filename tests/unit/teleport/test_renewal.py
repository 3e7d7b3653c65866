"""Credentials that change: the newest valid set is used, a broken one changes nothing, and expiry is told in time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from event_handler.errors import ConnectError
from event_handler.simulator.credentials import write_cluster_files
from event_handler.teleport import renewal
from event_handler.teleport.credentials import Credentials, load
from event_handler.teleport.renewal import CredentialsKeeper

TICK = 0.01


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal, "TORN_RETRY", TICK)


class Renewals:
    """Counts what the keeper asks for, and fails as often as it is told."""

    def __init__(self, keeper: CredentialsKeeper, failures: int = 0) -> None:
        self.keeper = keeper
        self.seen: list[Credentials] = []
        self.failures = failures
        self.happened = asyncio.Event()

    async def __call__(self, newer: Credentials) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectError("scripted")
        self.seen.append(newer)
        self.happened.set()


def keeper_of(path: Path, interval: float = TICK) -> CredentialsKeeper:
    return CredentialsKeeper(lambda: load(str(path), "", "", ""), interval)


def issue(directory: Path, cluster: str = "sim.test", lifetime: timedelta = timedelta(days=1)) -> bytes:
    write_cluster_files(directory, cluster, lifetime)
    return (directory / "identity").read_bytes()


async def test_new_credentials_are_taken_and_renewed_until_that_works(tmp_path: Path) -> None:
    issue(tmp_path)
    keeper = keeper_of(tmp_path / "identity")
    first = keeper.current
    renewals = Renewals(keeper, failures=2)
    watching = asyncio.create_task(keeper.watch(renewals))
    issue(tmp_path)
    await asyncio.wait_for(renewals.happened.wait(), 10)
    watching.cancel()
    assert [seen == first for seen in renewals.seen] == [False]


async def test_a_torn_an_absent_and_an_expired_file_keep_the_old_credentials_and_are_told_once(tmp_path: Path) -> None:
    whole = issue(tmp_path / "a")
    stale = issue(tmp_path / "b", lifetime=timedelta(seconds=-1))
    path = tmp_path / "identity"
    path.write_bytes(whole)
    keeper = keeper_of(path)
    renewals = Renewals(keeper)
    with capture_logs() as lines:
        watching = asyncio.create_task(keeper.watch(renewals))
        for content in (whole[: len(whole) // 2], b"", stale, None):
            told = len(lines)
            path.unlink() if content is None else path.write_bytes(content)
            while len(lines) == told:
                await asyncio.sleep(TICK)
            await asyncio.sleep(5 * TICK)
            assert len(lines) == told + 1
        fresh = issue(tmp_path / "c")
        path.write_bytes(fresh)
        await asyncio.wait_for(renewals.happened.wait(), 10)
        watching.cancel()
    assert len(renewals.seen) == 1
    assert [line["log_level"] for line in lines] == ["warning"] * 4 + ["info"]


async def test_a_symlink_that_is_swapped_as_in_a_kubernetes_secret_is_followed(tmp_path: Path) -> None:
    for version in ("v1", "v2"):
        issue(tmp_path / version)
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "identity").symlink_to("..data/identity")
    keeper = keeper_of(tmp_path / "identity")
    renewals = Renewals(keeper)
    watching = asyncio.create_task(keeper.watch(renewals))
    (tmp_path / "..new").symlink_to("v2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    await asyncio.wait_for(renewals.happened.wait(), 10)
    watching.cancel()


async def test_credentials_of_another_cluster_are_not_taken_over(tmp_path: Path) -> None:
    issue(tmp_path)
    keeper = keeper_of(tmp_path / "identity")
    renewals = Renewals(keeper)
    with capture_logs() as lines:
        watching = asyncio.create_task(keeper.watch(renewals))
        issue(tmp_path, cluster="other.test")
        while not lines:
            await asyncio.sleep(TICK)
        watching.cancel()
    assert "other.test" in lines[0]["event"]
    assert renewals.seen == []
    assert keeper.current.cluster == "sim.test"


def test_expiry_is_told_from_a_fifth_of_the_lifetime_on_and_once_a_day(tmp_path: Path) -> None:
    issue(tmp_path, lifetime=timedelta(days=100))
    keeper = keeper_of(tmp_path / "identity", interval=0.0)
    now = datetime.now(UTC)
    with capture_logs() as lines:
        keeper.warn_of_expiry(now + timedelta(days=79))
        assert lines == []
        for hours in (0, 12, 25):
            keeper.warn_of_expiry(now + timedelta(days=81, hours=hours))
        keeper.warn_of_expiry(now + timedelta(days=101))
    assert [line["event"] for line in lines] == ["the credentials expire soon"] * 2 + ["the credentials have expired"]
    assert all("tctl auth sign" in line["next_step"] for line in lines)
