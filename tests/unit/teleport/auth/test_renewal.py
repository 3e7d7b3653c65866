"""Credentials that change: the newest valid set is used, a broken one changes nothing, and expiry is told in time."""

from __future__ import annotations

import asyncio
import errno
import os
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from event_handler.errors import ConnectError, CredentialsError, MalformedEventError, RpcError
from event_handler.runtime import supervise
from event_handler.simulator.credentials import write_cluster_files
from event_handler.teleport.auth import renewal
from event_handler.teleport.auth.credentials import Credentials, load
from event_handler.teleport.auth.renewal import CredentialsKeeper

TICK = 0.01


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal, "TORN_RETRY", TICK)
    monkeypatch.setattr(supervise, "FIRST_PAUSE", TICK)


class Renewals:
    """Keeps what the keeper brings, and the credentials that were in use then. Fails with each of `failures` first."""

    def __init__(self, keeper: CredentialsKeeper, *failures: Exception) -> None:
        self.keeper = keeper
        self.seen: list[Credentials] = []
        self.in_use: list[Credentials] = []
        self.failures = list(failures)
        self.happened = asyncio.Event()

    async def __call__(self, newer: Credentials) -> None:
        self.in_use.append(self.keeper.current)
        if self.failures:
            raise self.failures.pop(0)
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
    renewals = Renewals(keeper, ConnectError("scripted"), ConnectError("scripted"))
    watching = asyncio.create_task(keeper.watch(renewals))
    issue(tmp_path)
    await asyncio.wait_for(renewals.happened.wait(), 10)
    watching.cancel()
    assert [seen == first for seen in renewals.seen] == [False]
    assert renewals.in_use == [first] * 3, "newer credentials replace valid ones when they got in, not before"


async def test_newer_credentials_replace_expired_ones_at_once(tmp_path: Path) -> None:
    issue(tmp_path, lifetime=timedelta(seconds=-1))
    keeper = keeper_of(tmp_path / "identity")
    renewals = Renewals(keeper, ConnectError("scripted"))
    watching = asyncio.create_task(keeper.watch(renewals))
    issue(tmp_path)
    await asyncio.wait_for(renewals.happened.wait(), 10)
    watching.cancel()
    assert renewals.in_use == [keeper.current] * 2


@pytest.mark.parametrize(
    "failure",
    [
        ConnectError("no way in"),
        RpcError("Ping", "UNKNOWN", "odd"),
        CredentialsError("expired while the cluster was away"),
        MalformedEventError("bytes that are no message"),
        AttributeError("a fault of ours"),
        OSError(5, "Input/output error"),
    ],
    ids=repr,
)
async def test_no_error_ends_the_watch_and_the_newest_credentials_get_in_at_last(
    tmp_path: Path, failure: Exception
) -> None:
    issue(tmp_path)
    keeper = keeper_of(tmp_path / "identity")
    renewals = Renewals(keeper, failure, failure)
    with capture_logs() as lines:
        watching = asyncio.create_task(supervise.supervise("the watch", partial(keeper.watch, renewals)))
        issue(tmp_path)
        await asyncio.wait_for(renewals.happened.wait(), 10)
        watching.cancel()
    assert keeper.current == renewals.seen[-1] == load(str(tmp_path / "identity"), "", "", "")
    assert any(str(failure) in line.get("error", "") for line in lines)


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE, errno.EIO])
@pytest.mark.parametrize("question", ["is_dir", "is_file", "open"])
async def test_a_disk_that_fails_for_a_while_is_told_once_and_survived(
    tmp_path: Path, number: int, question: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "identity"
    issue(tmp_path)
    path.write_bytes(without_ssh(path.read_bytes()))
    keeper = keeper_of(path)
    renewals = Renewals(keeper)

    def failing(*_: object) -> bool:
        raise OSError(number, os.strerror(number))

    with capture_logs() as lines, monkeypatch.context() as patch:
        patch.setattr(Path, question, failing)
        watching = asyncio.create_task(keeper.watch(renewals))
        async with asyncio.timeout(10):
            while not lines:
                await asyncio.sleep(TICK)
        patch.undo()
        issue(tmp_path)
        await asyncio.wait_for(renewals.happened.wait(), 10)
        watching.cancel()
    told = [line for line in lines if line["log_level"] == "warning"]
    assert [line["event"] for line in told] == ["the credentials cannot be read now; the ones at hand stay in use"]
    assert os.strerror(number) in told[0]["reason"]


def without_ssh(identity: bytes) -> bytes:
    """Then the SSH certificate is looked for in a file beside it."""
    return b"\n".join(
        line for line in identity.split(b"\n") if b"-cert-v01@openssh.com" not in line or line.startswith(b"@")
    )


async def test_credentials_that_are_never_read_by_themselves_are_read_on_request(tmp_path: Path) -> None:
    issue(tmp_path)
    keeper = keeper_of(tmp_path / "identity", interval=0.0)
    renewals = Renewals(keeper)
    watching = asyncio.create_task(keeper.watch(renewals))
    issue(tmp_path)
    keeper.look_now()
    await asyncio.wait_for(renewals.happened.wait(), 10)
    watching.cancel()
    assert len(renewals.seen) == 1


async def test_a_pending_renewal_is_forgotten_when_the_old_file_is_back(tmp_path: Path) -> None:
    old = issue(tmp_path)
    keeper = keeper_of(tmp_path / "identity")
    tried = asyncio.Event()

    async def refuse(_: Credentials) -> None:
        tried.set()
        raise ConnectError("scripted")

    watching = asyncio.create_task(keeper.watch(refuse))
    issue(tmp_path)
    await asyncio.wait_for(tried.wait(), 10)
    (tmp_path / "identity").write_bytes(old)
    async with asyncio.timeout(10):
        while keeper._newer is not None:
            await asyncio.sleep(TICK)
    watching.cancel()
    assert keeper.current == load(str(tmp_path / "identity"), "", "", "")


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


def test_a_clock_that_is_behind_is_told(tmp_path: Path) -> None:
    issue(tmp_path)
    keeper = keeper_of(tmp_path / "identity", interval=0.0)
    with capture_logs() as lines:
        keeper.warn_of_expiry(keeper.current.not_before - timedelta(hours=2))
    assert [line["event"] for line in lines] == ["by this machine's clock the credentials are not valid yet"]
    assert "clocks" in lines[0]["next_step"]


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
