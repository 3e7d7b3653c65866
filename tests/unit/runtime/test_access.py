"""Signing in at the start: credentials that are not there yet are waited for, and what no waiting repairs ends the
start at once.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from event_handler.config.model import StartSettings
from event_handler.errors import ConfigurationError, ConnectError, CredentialsError
from event_handler.runtime import access
from event_handler.runtime.access import addresses, wait_for_credentials
from event_handler.simulator.credentials import write_cluster_files


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "CREDENTIALS_EVERY", 0.005)
    monkeypatch.setattr(access, "TOLD_AFTER", 0.0)


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    write_cluster_files(tmp_path / "cluster", "sim.test")
    return (tmp_path / "cluster" / "identity").read_bytes()


@pytest.fixture
def expired(tmp_path: Path) -> bytes:
    write_cluster_files(tmp_path / "old", "sim.test", timedelta(seconds=-5))
    return (tmp_path / "old" / "identity").read_bytes()


async def test_an_identity_that_is_missing_expired_or_being_written_is_waited_for_and_each_reason_told_once(
    tmp_path: Path, whole: bytes, expired: bytes
) -> None:
    path = tmp_path / "identity"
    with capture_logs() as lines:
        waiting = asyncio.create_task(wait_for_credentials(StartSettings(teleport_identity=str(path))))
        for number, content in enumerate((None, b"", whole[:100], expired), start=1):
            if content is not None:
                path.write_bytes(content)
            async with asyncio.timeout(20):
                while len(lines) < number:
                    await asyncio.sleep(0.001)
            await asyncio.sleep(0.05)
            assert len(lines) == number
        path.write_bytes(whole)
        keeper = await asyncio.wait_for(waiting, 20)
    assert keeper.current.cluster == "sim.test"
    assert {line["event"] for line in lines} == {"waiting for valid credentials"}
    for line, reason in zip(
        lines, ("there is no file", "it has 0 PEM blocks", "ends inside a PEM block", "expired at"), strict=True
    ):
        assert reason in line["reason"]
        assert str(path) in line["reason"]
        assert line["next_step"]


async def test_the_wait_is_told_again_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "REMIND_EVERY", 0.01)
    with capture_logs() as lines:
        waiting = asyncio.create_task(wait_for_credentials(StartSettings(teleport_identity=str(tmp_path / "absent"))))
        async with asyncio.timeout(20):
            while len(lines) < 3:
                await asyncio.sleep(0.001)
        waiting.cancel()


async def test_the_startup_timeout_ends_the_wait_with_an_error_that_lets_a_unit_start_again(
    tmp_path: Path, expired: bytes
) -> None:
    (tmp_path / "identity").write_bytes(expired)
    settings = StartSettings(teleport_identity=str(tmp_path / "identity"), startup_timeout=0.05)
    with pytest.raises(ConnectError, match=r"no valid credentials within 0 s .*expired at") as caught:
        await asyncio.wait_for(wait_for_credentials(settings), 20)
    assert caught.value.exit_code == 1
    assert "tbot" in caught.value.hint


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "neither identity file nor"),
        ({"teleport_identity": "identity", "teleport_cert": "cert"}, "are both configured"),
        ({"teleport_cert": "cert"}, "is missing"),
        ({"teleport_identity": "PIV"}, "hardware token"),
        ({"teleport_identity": "large"}, "larger than 1 MiB"),
        ({"teleport_identity": "line"}, "over 64 KiB"),
    ],
)
async def test_what_no_waiting_repairs_ends_the_start_at_once(
    tmp_path: Path, whole: bytes, settings: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "PIV").write_bytes(whole.replace(b"PRIVATE KEY", b"PIV YUBIKEY PRIVATE KEY"))
    (tmp_path / "large").write_bytes(bytes(2**20 + 1))
    (tmp_path / "line").write_bytes(b"x" * 70_000)
    with pytest.raises((ConfigurationError, CredentialsError), match=message) as caught:
        await asyncio.wait_for(wait_for_credentials(StartSettings(**settings)), 20)
    assert caught.value.exit_code == 80


async def test_a_file_that_may_not_be_read_ends_the_start_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(CredentialsError, match=r"cannot be read \(Permission denied\)"):
        await wait_for_credentials(StartSettings(teleport_identity=str(tmp_path / "identity")))


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("teleport.example.com:443", "teleport.example.com:443"),
        (" auth.example.com:3025\r", "auth.example.com:3025"),
        ("https://teleport.example.com", "teleport.example.com:443"),
        ("https://teleport.example.com/", "teleport.example.com:443"),
        ("HTTPS://teleport.example.com:3080/web/login?x=1#y", "teleport.example.com:3080"),
        ("https://[2001:db8::1]", "[2001:db8::1]:443"),
        ("https://[2001:db8::1]:3025", "[2001:db8::1]:3025"),
        ("http://localhost:3025", "localhost:3025"),
        ("https://user:secret@teleport.example.com:443", "teleport.example.com:443"),
        ("tcp://auth.example.com:3025", "auth.example.com:3025"),
        ("_teleport._tcp.example.com", "_teleport._tcp.example.com"),
    ],
)
def test_an_address_that_is_written_as_a_url_is_taken(given: str, found: str) -> None:
    assert addresses(StartSettings(teleport_addr=(given,))) == [found]


@pytest.mark.parametrize(
    "given",
    [
        "tcp://auth.example.com",
        "teleport.example.com",
        "a/b:443",
        "a b:443",
        "https://",
        "host:0",
        "host:99999999",
        "me@host:443",
        ":1",
    ],
)
def test_what_is_no_address_is_named_with_an_example(given: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is not of the form host:port.*teleport\.example\.com:443"):
        addresses(StartSettings(teleport_addr=(given,)))
