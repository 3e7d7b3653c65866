"""The bare reading rate: the handler's own client reads a whole log and throws it away; prints one JSON line."""

from __future__ import annotations

import argparse
import asyncio
import json
from datetime import UTC, datetime, timedelta
from time import perf_counter, process_time, time

from event_handler.telemetry import logs
from event_handler.teleport.auth import credentials
from event_handler.teleport.auth.tls import client_context
from event_handler.teleport.rpc.client import Client
from event_handler.teleport.rpc.connection import Connection
from event_handler.teleport.transport import Route, direct
from event_handler.teleport.transport.connector import Connector, always

PAGE = 10_000  # events asked for; a page ends at 1 MiB anyway


async def read_bulk(client: Client, days: float, streams: int) -> int:
    """Read all chunks of the last days, `streams` at a time; return the number of events."""
    slots = asyncio.Semaphore(streams)
    today = datetime.now(UTC)
    moments = [(today - timedelta(days=back)).timestamp() for back in range(round(days) + 1)]

    async def read(moment: float, chunk: str) -> int:
        async with slots:
            return sum([len(events) async for events, _ in client.export(moment, chunk, "")])

    chunks = [(moment, chunk) for moment in moments async for chunk in client.chunks(moment)]
    return sum(await asyncio.gather(*(read(moment, chunk) for moment, chunk in chunks)))


async def read_search(client: Client, days: float, ranges: int) -> int:
    """Read all pages of the last days, a day after the other as the handler does, or cut into `ranges`; return the
    number of events.

    Both ends of a search are inclusive, so the ends lie half a millisecond off, where no event is.
    """
    now = int(time()) + 0.0005
    begin = now - (days + 1 if ranges == 1 else days) * 86_400.0
    spans = round(days) + 1 if ranges == 1 else ranges
    length = (now - begin) / spans

    async def read(number: int) -> int:
        count, key = 0, ""
        while True:
            since = int(begin + number * length) + 0.0005
            until = int(begin + (number + 1) * length) + 0.0005
            events, key = await client.search(since, until, limit=PAGE, key=key)
            count += len(events)
            if not key:
                return count

    if ranges == 1:
        return sum([await read(number) for number in range(spans)])
    return sum(await asyncio.gather(*(read(number) for number in range(spans))))


async def measure(options: argparse.Namespace) -> dict[str, float]:
    client = Client(
        Connection(
            Connector(always(Route("direct", options.address, direct(options.address)))),
            client_context(credentials.load(options.identity, "", "", "")),
        )
    )
    await client.ping()
    wall, cpu = perf_counter(), process_time()
    if options.mode == "bulk":
        count = await read_bulk(client, options.days, options.streams)
    else:
        count = await read_search(client, options.days, options.ranges)
    seconds, used = perf_counter() - wall, process_time() - cpu
    client.close()
    return {"events": count, "seconds": seconds, "cpu": used}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reading", description=__doc__)
    parser.add_argument("--address", required=True, help="host:port of the cluster")
    parser.add_argument("--identity", required=True, help="identity file")
    parser.add_argument("--mode", choices=["bulk", "search"], required=True, help="which way to read")
    parser.add_argument("--days", type=float, required=True, help="days before now that the log covers")
    parser.add_argument("--streams", type=int, default=4, help="chunks read at a time, as many as the handler does")
    parser.add_argument("--ranges", type=int, default=1, help="ranges that a search reads side by side")
    logs.configure(False)  # to stderr
    print(json.dumps(asyncio.run(measure(parser.parse_args()))))


if __name__ == "__main__":
    main()
