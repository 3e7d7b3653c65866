"""Servers of the sinks that do not speak HTTP, each behind a relay that holds back what it answers.

NATS, Redis and PostgreSQL are real. Kafka is librdkafka's own cluster; syslog has no answer and the forward protocol a
short one, so these two have small receivers here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import msgpack
import nats
from tests.contract import postgresql_server
from tests.contract.kafka_mock import mock_cluster
from tests.contract.ports import free_ports
from tests.contract.server_process import listens, serving

from benchmarks import stage


@asynccontextmanager
async def _nats(directory: Path, delay_ms: int) -> AsyncIterator[str]:
    (port,) = free_ports(1)
    command = ["nats-server", "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(directory)]
    with serving(command, directory / "nats.log", lambda: listens(port)):
        connection = await nats.connect(f"nats://127.0.0.1:{port}")
        await connection.jetstream().add_stream(name="teleport", subjects=["teleport.>"])
        await connection.close()
        async with _late(port, delay_ms) as late:
            yield f'url = "nats://127.0.0.1:{late}"\n'


@asynccontextmanager
async def _redis(directory: Path, delay_ms: int) -> AsyncIterator[str]:
    (port,) = free_ports(1)
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", ""]
    with serving([*command, "--appendonly", "yes"], directory / "redis.log", lambda: listens(port)):
        async with _late(port, delay_ms) as late:
            yield f'url = "redis://127.0.0.1:{late}"\n'


@asynccontextmanager
async def _postgresql(_: Path, delay_ms: int) -> AsyncIterator[str]:
    with postgresql_server.serving() as server:
        async with _late(server.port, delay_ms) as late:
            login = f"{postgresql_server.USER}:{postgresql_server.PASSWORD}"
            yield f'url = "postgresql://{login}@127.0.0.1:{late}/postgres"\ncreate-table = true\n'


@asynccontextmanager
async def _kafka(_: Path, delay_ms: int) -> AsyncIterator[str]:
    """librdkafka's own brokers: they name their address themselves, and so cannot stand behind a relay."""
    async with _process("kafka", delay_ms) as said:
        yield f'brokers = "{said}"\ntls = false\ntopic = "teleport"\n'


@asynccontextmanager
async def _forward(_: Path, delay_ms: int) -> AsyncIterator[str]:
    async with _process("forward") as port, _late(int(port), delay_ms) as late:
        yield f'url = "tcp://127.0.0.1:{late}"\ncompression = "none"\n'


@asynccontextmanager
async def _syslog(_: Path, delay_ms: int) -> AsyncIterator[str]:
    async with _process("syslog") as port, _late(int(port), delay_ms) as late:
        yield f'url = "tcp://127.0.0.1:{late}"\n'


@asynccontextmanager
async def _process(kind: str, delay_ms: int = 0, to: int = 0) -> AsyncIterator[str]:
    """A process of this module, and where it listens."""
    running = await stage.spawn("benchmarks.servers", kind, f"--delay-ms={delay_ms}", f"--to={to}")
    try:
        yield str((await running.line())["at"])
    finally:
        await running.stop()


@asynccontextmanager
async def _late(port: int, delay_ms: int) -> AsyncIterator[int]:
    """The port of a relay, where there is a delay."""
    if not delay_ms:
        yield port
        return
    async with _process("relay", delay_ms, port) as relay:
        yield int(relay)


Start = Callable[[Path, int], AbstractAsyncContextManager[str]]
SERVERS: dict[str, tuple[Callable[[], object], Start]] = {  # whether it can be started here, and how
    "forward": (lambda: True, _forward),
    "syslog": (lambda: True, _syslog),
    "kafka": (lambda: True, _kafka),
    "nats": (lambda: shutil.which("nats-server"), _nats),
    "postgresql": (lambda: not postgresql_server.no_postgresql(), _postgresql),
    "redis-streams": (lambda: shutil.which("redis-server"), _redis),
}


def there() -> list[str]:
    """The sinks whose server can be started on this machine."""
    return [name for name, (can_start, _) in SERVERS.items() if can_start()]


@asynccontextmanager
async def receiving(sink: str, delay_ms: int, directory: Path) -> AsyncIterator[str]:
    """The options of a sink for its server, whose answers come `delay_ms` late."""
    place = directory / "server"
    place.mkdir()
    async with SERVERS[sink][1](place, delay_ms) as options:
        yield options


async def _relay(to: int, delay: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on, those of the server late."""
    from_server, to_server = await asyncio.open_connection("127.0.0.1", to)
    loop = asyncio.get_running_loop()

    async def forth() -> None:
        while data := await reader.read(1 << 18):
            to_server.write(data)
            await to_server.drain()

    async def back() -> None:
        while data := await from_server.read(1 << 18):
            loop.call_later(delay, writer.write, data)

    with contextlib.suppress(OSError):
        await asyncio.wait([asyncio.create_task(forth()), asyncio.create_task(back())], return_when="FIRST_COMPLETED")
    to_server.close()
    writer.close()


async def _acknowledge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    unpacker = msgpack.Unpacker(raw=False, max_buffer_size=64 * 1024 * 1024)
    while data := await reader.read(1 << 18):
        unpacker.feed(data)
        for message in unpacker:
            writer.write(msgpack.packb({"ack": message[-1]["chunk"]}))


async def _swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(1 << 18):
        pass


async def _serve(options: argparse.Namespace) -> None:
    if options.kind == "kafka":
        with mock_cluster() as cluster:
            cluster.create("teleport")
            cluster.slow(options.delay_ms)
            print(f'{{"at": "{cluster.brokers}"}}', flush=True)
            await asyncio.Event().wait()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _relay(options.to, options.delay_ms / 1000, reader, writer)

    serve = {"forward": _acknowledge, "syslog": _swallow, "relay": relay}[options.kind]
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(f'{{"at": {server.sockets[0].getsockname()[1]}}}', flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.servers", description=__doc__)
    parser.add_argument("kind", choices=["forward", "kafka", "syslog", "relay"])
    parser.add_argument("--to", type=int, default=0, help="port of the server behind a relay")
    parser.add_argument("--delay-ms", type=int, default=0, help="milliseconds that answers come late")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
