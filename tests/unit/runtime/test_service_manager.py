"""systemd hears that the process has started, lives and stops, by its own protocol over a real socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from event_handler.report import Report
from event_handler.runtime.service_manager import ServiceManager
from tests.support.reports import report_of


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield listening


async def report() -> Report:
    return report_of()


async def lines(heard: socket.socket, count: int) -> list[list[str]]:
    async with asyncio.timeout(20):
        loop = asyncio.get_running_loop()
        return [(await loop.sock_recv(heard, 4096)).decode().split("\n") for _ in range(count)]


async def test_it_says_that_it_has_started_and_goes_on_saying_that_it_lives(heard: socket.socket) -> None:
    watched = {"NOTIFY_SOCKET": heard.getsockname(), "WATCHDOG_USEC": "20000", "WATCHDOG_PID": str(os.getpid())}
    running = asyncio.create_task(ServiceManager(watched).run(report))
    said = await lines(heard, 3)
    running.cancel()
    assert said == [["READY=1"], *[["STATUS=delivering to siem", "WATCHDOG=1"]] * 2]


async def test_without_a_watchdog_only_the_text_is_said(heard: socket.socket) -> None:
    for more in ({}, {"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}):
        running = asyncio.create_task(ServiceManager({"NOTIFY_SOCKET": heard.getsockname(), **more}).run(report))
        assert (await lines(heard, 2))[1] == ["STATUS=delivering to siem"]
        running.cancel()


async def test_an_abstract_address_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        try:
            listening.bind("")  # Linux picks an abstract name
        except OSError:
            pytest.skip("this system has no abstract addresses")
        listening.setblocking(False)
        ServiceManager({"NOTIFY_SOCKET": f"@{listening.getsockname()[1:].decode()}"}).stopping()
        assert (await lines(listening, 1))[0][0] == "STOPPING=1"


async def test_a_reload_is_said_with_its_time(heard: socket.socket) -> None:
    ServiceManager({"NOTIFY_SOCKET": heard.getsockname()}).reloading()
    began, ready = await lines(heard, 2)
    assert began[0] == "RELOADING=1"
    assert int(began[1].removeprefix("MONOTONIC_USEC=")) > 0
    assert ready == ["READY=1"]


async def test_a_socket_that_is_gone_stops_nobody(tmp_path: Path) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    manager.stopping()
    running = asyncio.create_task(manager.run(report))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not running.done()
    running.cancel()


async def test_without_systemd_nothing_is_said() -> None:
    running = asyncio.create_task(ServiceManager({}).run(report))
    await asyncio.sleep(0)
    assert not running.done()
    running.cancel()
