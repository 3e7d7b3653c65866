"""A full, read-only or damaged storage: the real process says so in one line, delivery pauses, and nothing is lost."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.conftest import Collector
from tests.e2e.processes import configuration, handler, simulated

SMALL = "--max-in-flight-bytes=1048576"  # about a thousand events
LIMIT = 256 * 1024  # bytes; the empty state with its log fits, that of a thousand events does not


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own on `storage`, small enough to be filled; only root may mount one."""
    storage = tmp_path / "storage"
    storage.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", storage], check=False).returncode
    ):
        pytest.skip("this user may not mount a file system")
    yield storage
    subprocess.run(["umount", "-l", storage], check=True)


async def logged(process: asyncio.subprocess.Process, *words: bytes) -> bytes:
    """Read the log up to the first line that has all the words."""
    assert process.stderr is not None
    async with asyncio.timeout(60):
        async for line in process.stderr:
            if all(word in line for word in words):
                return line
    raise AssertionError(f"the process ended without a line about {words}")


async def delivered_everything(config: Path, directory: Path, collector: Collector) -> None:
    process = await handler(config, "--exit-on-last-event")
    async with asyncio.timeout(30):
        _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()[-2000:]
    manifest = json.loads((directory / "manifest.json").read_text())
    assert set(manifest["events"]) == set(collector.ids())


async def test_a_full_disk_pauses_delivery_until_there_is_room(
    tmp_path: Path, small_disk: Path, collector: Collector
) -> None:
    async with simulated(tmp_path / "sim", "--events=8000", "--sessions=0") as ready:
        config = configuration(tmp_path, ready, collector)
        process = await handler(config, SMALL)
        async with asyncio.timeout(60):
            while collector.requests < 1:
                await asyncio.sleep(0.005)
        fill(small_disk / "others")
        line = await logged(process, b"cannot remember what was delivered")
        assert b"database or disk is full" in line
        assert f"the state in {tmp_path / 'storage'}".encode() in line
        assert b"Free space on that disk" in line
        await quiet(collector)
        paused = collector.ids().total()
        assert paused < 8000
        (small_disk / "others").unlink()
        async with asyncio.timeout(60):
            while len(collector.ids()) < 8000:
                await asyncio.sleep(0.05)
        process.terminate()
        _, errors = await process.communicate()
        assert process.returncode == 0
        assert b"Traceback" not in errors
    manifest = json.loads((tmp_path / "sim" / "manifest.json").read_text())
    assert sorted(collector.ids().elements()) == sorted(manifest["events"])


def fill(file: Path) -> None:
    """Take all room that the file system has left."""
    with file.open("wb", buffering=0) as taker, suppress(OSError):
        while True:
            taker.write(b"x" * 4096)


async def quiet(collector: Collector) -> None:
    """Wait until nothing has come for a second."""
    loop = asyncio.get_running_loop()
    before, since = collector.requests, loop.time()
    while loop.time() - since < 1.0:
        await asyncio.sleep(0.05)
        if collector.requests != before:
            before, since = collector.requests, loop.time()


async def test_a_file_size_limit_pauses_delivery_and_a_start_without_it_brings_the_rest(
    tmp_path: Path, collector: Collector
) -> None:
    async with simulated(tmp_path / "sim", "--events=30000", "--sessions=0") as ready:
        config = configuration(tmp_path, ready, collector)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "event_handler", "start", "-c", str(config), SMALL, "--shutdown-timeout=1s"),
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT)),
        )
        line = await logged(process, b"cannot remember what was delivered")
        assert f"the state in {tmp_path / 'storage'}".encode() in line
        assert b"Free space on that disk" in line
        process.terminate()
        _, errors = await process.communicate()
        assert process.returncode == 1
        assert b"Traceback" not in errors
        await delivered_everything(config, tmp_path / "sim", collector)


async def test_a_read_only_storage_is_one_line_that_names_it(
    tmp_path: Path, small_disk: Path, collector: Collector
) -> None:
    async with simulated(tmp_path / "sim", "--events=10", "--sessions=0") as ready:
        config = configuration(tmp_path, ready, collector)
        await delivered_everything(config, tmp_path / "sim", collector)
        remount = await asyncio.create_subprocess_exec("mount", "-o", "remount,ro", small_disk)
        assert await remount.wait() == 0
        process = await handler(config)
        async with asyncio.timeout(30):
            _, errors = await process.communicate()
    assert process.returncode == 80
    assert f"error: the storage {small_disk}".encode() in errors.splitlines()[-1]
    assert b"Read-only file system" in errors.splitlines()[-1]
    assert b"Traceback" not in errors


async def test_a_damaged_state_is_one_line_that_names_it_and_the_next_step(
    tmp_path: Path, collector: Collector
) -> None:
    async with simulated(tmp_path / "sim", "--events=10", "--sessions=0") as ready:
        config = configuration(tmp_path, ready, collector)
        await delivered_everything(config, tmp_path / "sim", collector)
        (state,) = (tmp_path / "storage").glob("*/*/state.db")
        state.write_bytes(b"no database" * 1000)
        config.write_text(
            "".join(line for line in config.read_text().splitlines(keepends=True) if "start-time" not in line)
        )
        process = await handler(config)
        _, errors = await process.communicate()
    assert process.returncode == 80
    last = errors.splitlines()[-1].decode()
    assert f"the state was damaged and is set aside as {state}.damaged-" in last
    assert "Start with --start-time" in last
    assert b"Traceback" not in errors
