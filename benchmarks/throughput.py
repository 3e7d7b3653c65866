"""How fast the real process delivers a log that is there already, at what cost, next to bare reading of the same log.

With `--real-pace` the simulated cluster gives out events no faster than a real one was measured to, for bare reading
too. That reads the pages of a search one after another and the handler several windows at once, so the pace itself is
the stricter measure there.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import stage

EVENTS = 100_000


@dataclass(frozen=True, slots=True)
class Case:
    """One row. `share` of the events asked for is enough where every event is a request of its own."""

    mode: str
    form: str
    delay_ms: int
    share: float

    @property
    def name(self) -> str:
        return f"{self.mode}-{self.form}-{self.delay_ms}ms"


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured. `delivered` counts repeated events too, `cpu` is in microseconds an event, `peak` in bytes.

    `reading` is the events/s of bare reading in the same run, `pace` what the cluster gives out a second at most (0 =
    no limit).
    """

    case: str
    events: int
    delivered: int
    rate: float
    cpu: float
    peak: int
    events_a_request: float
    bytes_an_event: float
    reading: float
    pace: int


CASES = [
    Case(mode, form, delay, share)
    for mode in ("bulk", "search")
    for form, delay, share in (("array", 0, 1.0), ("array", 25, 1.0), ("single", 0, 0.2), ("single", 25, 0.05))
]
# Events/s that a real Teleport 19 on a 2-core machine gave to clients that throw everything away; bulk: three chunks at
# a time.
REAL_PACE = {"bulk": 40_900, "search": 34_400}


async def measure(case: Case, events: int, reading: float, directory: Path, *more: str, pace: int = 0) -> Result:
    """Deliver `events` once, with `more` options of `start`, from a cluster that gives out `pace` events/s at most (0 =
    no limit).

    The measured time begins when the handler is connected and ends when the last event has arrived.
    """
    waits = (f"--expect={events}", f"--delay-ms={case.delay_ms}")
    async with (
        stage.cluster(directory / "cluster", case.mode, events, f"--pace={pace}") as cluster,
        stage.collector(directory / "collector", *waits) as (collector, url),
    ):
        options = stage.handler_options(directory, cluster, url, case.form, events)
        async with stage.handler(["event_handler", *options, *more, "--exit-on-last-event"]) as handler:
            await handler.until(asyncio.create_task(handler.connected.wait()))
            begin = stage.look_at(handler.process.pid)
            arrived = await handler.until(asyncio.create_task(collector.line()))
            end = stage.look_at(handler.process.pid)
            if await handler.process.wait():
                raise handler.failed()
    return Result(
        case.name,
        events,
        delivered=arrived["events"],
        rate=events / (arrived["monotonic"] - begin.wall),
        cpu=(end.cpu - begin.cpu) / events * 1e6,
        peak=end.peak,
        events_a_request=arrived["events"] / arrived["requests"],
        bytes_an_event=arrived["bytes"] / arrived["events"],
        reading=reading,
        pace=pace,
    )


async def bare_reading(mode: str, events: int, directory: Path, pace: int = 0) -> tuple[float, float]:
    """Events/s and microseconds an event of a client that throws away what it reads.

    Raises SystemExit when it misses one.
    """
    async with stage.cluster(directory, mode, events, f"--pace={pace}") as cluster:
        where = (f"--address={cluster['address']}", f"--identity={cluster['identity']}")
        read = await stage.result_of("benchmarks.reading", *where, f"--mode={mode}", f"--days={stage.days(events)}")
    if read["events"] != events:
        raise SystemExit(f"bare reading found {read['events']} of {events} events")
    return events / read["seconds"], read["cpu"] / events * 1e6


async def run(options: argparse.Namespace) -> list[Result]:
    cases = [case for case in CASES if options.only in case.name]
    if not cases:
        raise SystemExit(f"--only {options.only} fits none of: {', '.join(case.name for case in CASES)}")
    results: list[Result] = []
    for mode in dict.fromkeys(case.mode for case in cases):
        pace = REAL_PACE[mode] if options.real_pace else 0
        readings = []
        for _ in range(options.runs):
            with tempfile.TemporaryDirectory() as directory:
                readings.append(await bare_reading(mode, options.events, Path(directory), pace))
        reading, cpu = (median(figures) for figures in zip(*readings, strict=True))
        stage.console.print(f"bare reading, {mode}: {reading:,.0f} events/s, {cpu:.0f} µs CPU an event")
        for case in cases:
            if case.mode != mode:
                continue
            events, runs = max(1, round(options.events * case.share)), []
            for _ in range(options.runs):
                with tempfile.TemporaryDirectory() as directory:
                    runs.append(await measure(case, events, reading, Path(directory), pace=pace))
            result = typical(runs)
            cost = f"{result.cpu:.0f} µs CPU an event, {result.peak / 1e6:.0f} MB at most"
            stage.console.print(f"{case.name}: {result.rate:,.0f} events/s, {cost}")
            results.append(result)
    return results


def typical(runs: list[Result]) -> Result:
    """The medians of several runs of a case, and of any the most that was delivered and the largest memory."""
    rate, cpu = median([run.rate for run in runs]), median([run.cpu for run in runs])
    delivered, peak = max(run.delivered for run in runs), max(run.peak for run in runs)
    return dataclasses.replace(runs[-1], rate=rate, cpu=cpu, delivered=delivered, peak=peak)


def report(results: list[Result]) -> None:
    columns = ["case", "events", "events/s", "of reading", "CPU s / 10⁶ events", "peak MB", "events/request"]
    rows = []
    for r in results:
        measured = [r.case, f"{r.events:,}", f"{r.rate:,.0f}", f"{r.rate / r.reading:.0%}"]
        measured += [f"{r.cpu:.0f}", f"{r.peak / 1e6:.0f}", f"{r.events_a_request:.0f}"]
        if r.pace:
            measured.append(f"{r.rate / r.pace:.0%}")
        rows.append(measured)
    paces = ", ".join(f"{mode} {pace:,}" for mode, pace in REAL_PACE.items() if any(r.pace == pace for r in results))
    if paces:
        columns.append("of the pace")
    stage.show(
        f"Throughput, cluster at the pace of a real one (events/s: {paces})" if paces else "Throughput", columns, rows
    )
    size = sum(r.bytes_an_event for r in results) / len(results)
    stage.console.print(f"Events here: {size:.0f} B.")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.add_argument(
        "--events", type=int, default=EVENTS, help="events of the log; cases with one event a request take a share"
    )
    parser.add_argument(
        "--only", default="", help="measure only the cases whose name contains this, as bulk-array or 25ms"
    )
    parser.add_argument(
        "--runs", type=int, default=1, help="runs of each case; their medians are shown, and the largest memory"
    )
    parser.add_argument(
        "--real-pace", action="store_true", help="let the cluster give out events no faster than a real one"
    )
    parser.add_argument("--json", type=Path, help="write the results to this file too")
    options = parser.parse_args()
    results = asyncio.run(run(options))
    report(results)
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(result) for result in results], indent=2) + "\n")


if __name__ == "__main__":
    main()
