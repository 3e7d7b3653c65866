"""gRPC libraries on the same streams: grpclib as the handler uses it, grpcio, and grpcio behind a local socket
bridge.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import tempfile
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter, process_time, time
from typing import Any

import grpc
import grpc.aio

from benchmarks import stage
from event_handler.telemetry import logs
from event_handler.teleport.auth import credentials
from event_handler.teleport.auth.tls import client_context
from event_handler.teleport.rpc.connection import Connection
from event_handler.teleport.transport import Route, direct, split_address
from event_handler.teleport.transport.connector import SERVER_NAME, Connector, always
from event_handler.teleport.wire import decode, messages

AUDIT = "/teleport.auditlog.v1.AuditLogService/"
CHUNKS, EXPORT = AUDIT + "GetEventExportChunks", AUDIT + "ExportUnstructuredEvents"
STREAMS = (1, 4)
CHUNKS_A_DAY = 8
PIECE = 256 * 1024  # bytes that the bridge copies at once
OPTIONS = (("grpc.ssl_target_name_override", SERVER_NAME), ("grpc.max_receive_message_length", -1))

Requests = list[bytes]
Reader = Callable[[argparse.Namespace], dict[str, float]]


def chunk_requests(moment: float, answers: list[bytes]) -> Requests:
    return [
        messages.write_time(1, moment) + messages.write_text(2, decode.read_text_field(answer, 1)) for answer in answers
    ]


def moments(days: int) -> list[float]:
    return [time() - back * 86_400.0 for back in range(days + 1)]


def timed(count: Callable[[], int]) -> dict[str, float]:
    wall, cpu = perf_counter(), process_time()
    events = count()
    return {"events": events, "seconds": perf_counter() - wall, "cpu": process_time() - cpu}


async def timed_async(requests: Requests, streams: int, read: Callable[[bytes], Awaitable[int]]) -> dict[str, float]:
    slots = asyncio.Semaphore(streams)

    async def one(request: bytes) -> int:
        async with slots:
            return await read(request)

    wall, cpu = perf_counter(), process_time()
    events = sum(await asyncio.gather(*(one(request) for request in requests)))
    return {"events": events, "seconds": perf_counter() - wall, "cpu": process_time() - cpu}


def grpclib(options: argparse.Namespace) -> dict[str, float]:
    async def run() -> dict[str, float]:
        connection = Connection(
            Connector(always(Route("direct", options.address, direct(options.address)))),
            client_context(credentials.load(options.identity, "", "", "")),
        )
        requests: Requests = []
        for moment in moments(options.days):
            requests += chunk_requests(
                moment, [a async for some in connection.stream(CHUNKS, messages.write_time(1, moment)) for a in some]
            )

        async def read(request: bytes) -> int:
            return sum([len(some) async for some in connection.stream(EXPORT, request)])

        result = await timed_async(requests, options.streams, read)
        connection.close()
        return result

    return asyncio.run(run())


def secrets(options: argparse.Namespace) -> grpc.ChannelCredentials:
    signed_in = credentials.load(options.identity, "", "", "")
    return grpc.ssl_channel_credentials(signed_in.authorities_pem, signed_in.key_pem, signed_in.certificate_pem)


def read_threaded(channel: grpc.Channel, options: argparse.Namespace) -> dict[str, float]:
    list_chunks, export = channel.unary_stream(CHUNKS), channel.unary_stream(EXPORT)
    requests: Requests = []
    for moment in moments(options.days):
        requests += chunk_requests(moment, list(list_chunks(messages.write_time(1, moment))))

    def read(request: bytes) -> int:
        return sum(1 for _ in export(request))

    with ThreadPoolExecutor(options.streams) as threads:
        return timed(lambda: sum(threads.map(read, requests)))


def grpcio_threads(options: argparse.Namespace) -> dict[str, float]:
    with grpc.secure_channel(options.address, secrets(options), options=OPTIONS) as channel:
        return read_threaded(channel, options)


def grpcio_bridge(options: argparse.Namespace) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "bridge")
        listening = threading.Event()
        bridging = threading.Thread(target=lambda: asyncio.run(bridge(options, path, listening)), daemon=True)
        bridging.start()
        listening.wait()
        with grpc.insecure_channel(f"unix:{path}", options=OPTIONS) as channel:
            result = read_threaded(channel, options)
        bridging.join()
        return result


def grpcio_aio(options: argparse.Namespace) -> dict[str, float]:
    async def run() -> dict[str, float]:
        async with grpc.aio.secure_channel(options.address, secrets(options), options=OPTIONS) as channel:
            list_chunks, export = channel.unary_stream(CHUNKS), channel.unary_stream(EXPORT)
            requests: Requests = []
            for moment in moments(options.days):
                requests += chunk_requests(moment, [a async for a in list_chunks(messages.write_time(1, moment))])

            async def read(request: bytes) -> int:
                return sum([1 async for _ in export(request)])

            return await timed_async(requests, options.streams, read)

    return asyncio.run(run())


async def bridge(options: argparse.Namespace, path: str, listening: threading.Event) -> None:
    """Take one connection on a unix socket and copy it to a TLS session with the cluster: grpcio cannot dial by
    itself.
    """
    context = client_context(credentials.load(options.identity, "", "", ""))
    host, port = split_address(options.address)
    finished = asyncio.Event()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(PIECE):
                writer.write(data)
                await writer.drain()
        except (ConnectionError, ssl.SSLError):
            pass  # either side has closed: the other is closed below
        finally:
            writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(
            host, port, ssl=context, server_hostname=SERVER_NAME, limit=PIECE
        )
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))
        finished.set()

    server = await asyncio.start_unix_server(connected, path, limit=PIECE)
    listening.set()
    await finished.wait()
    server.close()


READERS: dict[str, Reader] = {
    "grpclib": grpclib,
    "grpcio, threads": grpcio_threads,
    "grpcio, aio": grpcio_aio,
    "grpcio, threads, behind a bridge": grpcio_bridge,
}


async def compare(events: int) -> list[list[str]]:
    """Read the same log with every library, each in a process of its own."""
    rows: list[list[str]] = []
    days = stage.days(events)
    with tempfile.TemporaryDirectory() as directory:
        chunk = max(1, events // days // CHUNKS_A_DAY)
        async with stage.cluster(Path(directory), "bulk", events, chunk=chunk) as cluster:
            for name in READERS:
                figures: list[str] = []
                for streams in STREAMS:
                    where = (f"--address={cluster['address']}", f"--identity={cluster['identity']}", f"--days={days}")
                    got = await stage.result_of(
                        "benchmarks.grpc_libraries", f"--reader={name}", f"--streams={streams}", *where
                    )
                    if got["events"] != events:
                        raise SystemExit(f"{name} read {got['events']} of {events} events")
                    figures += [f"{events / got['seconds']:,.0f}", f"{got['cpu'] / events * 1e6:.0f}"]
                rows.append([name, *figures])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grpc_libraries", description=__doc__)
    parser.add_argument("--events", type=int, default=100_000, help="events to read")
    parser.add_argument("--reader", choices=list(READERS), help="only read with this library and print one JSON line")
    parser.add_argument("--streams", type=int, default=1, help="with --reader: chunks read at a time")
    parser.add_argument("--address", help="with --reader: host:port of the cluster")
    parser.add_argument("--identity", help="with --reader: identity file")
    parser.add_argument("--days", type=int, default=2, help="with --reader: days before now that the log covers")
    options: Any = parser.parse_args()
    if options.reader:
        logs.configure(False)  # to stderr
        print(json.dumps(READERS[options.reader](options)))
        return
    rows = asyncio.run(compare(options.events))
    stage.show(
        "gRPC libraries", ["library", "1 stream: events/s", "CPU µs/event", "4 streams: events/s", "CPU µs/event"], rows
    )


if __name__ == "__main__":
    main()
