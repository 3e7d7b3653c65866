"""Restart: from the start of the process to the first new event at the collector, with many known chunks and
remembered ids.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path
from random import Random
from time import monotonic

from benchmarks import stage
from event_handler.ports import Commit
from event_handler.state.sqlite import FILE, SqliteStore

CHUNK = 10  # events: a day of a cluster in use has over a thousand chunks
RATE = 20  # new events a second
GROUP = 500  # ids of a commit, as the handler makes them


def fill(state: Path, ids: int) -> int:
    """Add ids as deliveries would have; return the bytes of the state."""
    dice = Random(1)  # noqa: S311 - content of a benchmark
    store = SqliteStore(state)
    for _ in range(ids // GROUP):
        asyncio.run(store.commit(Commit(ids=dice.randbytes(8 * GROUP))))
    store.close()
    return sum(file.stat().st_size for file in state.iterdir())


async def measure(chunks: int, ids: int, directory: Path) -> tuple[float, int]:
    """Seconds to the first new event, and bytes of the state."""
    events = chunks * CHUNK
    async with stage.cluster(directory / "cluster", "bulk", events, f"--live={RATE}", chunk=CHUNK) as cluster:
        async with stage.collector(directory / "collector", f"--expect={events}") as (collector, url):
            command = ["event_handler", *stage.handler_options(directory, cluster, url, "array", events)]
            async with stage.handler(command) as first:
                await first.until(asyncio.create_task(collector.line()))
                await asyncio.sleep(1.0)  # what was delivered is remembered
        (state,) = (file.parent for file in (directory / "storage").rglob(FILE))
        size = fill(state, ids)
        async with stage.collector(directory / "collector", "--expect=1") as (collector, url):
            options = stage.handler_options(directory, cluster, url, "array", events)
            command = ["event_handler", *(option for option in options if not option.startswith("--start-time"))]
            began = monotonic()
            async with stage.handler(command) as second:
                arrived = await second.until(asyncio.create_task(collector.line()))
    return arrived["monotonic"] - began, size


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restart", description=__doc__)
    parser.add_argument("--chunks", type=int, default=10_000, help="chunks delivered before the restart")
    parser.add_argument("--ids", type=int, default=1_000_000, help="events delivered after them")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        seconds, size = asyncio.run(measure(options.chunks, options.ids, Path(directory)))
    row = [f"{options.chunks:,}", f"{options.ids:,}", f"{size / 1e6:.0f}", f"{seconds:.2f}"]
    stage.show(
        "Restart", ["chunks known", "events delivered since", "MB of state", "seconds to the first new event"], [row]
    )


if __name__ == "__main__":
    main()
