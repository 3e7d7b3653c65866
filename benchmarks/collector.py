"""A collector that is never the bottleneck: mutual TLS, HTTP/1.1 with keep-alive on a bare asyncio protocol, counts and
answers.

Prints one JSON line when it listens, one when the expected number of different events has arrived, and one when it is
terminated.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import ssl
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic, time
from typing import Any

import orjson
from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks.bodies import answer_to, events_of
from event_handler.simulator.certificates import issue, make_authority, name, write_secret

OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"
NO_LENGTH = b"HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(slots=True)
class Tally:
    """What has arrived. `lags` holds, with `timed`, the seconds from the time in an event to the moment it was
    counted.
    """

    expected: int
    timed: bool
    ids: set[str] = field(default_factory=set)
    lags: list[float] = field(default_factory=list)
    events: int = 0
    requests: int = 0
    octets: int = 0

    def take(self, path: str, body: bytes) -> int:
        """Count the events of a request; return how many it had."""
        events = events_of(path, body)
        complete = len(self.ids) >= self.expected
        self.ids.update([event["uid"] for event in events])
        self.events += len(events)
        self.requests += 1
        self.octets += len(body)
        if self.timed:
            now = time()
            self.lags += [round(now - datetime.fromisoformat(event["time"]).timestamp(), 3) for event in events]
        if not complete and len(self.ids) >= self.expected:
            tell(self.summary())
        return len(events)

    def summary(self) -> dict[str, Any]:
        counts = {"events": self.events, "different": len(self.ids), "requests": self.requests, "bytes": self.octets}
        return counts | {"lags": self.lags, "monotonic": monotonic()}


class Receiver(asyncio.Protocol):
    """One connection: bodies with a Content-Length, one request after another, each answered `delay` seconds later."""

    def __init__(self, tally: Tally, delay: float) -> None:
        self._tally = tally
        self._delay = delay
        self._buffer = bytearray()
        self._length = -1  # of the body that is being received, -1 while its head is
        self._path = ""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            if self._length < 0 and not self._read_head():
                return
            if len(self._buffer) < self._length:
                return
            body = bytes(self._buffer[: self._length])
            del self._buffer[: self._length]
            self._length = -1
            said = answer_to(self._path, self._tally.take(self._path, body))
            answer = OK % (len(said), said)
            if self._delay:
                asyncio.get_running_loop().call_later(self._delay, self._answer, answer)
            else:
                self._answer(answer)

    def _read_head(self) -> bool:
        """Take the head of a request off the buffer once it is whole; return whether it was."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._buffer[:end]).lower()
        self._path = head.split(b" ", 2)[1].partition(b"?")[0].decode()
        del self._buffer[: end + 4]
        _, found, rest = head.partition(b"\r\ncontent-length:")
        if not found:
            self._answer(NO_LENGTH)
            if self._transport is not None:
                self._transport.close()
            return False
        self._length = int(rest.partition(b"\r\n")[0])
        return True

    def _answer(self, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)


def tell(line: dict[str, Any]) -> None:
    print(orjson.dumps(line).decode(), flush=True)


def tls(directory: Path) -> ssl.SSLContext:
    """Write the authority and both certificates into `directory` and return the server's side of TLS."""
    authority = make_authority("collector")
    server_key, server_cert = issue(authority, name("server", "collector"), timedelta(days=1), ("localhost",))
    key, cert = issue(authority, name("client", "collector"), timedelta(days=1))
    files = {"ca.crt": authority.certificate.public_bytes(Encoding.PEM), "server.pem": server_cert + server_key}
    for file, content in (files | {"client.crt": cert, "client.key": key}).items():
        write_secret(directory / file, content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.pem")
    context.load_verify_locations(directory / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def serve(directory: Path, tally: Tally, delay: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Receiver(tally, delay), "localhost", 0, ssl=tls(directory))
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    tell({"url": f"https://localhost:{server.sockets[0].getsockname()[1]}"})
    await stop.wait()
    tell(tally.summary())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.collector", description=__doc__)
    parser.add_argument(
        "--directory", type=Path, required=True, help="where its certificates and the client's are written"
    )
    parser.add_argument(
        "--expect", type=int, default=0, help="different events after which it tells that all are there"
    )
    parser.add_argument("--delay-ms", type=float, default=0.0, help="milliseconds before each answer")
    parser.add_argument("--lags", action="store_true", help="keep how late each event was, by its own time")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    asyncio.run(serve(options.directory, Tally(options.expect, options.lags), options.delay_ms / 1000))


if __name__ == "__main__":
    main()
