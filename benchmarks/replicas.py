"""Several event handlers on one PostgreSQL: throughput by their number, commits, and how long a take-over takes.

`python -m benchmarks.replicas` prints two tables. The receiver answers after 25 ms and each replica has one connection
to it, on which it sends event after event, so that the receiver is the bound. The rate is that of the first two thirds:
at the end of a short log some have nothing left to do. A take-over is measured from the signal that ends the owner of
the reading to the first event that its successor delivers; the log is searched, so that one replica reads at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import quantiles
from time import monotonic
from typing import Any

from rich.box import MARKDOWN
from rich.table import Table
from tests.contract.postgresql_server import Server, no_postgresql, serving
from tests.e2e.conftest import Collector, a_collector
from tests.e2e.processes import Started, configuration, handler, simulated

from benchmarks import stage

ANSWER = 0.025  # seconds
LIVE = 50  # events a second, while take-overs are measured
BETWEEN = 3.0  # seconds that a successor works before it is ended in its turn


@asynccontextmanager
async def set_up(server: Server, name: str, form: str, *options: str) -> AsyncIterator[tuple[Path, Collector, Path]]:
    """A cluster, a collector and a configuration with a database of its own; yields file, collector, directory."""
    await asyncio.to_thread(server.ask, f"CREATE DATABASE {name}")
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="replicas-")))
        collector = await stack.enter_async_context(a_collector(directory / "collector"))
        ready = await stack.enter_async_context(simulated(directory / "sim", *options, "--sessions=0"))
        config = configuration(directory, ready, collector)
        url = server.url(host="127.0.0.1", database=name)
        text = config.read_text().replace(f'storage = "{directory}/storage"', f'storage = "{url}"')
        config.write_text(text.replace('format = "array"', f'format = "{form}"'))
        yield config, collector, directory


async def throughput(server: Server, replicas: int, events: int) -> dict[str, Any]:
    """All of a log by so many replicas, timed from the moment when all are signed in."""
    name = f"by_{replicas}"
    async with set_up(server, name, "single", f"--events={events}", "--chunk=50") as (config, collector, _):
        collector.fail_every = 1  # until all are there
        options = ("--log-format=json", "--fluentd-max-connections=1", "--max-in-flight-bytes=1048576")
        running = [Started(await handler(config, *options)) for _ in range(replicas)]
        await asyncio.gather(*(one.until("connected to Teleport") for one in running))
        before = await asyncio.to_thread(commits, server, name)
        collector.fail_every, collector.slow = 0, ANSWER
        logs = [asyncio.create_task(drained(one)) for one in running]
        begun, known = monotonic(), len(collector.ids())
        while len(collector.ids()) < events * 2 // 3:
            await asyncio.sleep(0.05)
        seconds, delivered = monotonic() - begun, len(collector.ids()) - known
        done = await asyncio.to_thread(commits, server, name) - before
        while len(collector.ids()) < events:
            await asyncio.sleep(0.05)
        for one in running:
            one.process.terminate()
        await asyncio.gather(*logs)
        ids = collector.ids()
    return {
        "replicas": replicas,
        "events_s": delivered / seconds,
        "commits_s": done / seconds,
        "lost": events - len(ids),
        "repeats": ids.total() - len(ids),
    }


def commits(server: Server, database: str) -> int:
    return int(server.ask("SELECT xact_commit FROM pg_stat_database WHERE datname = %s", database)[0][0])


async def drained(one: Started) -> None:
    """Read its log to the end, which would stop it otherwise."""
    assert one.process.stderr is not None
    while await one.process.stderr.readline():
        pass
    await one.process.wait()


async def take_overs(server: Server, number: signal.Signals, times: int) -> tuple[list[float], int, int]:
    """Seconds of each take-over, events lost, and events that came twice."""
    seconds = (times + 2) * (BETWEEN + 12)
    options = ("--mode=search", "--events=200", f"--live={LIVE}", f"--live-seconds={seconds:.0f}")
    took = []
    async with set_up(server, f"over_{number.name.lower()}", "array", *options) as (config, collector, directory):

        async def start() -> tuple[Started, asyncio.Task[None]]:
            one = Started(await handler(config, "--log-format=json", "--poll-interval=200ms"))
            await one.until("connected to Teleport")
            return one, asyncio.create_task(drained(one))

        owner = await start()
        while len(collector.ids()) < 200:
            await asyncio.sleep(0.02)
        for _ in range(times):
            successor = await start()
            await asyncio.sleep(BETWEEN)
            owner[0].process.send_signal(number)
            at = monotonic()
            await owner[1]
            known = len(collector.ids())
            while len(collector.ids()) <= known:
                await asyncio.sleep(0.005)
            took.append(monotonic() - at)
            owner = successor
        await asyncio.sleep(BETWEEN)
        logged = set((directory / "sim" / "live.ids").read_text().split())
        await asyncio.sleep(BETWEEN)
        owner[0].process.kill()
        await owner[1]
        ids = collector.ids()
    return took, len(logged - set(ids)), ids.total() - len(ids)


async def measure(given: argparse.Namespace) -> None:
    with serving() as server:
        rows = [await throughput(server, number, given.events) for number in given.replicas]
        table = Table("replicas", "events/s", "of one", "commits/s", "lost", "repeats", box=MARKDOWN)
        for row in rows:
            share = f"{row['events_s'] / rows[0]['events_s']:.2f}"
            figures = (
                f"{row['events_s']:,.0f}",
                share,
                f"{row['commits_s']:.0f}",
                str(row["lost"]),
                str(row["repeats"]),
            )
            table.add_row(str(row["replicas"]), *figures)
        stage.console.print(table)
        if not given.take_overs:
            return
        table = Table("ended by", "take-overs", "p50", "p99", "longest", "lost", "repeats each", box=MARKDOWN)
        for number in (signal.SIGKILL, signal.SIGTERM):
            took, lost, repeats = await take_overs(server, number, given.take_overs)
            cuts = quantiles(took, n=100, method="inclusive")
            figures = (
                f"{cuts[49]:.2f} s",
                f"{cuts[98]:.2f} s",
                f"{max(took):.2f} s",
                str(lost),
                f"{repeats / len(took):.1f}",
            )
            table.add_row(number.name, str(len(took)), *figures)
        stage.console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=6000, help="events of the log that is read")
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--take-overs", type=int, default=100, help="of each kind; 0 for none")
    if why := no_postgresql():
        raise SystemExit(why)
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
