"""What each sink over HTTP costs, side by side with Fluentd's arrays: the same log, the same receiver, taking turns.

The receiver answers at once, and after 25 ms. A ratio is of the median of the sink to that of Fluentd in this run.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import stage

EVENTS = 200_000
DELAYS = (0, 25)  # milliseconds
TABLES = {
    "fluentd": 'type = "fluentd"\nurl = "{url}/audit.log"\nsession-url = "{url}/session"\nformat = "array"',
    "splunk-hec": 'type = "splunk-hec"\nurl = "{url}"\ntoken = "benchmark"\ncompression = "none"',
    "datadog": 'type = "datadog"\nurl = "{url}/api/v2/logs"\napi-key = "benchmark"\ncompression = "none"',
}


@dataclass(frozen=True, slots=True)
class Run:
    """Events a second, microseconds of CPU an event, and the largest memory in bytes."""

    rate: float
    cpu: float
    peak: int


async def measure(sink: str, delay_ms: int, events: int, directory: Path) -> Run:
    collector_directory = directory / "collector"
    async with (
        stage.cluster(directory / "cluster", "bulk", events) as cluster,
        stage.collector(collector_directory, f"--expect={events}", f"--delay-ms={delay_ms}") as (collector, url),
    ):
        files = "".join(
            f'{name} = "{collector_directory / file}"\n'
            for name, file in (("ca", "ca.crt"), ("cert", "client.crt"), ("key", "client.key"))
        )
        configuration = directory / "handler.toml"
        configuration.write_text(f"[sinks.measured]\n{TABLES[sink].format(url=url)}\n{files}")
        options = [
            option
            for option in stage.handler_options(directory, cluster, url, "array", events)
            if not option.startswith("--fluentd")
        ]
        command = ["event_handler", *options, f"--config={configuration}", "--exit-on-last-event"]
        async with stage.handler(command) as handler:
            await handler.until(asyncio.create_task(handler.connected.wait()))
            begin = stage.look_at(handler.process.pid)
            arrived = await handler.until(asyncio.create_task(collector.line()))
            end = stage.look_at(handler.process.pid)
            if await handler.process.wait():
                raise handler.failed()
    return Run(events / (arrived["monotonic"] - begin.wall), (end.cpu - begin.cpu) / events * 1e6, end.peak)


async def run(options: argparse.Namespace) -> None:
    runs: dict[tuple[str, int], list[Run]] = {(sink, delay): [] for sink in TABLES for delay in DELAYS}
    for _ in range(options.runs):
        for (sink, delay), found in runs.items():
            with tempfile.TemporaryDirectory() as directory:
                found.append(await measure(sink, delay, options.events, Path(directory)))
    rows = []
    for (sink, delay), found in runs.items():
        rate, of_fluentd = (median(one.rate for one in some) for some in (found, runs["fluentd", delay]))
        cpu, peak = median(one.cpu for one in found), max(one.peak for one in found)
        rows.append(
            [f"{sink}, {delay} ms", f"{rate:,.0f}", f"{rate / of_fluentd:.2f}", f"{cpu:.1f}", f"{peak / 1e6:.0f}"]
        )
    stage.show("Sinks", ["sink, answer after", "events/s", "of Fluentd", "CPU s / 10⁶ events", "peak MB"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sinks", description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS, help="events of the log")
    parser.add_argument("--runs", type=int, default=3, help="runs of each; medians are shown")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
