"""A lookup that hangs holds up no other name, is shared by those who ask for the same one, and does not keep the
process alive.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from event_handler import names
from event_handler.names import resolve

REAL = socket.getaddrinfo
FOUND = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 443))]


@pytest.fixture
def hung(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names that begin with `hung` are not found before the test ends; yields the names that were looked up."""
    asked: list[str] = []
    released = threading.Event()

    def getaddrinfo(host: str, port: int, *, flags: int = 0, **more: Any) -> Any:
        if flags & socket.AI_NUMERICHOST:
            return REAL(host, port, flags=flags, **more)
        asked.append(host)
        if host.startswith("hung"):
            released.wait()
        if host.startswith("missing"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return FOUND

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield asked
    released.set()


async def given_up(host: str) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await resolve(host, 443)


async def test_hundreds_of_hung_lookups_hold_up_no_other_name_and_no_other_work(hung: list[str]) -> None:
    await asyncio.gather(*(given_up(f"hung{number % 40}") for number in range(400)))
    async with asyncio.timeout(20):
        assert await resolve("found", 443) == FOUND
        assert await asyncio.to_thread(lambda: 7) == 7


async def test_those_who_ask_for_the_same_name_share_a_lookup(hung: list[str]) -> None:
    await asyncio.gather(*(given_up("hung") for _ in range(50)))
    await given_up("hung")
    assert hung == ["hung"]


async def test_a_lookup_that_is_stuck_is_left_behind_a_few_times_only(
    hung: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "STUCK_AFTER", -1.0)
    for _ in range(10):
        await given_up("hung-for-ever")
    assert hung == ["hung-for-ever"] * names.THREADS_A_NAME


async def test_a_name_is_looked_up_again_once_it_was_answered(hung: list[str]) -> None:
    for _ in range(2):
        with pytest.raises(socket.gaierror):
            await resolve("missing", 443)
    assert hung == ["missing", "missing"]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_an_address_asks_nobody(hung: list[str], address: str) -> None:
    assert [found[4][0] for found in await resolve(address, 443)] == [address]
    assert hung == []


async def test_what_is_no_name_is_an_error(hung: list[str]) -> None:
    with pytest.raises((UnicodeError, socket.gaierror)):
        await resolve("missing" + "x" * 300, 443)


def test_the_process_ends_while_a_lookup_hangs() -> None:
    program = """
import asyncio, socket, threading
real = socket.getaddrinfo
def hang(host, *rest, flags=0, **more):
    if flags & socket.AI_NUMERICHOST:
        return real(host, *rest, flags=flags, **more)
    threading.Event().wait()
socket.getaddrinfo = hang
from event_handler.names import resolve
async def main():
    try:
        async with asyncio.timeout(0.1):
            await resolve("example.com", 443)
    except TimeoutError:
        print("given up")
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("given up\n", "")
