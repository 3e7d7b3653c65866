"""Live lag: from the time in an event to the moment the collector counted it, while a few events a second come in."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from benchmarks import stage

RATE = 20  # events a second; the simulator adds them once a second, so a second's events share one wait for the next look
PAST = 100  # events that are there already when the handler starts
WARM_UP = 5 * RATE  # live events not measured: the first of them came in before the handler ran


async def measure(mode: str, poll: str, seconds: float, directory: Path) -> list[float]:
    """Seconds of lag of every event that arrived after the past ones and the warm-up, sorted."""
    async with (
        stage.cluster(directory / "cluster", mode, PAST, f"--live={RATE}") as cluster,
        stage.collector(directory / "collector", f"--expect={PAST + WARM_UP}", "--lags") as (collector, url),
    ):
        command = stage.handler_options(directory, cluster, url, "array", PAST)
        async with stage.handler(["event_handler", *command, f"--poll-interval={poll}", f"--timeout={poll}"]) as handler:
            before = (await handler.until(asyncio.create_task(collector.line())))["events"]
            await handler.until(asyncio.create_task(asyncio.sleep(seconds)))
        collector.process.terminate()
        lags: list[float] = (await collector.line())["lags"]
    return sorted(lags[before:])


async def run(options: argparse.Namespace) -> list[list[str]]:
    rows = []
    for mode in ("bulk", "search"):
        for poll in options.poll or ["500ms", "10s"]:
            with tempfile.TemporaryDirectory() as directory:
                lags = await measure(mode, poll, options.seconds, Path(directory))
            if not lags:
                raise SystemExit(f"no live event arrived within {options.seconds:.0f} s; give --seconds more than the poll interval")
            middle, late = lags[len(lags) // 2], lags[len(lags) * 99 // 100]
            rows.append([f"{mode}, --poll-interval={poll}", str(len(lags)), f"{middle:.2f}", f"{late:.2f}", f"{lags[-1]:.2f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument("--seconds", type=float, default=40.0, help="how long live events are measured")
    parser.add_argument("--poll", action="append", help="poll interval, as 500ms; may be given several times [default: 500ms and 10s]")
    rows = asyncio.run(run(parser.parse_args()))
    stage.show("Live lag in seconds", ["case", "events", "p50", "p99", "largest"], rows)


if __name__ == "__main__":
    main()
