"""What it costs to look into the process: the same log with nobody looking, with /metrics asked every second, with ten
viewers of the page, and with metrics and traces exported every second and every batch; and the counting itself.

Who asks runs in this process, so that its CPU is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import aiohttp
from aiohttp import web

from benchmarks import stage
from event_handler.report import Counters

EVENTS = 300_000
VIEWERS = 10
ASK_EVERY = 1.0  # seconds; Prometheus asks every 15 to 60
A_BATCH = 500  # events, as Fluentd's arrays have on average
COUNTED = 200_000  # batches of the small measurement

Looking = Callable[[int, list[str]], AbstractAsyncContextManager[None]]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@asynccontextmanager
async def together(*work: asyncio.Task[None]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)


@asynccontextmanager
async def nobody(_: int, __: list[str]) -> AsyncIterator[None]:
    yield


async def ask(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        while True:
            await asyncio.sleep(ASK_EVERY)
            async with session.get(url) as answer:
                await answer.read()


async def view(url: str) -> None:
    await asyncio.sleep(ASK_EVERY)
    async with aiohttp.ClientSession() as session, session.get(url, timeout=aiohttp.ClientTimeout()) as answer:
        async for _ in answer.content.iter_any():
            pass


@asynccontextmanager
async def scraped(port: int, options: list[str]) -> AsyncIterator[None]:
    options.append(f"--listen=127.0.0.1:{port}")
    async with together(asyncio.create_task(ask(f"http://127.0.0.1:{port}/metrics"))):
        yield


@asynccontextmanager
async def viewed(port: int, options: list[str]) -> AsyncIterator[None]:
    options.append(f"--listen=127.0.0.1:{port}")
    paths = ("/api/reports", "/api/tail")
    tasks = [asyncio.create_task(view(f"http://127.0.0.1:{port}{path}")) for path in paths for _ in range(VIEWERS)]
    async with together(*tasks):
        yield


def exported(*more: str) -> Looking:
    @asynccontextmanager
    async def exporting(port: int, options: list[str]) -> AsyncIterator[None]:
        async def take(request: web.Request) -> web.Response:
            await request.read()
            return web.Response()

        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/{path:.*}", take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        options.extend([f"--telemetry-endpoint=http://127.0.0.1:{port}", "--telemetry-interval=1s", *more])
        try:
            yield
        finally:
            await runner.cleanup()

    return exporting


LOOKING: dict[str, Looking] = {
    "nobody looks": nobody,
    "/metrics every second": scraped,
    f"{VIEWERS} viewers of the page": viewed,
    "metrics exported every second": exported(),
    "and a trace of each batch": exported("--telemetry-traces"),
}


async def measure(looking: Looking, cluster: dict[str, object], events: int, directory: Path) -> float:
    """CPU seconds per million events."""
    async with stage.collector(directory / "collector", f"--expect={events}") as (collector, url):
        options = stage.handler_options(directory, cluster, url, "array", events)
        async with looking(free_port(), options), stage.handler(["event_handler", *options]) as handler:
            await handler.until(asyncio.create_task(handler.connected.wait()))
            begin = stage.look_at(handler.process.pid)
            await handler.until(asyncio.create_task(collector.line()))
            return (stage.look_at(handler.process.pid).cpu - begin.cpu) / events * 1e6


def counting() -> float:
    """Microseconds of CPU that the counters of a batch take: what is counted for a run, a request and an answer."""
    counters, begin = Counters(), process_time()
    for number in range(COUNTED):
        counters.read += A_BATCH
        counters.filtered += 1
        counters.duplicates += 1
        counters.requests["delivered"].observe(number % 100 / 100)
        counters.batches.observe(A_BATCH)
        counters.delivered += A_BATCH
        counters.bytes += 900 * A_BATCH
        counters.newest = max(counters.newest, perf_counter())
    return (process_time() - begin) / COUNTED * 1e6


async def run(options: argparse.Namespace) -> None:
    costs: dict[str, list[float]] = {name: [] for name in LOOKING}
    with tempfile.TemporaryDirectory() as place:
        async with stage.cluster(Path(place) / "cluster", "bulk", options.events) as cluster:
            for number in range(options.runs):
                for name, looking in LOOKING.items():
                    directory = Path(place) / f"{name}-{number}".replace("/", "")
                    costs[name].append(await measure(looking, cluster, options.events, directory))
    base = median(costs["nobody looks"])
    rows = [[name, f"{median(of):.2f}", f"{median(of) / base - 1:+.1%}"] for name, of in costs.items()]
    batch = counting()
    share = batch / A_BATCH / base
    rows.append([f"counting, {batch:.1f} µs a batch of {A_BATCH}", f"{batch / A_BATCH:.3f}", f"{share:.2%} of it"])
    stage.show("Telemetry", ["who looks", "CPU s / 10⁶ events", "more than nobody"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.telemetry", description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS, help="events of the log")
    parser.add_argument("--runs", type=int, default=3, help="runs of each; medians are shown")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
