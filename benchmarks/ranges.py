"""How fast a backlog of less than a day is read by search from a server that gives one search 18,500 events/s and three
31,200.

That is what a real Teleport 18 on two cores was measured at: 54 µs an event in one range of time, 32 µs in three side
by side. The simulated one waits as long. With `--before DIR` the handler in that source directory is measured in the
same run, runs alternating.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from benchmarks import stage

ONE_RANGE = 54.0  # µs an event
PACE = 31_200  # events a second, all ranges together
DAYS = 0.8  # of the backlog


def server() -> list[str]:
    return [f"--search-cost={ONE_RANGE}", f"--pace={PACE}", f"--days={DAYS}"]


async def bare(events: int, ranges: int) -> float:
    """Events/s of a client that throws away what it reads."""
    with tempfile.TemporaryDirectory() as name:
        async with stage.cluster(Path(name), "search", events, *server()) as cluster:
            where = (f"--address={cluster['address']}", f"--identity={cluster['identity']}")
            read = await stage.result_of(
                "benchmarks.reading", *where, "--mode=search", f"--days={DAYS}", f"--ranges={ranges}"
            )
    return events / float(read["seconds"])


async def handler(events: int, source: str) -> tuple[float, float, float]:
    """Events/s, µs of CPU an event and the largest memory in bytes of the handler whose packages are in `source` (""
    = this one).
    """
    environment = {"PYTHONPATH": source} if source else {}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        async with (
            stage.cluster(directory / "cluster", "search", events, *server()) as cluster,
            stage.collector(directory / "collector", f"--expect={events}") as (collector, url),
        ):
            options = stage.handler_options(directory, cluster, url, "array", events)
            options.append(f"--start-time={datetime.now(UTC) - timedelta(days=DAYS, hours=1):%Y-%m-%dT%H:%M:%SZ}")
            async with stage.handler(["event_handler", *options, "--exit-on-last-event"], **environment) as running:
                await running.until(asyncio.create_task(running.connected.wait()))
                begin = stage.look_at(running.process.pid)
                arrived = await running.until(asyncio.create_task(collector.line()))
                end = stage.look_at(running.process.pid)
                if await running.process.wait():
                    raise running.failed()
    return events / (arrived["monotonic"] - begin.wall), (end.cpu - begin.cpu) / events * 1e6, end.peak


async def run(options: argparse.Namespace) -> list[list[str]]:
    sources = {"handler before": options.before} if options.before else {}
    sources["handler"] = os.environ.get("PYTHONPATH", "")
    rates: dict[str, list[float]] = {"server alone, 1 range": [], "server alone, 3 ranges": []}
    more: dict[str, list[tuple[float, float]]] = {}
    for _ in range(options.runs):
        rates["server alone, 1 range"].append(await bare(options.events, 1))
        rates["server alone, 3 ranges"].append(await bare(options.events, 3))
        for name, source in sources.items():
            rate, cpu, peak = await handler(options.events, source)
            rates.setdefault(name, []).append(rate)
            more.setdefault(name, []).append((cpu, peak))
            stage.console.print(f"{name}: {rate:,.0f} events/s")
    goal = median(rates["server alone, 3 ranges"])
    rows = []
    for name, measured in rates.items():
        cost = more.get(name, [])
        taken = (
            [f"{median([cpu for cpu, _ in cost]):.0f}", f"{max(peak for _, peak in cost) / 1e6:.0f}"]
            if cost
            else ["", ""]
        )
        rows.append([name, f"{median(measured):,.0f}", f"{median(measured) / goal:.2f}", *taken])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranges", description=__doc__)
    parser.add_argument("--events", type=int, default=200_000, help="events of the backlog")
    parser.add_argument(
        "--runs", type=int, default=3, help="runs of each; their medians are shown, and the largest memory"
    )
    parser.add_argument("--before", default="", help="directory of the package `event_handler` to compare with")
    rows = asyncio.run(run(parser.parse_args()))
    stage.show("A backlog of 19 hours by search", ["", "events/s", "of 3 ranges", "CPU µs/event", "peak MB"], rows)


if __name__ == "__main__":
    main()
