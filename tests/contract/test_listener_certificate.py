"""The listener takes up a certificate that was renewed, and keeps the old one while the new one cannot be used."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from event_handler.report import Report
from event_handler.tap import Tap
from event_handler.telemetry import listener
from event_handler.telemetry.listener import Listener, ListenOptions
from tests.contract.pki import Pki, make_pki
from tests.contract.ports import free_ports
from tests.support.reports import report_of
from tests.support.waiting import until


async def report() -> Report:
    return report_of()


def write(directory: Path, pki: Pki) -> None:
    key, certificate = pki.issue("localhost")
    (directory / "listen.key").write_bytes(key)
    (directory / "listen.crt").write_bytes(certificate)


async def trusted(port: int, pki: Pki) -> bool:
    """Whether the certificate that is shown now is of that authority."""
    context = ssl.create_default_context(cafile=str(pki.path("ca.crt")))
    try:
        _, writer = await asyncio.open_connection("localhost", port, ssl=context, family=socket.AF_INET)
    except (ssl.SSLCertVerificationError, ConnectionError):
        return False
    writer.close()
    return True


@asynccontextmanager
async def listening(directory: Path) -> AsyncIterator[int]:
    (port,) = free_ports(1)
    files = str(directory / "listen.crt"), str(directory / "listen.key")
    running = asyncio.create_task(Listener(report, Tap(), ListenOptions(f"127.0.0.1:{port}", *files), None).run())
    try:
        yield port
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_renewed_certificate_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "LOOK_FOR_RENEWED", 0.01)
    first, second = make_pki(tmp_path, "first"), make_pki(tmp_path, "second")
    write(tmp_path, first)
    with capture_logs() as told:
        async with listening(tmp_path) as port:
            await until(lambda: trusted(port, first))
            (tmp_path / "listen.crt").write_bytes(b"not a certificate")
            await until(lambda: any("cannot be used" in line["event"] for line in told))
            assert await trusted(port, first)
            write(tmp_path, second)
            await until(lambda: trusted(port, second))
    assert [line["event"] for line in told if "took up" in line["event"]]
