"""A log that nobody reads, through a pipe that stays open, stops neither the delivery nor the end of the real
process.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Collector
from tests.e2e.processes import configuration, handler, simulated

END = 20.0  # seconds in which the process has ended on a busy machine; those that it may take are in its options


@pytest.fixture
def full_pipe() -> Iterator[int]:
    """The end of a pipe to write to, that has no room left and that nobody reads."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writing, True)
    yield writing
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("fmt", ["console", "json"])
async def test_delivery_goes_on_and_a_signal_ends_it(
    tmp_path: Path, collector: Collector, full_pipe: int, fmt: str
) -> None:
    async with simulated(tmp_path / "sim", "--events=300", "--sessions=1") as ready:
        config = configuration(tmp_path, ready, collector)
        process = await handler(config, "--debug", f"--log-format={fmt}", "--shutdown-timeout=1s", stderr=full_pipe)
        async with asyncio.timeout(60):
            while len(collector.ids()) < 300:
                await asyncio.sleep(0.05)
        process.terminate()
        async with asyncio.timeout(END):
            assert await process.wait() == 0


async def test_an_error_at_the_start_ends_with_its_own_status(
    tmp_path: Path, collector: Collector, full_pipe: int
) -> None:
    config = configuration(tmp_path, {"address": "127.0.0.1:1", "identity": os.devnull}, collector)
    process = await handler(config, "--types=user.logn", stderr=full_pipe)
    async with asyncio.timeout(END):
        assert await process.wait() == 80
