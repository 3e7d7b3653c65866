"""Receivers of the forward protocol: our own, which takes what its specification says, and real ones where they are."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgpack

from event_handler.sinks.forward import ForwardOptions, ForwardSink
from tests.contract.message_adapter import MessageAdapter
from tests.contract.pki import Pki, make_pki

KEY, USER, PASSWORD = "a-shared-key-of-forward", "teleport", "a-password-of-forward"


class ForwardServer:
    """Keeps tags, times and records. `behave` says for each chunk whether it is acknowledged."""

    option = "sinks.fluent.url"

    def __init__(self, directory: Path, pki: Pki | None = None, *, key: str = "", more: dict[str, Any]) -> None:
        self._pki = pki
        self._key = key
        self._more = more
        self._directory = directory
        self.port = 0
        self.entries: list[tuple[str, float, dict[str, Any]]] = []
        self.chunks = 0
        self.connections = 0
        self.behave: Callable[[], str] = lambda: "acknowledge"
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        context = self._pki.server_context("localhost") if self._pki else None
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=64 * 1024 * 1024)

        async def read() -> Any:
            while True:
                for found in unpacker:
                    return found
                data = await reader.read(65536)
                if not data:
                    raise asyncio.IncompleteReadError(b"", None)
                unpacker.feed(data)

        try:
            if self._key and not await self._handshake(read, writer):
                return
            while await self._take(await read(), writer):
                pass
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            with contextlib.suppress(OSError):
                writer.close()

    async def _handshake(self, read: Callable[[], Any], writer: asyncio.StreamWriter) -> bool:
        nonce, auth = os.urandom(16), os.urandom(16)
        writer.write(msgpack.packb(["HELO", {"nonce": nonce, "auth": auth, "keepalive": True}]))
        kind, host, salt, digest, user, password = await read()
        expected = hashlib.sha512(salt + host.encode() + nonce + self._key.encode()).hexdigest()
        known = hashlib.sha512(auth + USER.encode() + PASSWORD.encode()).hexdigest()
        good = (kind, digest, user, password) == ("PING", expected, USER, known)
        mine = hashlib.sha512(salt + b"server" + nonce + self._key.encode()).hexdigest()
        writer.write(msgpack.packb(["PONG", good, "" if good else "shared_key mismatch", "server", mine]))
        await writer.drain()
        return good

    async def _take(self, message: Any, writer: asyncio.StreamWriter) -> bool:
        tag, entries, options = message
        behaviour = self.behave()
        if behaviour == "close":
            return False
        if options.get("compressed") == "gzip":
            entries = gzip.decompress(entries)
        found = list(msgpack.Unpacker(_Fed(entries), raw=False, strict_map_key=False))
        assert len(found) == options["size"]
        for time, record in found:
            assert time.code == 0
            seconds = int.from_bytes(time.data[:4]) + int.from_bytes(time.data[4:]) / 1e9
            self.entries.append((tag, seconds, record))
        self.chunks += 1
        if behaviour == "forget":
            return False
        answer = {"ack": secrets.token_hex(8) if behaviour == "other" else options["chunk"]}
        writer.write(msgpack.packb(answer))
        await writer.drain()
        return True

    def options(self, **more: Any) -> ForwardOptions:
        known: dict[str, Any] = {
            "url": f"{'tls' if self._pki else 'tcp'}://localhost:{self.port}",
            "timeout": 5.0,
            **self._more,
        }
        if self._pki:
            files = self._pki.client_files()
            known |= {"ca": files.ca, "cert": files.cert, "key": files.key}
        if self._key:
            known |= {"shared_key": self._key, "username": USER, "password": PASSWORD}
        return ForwardOptions(**{**known, **more})

    def sink(self, **more: Any) -> ForwardSink:
        return ForwardSink(self.options(**more), "fluent", "sinks.fluent")

    async def taken(self) -> list[dict[str, Any]]:
        return [record for _, _, record in self.entries]


class _Fed:
    """A file of bytes, as msgpack's unpacker reads one."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)

    def read(self, count: int) -> bytes:
        found, self._data = self._data[:count], self._data[count:]
        return bytes(found)


@asynccontextmanager
async def forwarding(
    directory: Path, *, secure: bool = False, key: str = "", **more: Any
) -> AsyncIterator[ForwardServer]:
    made = ForwardServer(directory, make_pki(directory, "forward") if secure else None, key=key, more=more)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


FORWARD = [
    MessageAdapter("forward-tcp", forwarding),
    MessageAdapter("forward-tls-shared-key", partial(forwarding, secure=True, key=KEY)),
    MessageAdapter("forward-gzip", partial(forwarding, compression="gzip")),
]
