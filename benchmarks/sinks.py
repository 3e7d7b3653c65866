"""What each sink costs, side by side with Fluentd's arrays: the same log, taking turns, until all is delivered.

Sinks over HTTP deliver to a collector of our own over mutual TLS, the others to the servers of benchmarks/servers.py;
each answers at once, and 25 ms later. A ratio is of the median of the sink to that of Fluentd in this run. It is the
speed on the way that counts: at the start batches grow from small ones, and at the end the last one waits for its age.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import servers, stage
from event_handler.cli.status import report_of

EVENTS = 200_000
DELAYS = (0, 25)  # milliseconds
FIRST, LAST = 0.1, 0.95  # shares of the log that are delivered when the clock starts, and when it stops
LOOK_EVERY = 0.05  # seconds between two looks at what is delivered
NO_PACKING = 'compression = "none"\n'  # the collector reads bodies as they are, and Fluentd's arrays are not packed
AWS = NO_PACKING + 'region = "eu-central-1"\naccess-key-id = "AKIDEXAMPLE"\nsecret-access-key = "benchmark"\n'
HTTP = {
    "fluentd": 'url = "{url}/audit.log"\nsession-url = "{url}/session"\nformat = "array"\n',
    "splunk-hec": 'url = "{url}"\ntoken = "benchmark"\n' + NO_PACKING,
    "datadog": 'url = "{url}/api/v2/logs"\napi-key = "benchmark"\n' + NO_PACKING,
    "elasticsearch": 'url = "{url}"\ntarget = "logs-teleport.audit-default"\ndocument = "plain"\n' + NO_PACKING,
    "loki": 'url = "{url}"\n' + NO_PACKING,
    "otlp": 'url = "{url}"\n' + NO_PACKING,
    "clickhouse": 'url = "{url}/rows"\n' + NO_PACKING,
    "webhook": 'url = "{url}/hook"\nbody = "ndjson"\n' + NO_PACKING,
    "panther": 'url = "{url}/panther"\nbearer = "benchmark"\n' + NO_PACKING,
    "sumologic": 'url = "{url}/sumo"\n' + NO_PACKING,
    "newrelic": 'url = "{url}/log/v1"\ntoken = "benchmark"\n' + NO_PACKING,
    "s3": 'url = "{url}"\nbucket = "events"\nobject-age = "500ms"\n' + AWS,
    "aws-kinesis": 'url = "{url}/kinesis"\nstream = "events"\n' + AWS,
    "aws-cloudwatch": 'url = "{url}/logs"\nlog-group = "events"\nlog-stream = "events"\n' + AWS,
}


@dataclass(frozen=True, slots=True)
class Run:
    """Events a second, microseconds of CPU an event, and the largest memory in bytes."""

    rate: float
    cpu: float
    peak: int


@asynccontextmanager
async def _receiver(sink: str, delay_ms: int, events: int, directory: Path) -> AsyncIterator[str]:
    """The options of the sink for a receiver that runs."""
    if sink not in HTTP:
        async with servers.receiving(sink, delay_ms, directory) as options:
            yield options
        return
    files = directory / "collector"
    async with stage.collector(files, f"--expect={events}", f"--delay-ms={delay_ms}") as (_, url):
        tls = {"ca": "ca.crt", "cert": "client.crt", "key": "client.key"}
        yield HTTP[sink].format(url=url) + "".join(f'{name} = "{files / file}"\n' for name, file in tls.items())


async def measure(sink: str, delay_ms: int, events: int, directory: Path) -> Run:
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(stage.cluster(directory / "cluster", "bulk", events))
        options = await stack.enter_async_context(_receiver(sink, delay_ms, events, directory))
        configuration = directory / "handler.toml"
        configuration.write_text(f'[sinks.measured]\ntype = "{sink}"\n{options}')
        command = [
            option
            for option in stage.handler_options(directory, cluster, "", "array", events)
            if not option.startswith("--fluentd")
        ]
        handler = await stack.enter_async_context(
            stage.handler(["event_handler", *command, f"--config={configuration}"])
        )
        looks = []
        for share in (FIRST, LAST):
            watch = _delivered(directory / "storage", round(events * share))
            looks.append((await handler.until(asyncio.create_task(watch)), stage.look_at(handler.process.pid)))
    (first, begin), (last, end) = looks
    done = last - first
    return Run(done / (end.wall - begin.wall), (end.cpu - begin.cpu) / done * 1e6, end.peak)


async def _delivered(storage: Path, events: int) -> int:
    """Wait until the handler tells that so many are delivered, and return how many are."""
    while True:
        for socket in storage.glob("*.sock"):
            report = await report_of(socket)
            done = int(report["sinks"][0]["audit"]["delivered"])
            if done >= events:
                return done
        await asyncio.sleep(LOOK_EVERY)


async def run(options: argparse.Namespace) -> None:
    names = options.only.split(",") if options.only else [*HTTP, *servers.there()]
    sinks = ["fluentd", *(name for name in names if name != "fluentd")]
    runs: dict[tuple[str, int], list[Run]] = {(sink, delay): [] for sink in sinks for delay in DELAYS}
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
    parser.add_argument("--only", default="", help="types of sinks, with commas between; fluentd always is measured")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
