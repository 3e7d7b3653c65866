"""Kills the real process again and again while it delivers, then lets it come to the end: for every sink alike."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.e2e.processes import DAYS, handler, simulated

FEW, MANY = 3, 20  # kills, in `make test` and in `make soak`
EVENTS = {FEW: 4_000, MANY: 100_000}  # of the log, so that the last kill still finds some; batches grow quickly
PATIENCE = 60.0  # seconds for the progress after which a process is killed


async def deliver_through_kills(
    directory: Path, tables: str, progress: Callable[[], int], kills: int, *, events: int = 0, apart: int = 2
) -> tuple[set[str], str]:
    """Deliver a simulated cluster's events to the sinks in `tables`; return their ids, and the log of the last run.

    `events` are EVENTS unless told. `progress` counts something that a receiver has seen (requests, batches, messages):
    a process is killed when that has grown by `apart`, and a little more each time. The last run must end by itself
    with exit code 0.
    """
    log = f"--events={events or EVENTS[kills]}", "--mode=bulk", "--distinct=2000"
    async with simulated(directory / "sim", *log) as ready:
        config = directory / "handler.toml"
        config.write_text(
            f'storage = "{directory}/storage"\nno-session-recordings = true\n'
            f'[teleport]\naddr = "{ready["address"]}"\nidentity = "{ready["identity"]}"\n{tables}'
        )
        start = f"--start-time={datetime.now(UTC) - timedelta(days=DAYS):%Y-%m-%dT%H:%M:%SZ}"
        for kill in range(kills):
            before = progress()
            process = await handler(config, start, stderr=asyncio.subprocess.DEVNULL)
            async with asyncio.timeout(PATIENCE):
                while progress() < before + apart + kill % 5 and process.returncode is None:
                    await asyncio.sleep(0.01)
            if process.returncode is None:
                process.kill()
            await process.wait()
        process = await handler(config, start, "--exit-on-last-event")
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()[-3000:]
    manifest = json.loads((directory / "sim" / "manifest.json").read_text())
    return set(manifest["events"]), errors.decode()
