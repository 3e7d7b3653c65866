"""Live lag: from the time in an event to the moment the collector counted it, while events come in.

And whether any came twice.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks import stage

PAST = 100  # events that are there already when the handler starts
WARM_UP = 5.0  # seconds of live events not measured: the first of them came in before the handler ran


@dataclass(frozen=True, slots=True)
class Result:
    """`lags` are sorted seconds, without the warm-up.

    `memory` is the peak in bytes after a third of the time and at the end.
    """

    lags: list[float]
    repeats: int
    memory: tuple[int, int]
    cpu: float


async def measure(mode: str, poll: str, rate: int, seconds: float, directory: Path) -> Result:
    async with (
        stage.cluster(directory / "cluster", mode, PAST, f"--live={rate}") as cluster,
        stage.collector(directory / "collector", f"--expect={PAST + round(WARM_UP * rate)}", "--lags") as (
            collector,
            url,
        ),
    ):
        command = stage.handler_options(directory, cluster, url, "array", PAST)
        async with stage.handler(
            ["event_handler", *command, f"--poll-interval={poll}", f"--timeout={poll}"]
        ) as handler:
            before = (await handler.until(asyncio.create_task(collector.line())))["events"]
            looks = [stage.look_at(handler.process.pid)]
            for share in (1 / 3, 2 / 3):
                await handler.until(asyncio.create_task(asyncio.sleep(seconds * share)))
                looks.append(stage.look_at(handler.process.pid))
        collector.process.terminate()
        arrived = await collector.line()
    first, third, last = looks
    lags: list[float] = arrived["lags"][before:]
    cpu = (last.cpu - first.cpu) / (last.wall - first.wall)
    return Result(sorted(lags), arrived["events"] - arrived["different"], (third.peak, last.peak), cpu)


async def run(options: argparse.Namespace) -> list[list[str]]:
    rows = []
    for mode in options.mode or ("bulk", "search"):
        for poll in options.poll or ["500ms", "10s"]:
            with tempfile.TemporaryDirectory() as directory:
                found = await measure(mode, poll, options.rate, options.seconds, Path(directory))
            lags = found.lags
            if not lags:
                raise SystemExit(
                    f"no live event arrived within {options.seconds:.0f} s; give --seconds more than the poll interval"
                )
            middle, late = lags[len(lags) // 2], lags[len(lags) * 99 // 100]
            memory = [f"{octets / 1e6:.0f}" for octets in found.memory]
            row = [f"{mode}, --poll-interval={poll}", str(len(lags)), f"{middle:.2f}", f"{late:.2f}", f"{lags[-1]:.2f}"]
            rows.append([*row, str(found.repeats), *memory, f"{found.cpu:.0%}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument("--seconds", type=float, default=40.0, help="how long live events are measured")
    parser.add_argument(
        "--poll", action="append", help="poll interval, as 500ms; may be given several times [default: 500ms and 10s]"
    )
    parser.add_argument(
        "--mode", action="append", choices=["bulk", "search"], help="way to read; may be given twice [default: both]"
    )
    parser.add_argument(
        "--rate", type=int, default=20, help="events a second; below 100 the simulator adds them once a second"
    )
    options = parser.parse_args()
    rows = asyncio.run(run(options))
    columns = ["case", "events", "p50", "p99", "largest", "repeats", "MB at 1/3", "MB at the end", "of a CPU"]
    stage.show(f"Live lag in seconds, {options.rate} events/s", columns, rows)


if __name__ == "__main__":
    main()
