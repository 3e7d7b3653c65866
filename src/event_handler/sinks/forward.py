"""Delivers to Fluentd and Fluent Bit by the forward protocol, many events in a chunk, each chunk acknowledged.

Facts: "Fluentd Forward Protocol Specification (v1)": PackedForward, CompressedPackedForward, EventTime, the option
`chunk` with its answer, and the handshake with a shared key.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import hmac
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal
from urllib.parse import quote

import orjson
from pydantic import Field

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Limits, Retry, Verdict
from event_handler.setting import Setting
from event_handler.sinks.fields import SESSION_FIELD
from event_handler.sinks.http_faults import MISCONFIGURED_WAIT
from event_handler.sinks.packing import FAST
from event_handler.sinks.registry import SinkType
from event_handler.sinks.secret import Secret
from event_handler.sinks.stream import Dialer, StreamOptions, address_of, close_stream

CHUNK_EVENTS = 1000  # of a chunk; a lost answer repeats all of them
CHUNK_BYTES = 1024 * 1024  # of a chunk; Fluentd advises to keep below 8 MiB (`chunk_size_limit`)
CHUNK_AGE = 0.1  # seconds an incomplete chunk waits for more events
FORWARD_PORTS = {"tls": 24224, "tcp": 24224, "unix": 0}
EVENT_TIME = 0  # type of the extension: seconds and nanoseconds, four bytes each
ANSWER_READ = 64 * 1024  # bytes of an answer that are read at a time; an acknowledgement has some forty
LARGEST_TIME = 2**32 - 1  # seconds; EventTime has 32 bits


class RefusedError(Exception):
    """The receiver does not let us in, or is not who it should be. The text names what to check."""


class ForwardOptions(StreamOptions):
    """Where to, under which tags, and how to sign in."""

    url: Annotated[str, Setting("text", "tls://host:24224, tcp://host:24224, or unix:///path", required=True)] = ""
    tag: Annotated[str, Setting("text", "tag of audit events")] = "teleport.audit"
    session_tag: Annotated[str, Setting("text", "tag of recorded events; .<session id> is appended")] = (
        "teleport.session"
    )
    shared_key: Annotated[
        str,
        Setting("text", "shared key of the receiver; better in shared-key-file or the variable", secret=True),
        Field(repr=False),
    ] = ""
    shared_key_file: Annotated[str, Setting("file", "file with that key; it is read again when it changes")] = ""
    username: Annotated[str, Setting("text", "user name, where the receiver asks for one")] = ""
    password: Annotated[
        str, Setting("text", "its password; better in password-file or the variable", secret=True), Field(repr=False)
    ] = ""
    password_file: Annotated[str, Setting("file", "file with the password; it is read again when it changes")] = ""
    hostname: Annotated[str, Setting("text", "how we name ourselves in the handshake", unset="this machine")] = ""
    compression: Annotated[Literal["none", "gzip"], Setting("choice", "how chunks are packed")] = "none"
    max_connections: Annotated[int, Setting("number", "chunks in flight at most"), Field(ge=1, le=100)] = 4


class ForwardSink:
    """A `forward` sink. Raises SinkError when the options cannot be used, or msgpack is not installed."""

    def __init__(self, options: ForwardOptions, name: str, section: str) -> None:
        self.name = name
        self.limits = Limits(CHUNK_EVENTS, CHUNK_BYTES, options.max_connections, CHUNK_AGE)
        self._options = options
        address = address_of(options.url, f"{section}.url", FORWARD_PORTS)
        self._dialer = Dialer(address, options, section, secure=address.scheme == "tls")
        self._msgpack = _library(section)
        self._login = Handshake(options, section)
        self._idle: list[_Link] = []
        self._closed = False

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        seconds = self._options.timeout
        try:
            return await asyncio.wait_for(self._deliver(events), seconds)
        except RefusedError as error:
            return Retry(str(error), MISCONFIGURED_WAIT, misconfigured=True)
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            return self._dialer.explain(error, seconds)

    async def _deliver(self, events: Sequence[Event]) -> Verdict:
        chunk = base64.b64encode(os.urandom(16)).decode()
        message = await asyncio.to_thread(self._message, events, chunk)
        while True:
            used = bool(self._idle)
            link = self._idle.pop() if self._idle else await self._connected()
            try:
                await link.send(message)
                acknowledged = await link.answer()
            except (OSError, asyncio.IncompleteReadError):
                link.end()
                if used:
                    continue  # it was closed while nobody used it: not the receiver's fault
                raise
            except BaseException:
                link.end()
                raise
            break
        if not isinstance(acknowledged, dict) or acknowledged.get("ack") != chunk:
            link.end()
            return Retry("the receiver answered something else than an acknowledgement; is it Fluentd or Fluent Bit?")
        if self._closed:
            link.end()
        else:
            self._idle.append(link)
        return Delivered()

    async def _connected(self) -> _Link:
        """A connection that is signed in. Raises OSError or RefusedError."""
        link = _Link(self._msgpack, *await self._dialer.dial())
        try:
            if self._login.wanted:
                await self._login.do(link)
        except BaseException:
            link.end()
            raise
        return link

    def _message(self, events: Sequence[Event], chunk: str) -> bytes:
        """`[tag, entries, options]`, the entries as one binary of packed `[time, record]`."""
        packer = self._msgpack.Packer(autoreset=False)
        ext = self._msgpack.ExtType
        session = events[0].session_id
        for event in events:
            record = orjson.loads(event.body)
            if session:
                record = {SESSION_FIELD: session, **record}
            packer.pack([ext(EVENT_TIME, event_time(event.time)), record])
        entries = packer.bytes()
        options: dict[str, Any] = {"size": len(events), "chunk": chunk}
        if self._options.compression == "gzip":
            entries = gzip.compress(entries, FAST, mtime=0)
            options["compressed"] = "gzip"
        tag = f"{self._options.session_tag}.{quote(session, safe='')}" if session else self._options.tag
        packed: bytes = self._msgpack.packb([tag, entries, options])
        return packed

    async def reopen(self) -> None:
        self._dialer.reload()
        self._drop()

    def _drop(self) -> None:
        for link in self._idle:
            link.end()
        self._idle.clear()

    async def close(self) -> None:
        self._closed = True
        idle, self._idle = self._idle, []
        for link in idle:
            await close_stream(link.writer)


def event_time(moment: float) -> bytes:
    """Seconds and nanoseconds; a time out of their range is the nearest in it."""
    known = min(max(moment, 0.0), float(LARGEST_TIME))
    seconds = int(known)
    return seconds.to_bytes(4) + round((known - seconds) * 1e6 // 1 * 1000).to_bytes(4)


class _Link:
    """One connection, over which MessagePack goes both ways."""

    def __init__(self, msgpack: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.msgpack = msgpack
        self.writer = writer
        self._reader = reader
        self._unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=ANSWER_READ)

    async def send(self, message: bytes) -> None:
        self.writer.write(message)
        await self.writer.drain()

    async def answer(self) -> Any:
        """The next object. Raises OSError or IncompleteReadError when there is none, ValueError for what is none."""
        while True:
            for found in self._unpacker:
                return found
            data = await self._reader.read(ANSWER_READ)
            if not data:
                raise asyncio.IncompleteReadError(b"", None)
            self._unpacker.feed(data)

    def end(self) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self.writer.transport.abort()


class Handshake:
    """Signs in with a shared key, and makes sure that the receiver knows it too."""

    def __init__(self, options: ForwardOptions, section: str) -> None:
        self._section = section
        self._username = options.username
        self._host = options.hostname or socket.gethostname()
        given = options.shared_key or options.shared_key_file
        self._key = Secret(options.shared_key, options.shared_key_file, f"{section}.shared-key") if given else None
        with_password = options.username or options.password or options.password_file
        if with_password and self._key is None:
            raise SinkError(f"{section}.username is set without {section}.shared-key", "Set both.")
        self._password = (
            Secret(options.password, options.password_file, f"{section}.password") if with_password else None
        )

    @property
    def wanted(self) -> bool:
        return self._key is not None

    async def do(self, link: _Link) -> None:
        """Raises RefusedError when one of the two does not know the key, OSError when the connection ends."""
        key, section = self._key, self._section
        if key is None:
            return
        key.changed()
        hello = await link.answer()
        if not isinstance(hello, list) or len(hello) < 2 or hello[0] != "HELO" or not isinstance(hello[1], dict):
            raise RefusedError(f"the receiver does not ask for a shared key; remove {section}.shared-key")
        nonce, auth = _bytes(hello[1].get("nonce", "")), _bytes(hello[1].get("auth", ""))
        salt = os.urandom(16)
        await link.send(
            link.msgpack.packb(["PING", self._host, salt, self._digest(salt, self._host, nonce), *self._who(auth)])
        )
        pong = await link.answer()
        if not isinstance(pong, list) or len(pong) < 5 or pong[0] != "PONG":
            raise RefusedError("the receiver did not answer the handshake; is it Fluentd or Fluent Bit?")
        if not pong[1]:
            raise RefusedError(f"the receiver refused the handshake ({pong[2]}); check {section}.shared-key")
        if not hmac.compare_digest(str(pong[4]), self._digest(salt, str(pong[3]), nonce)):
            raise RefusedError(f"the receiver does not know the shared key; check {section}.shared-key and its address")

    def _digest(self, salt: bytes, host: str, nonce: bytes) -> str:
        key = self._key.value if self._key else ""
        return hashlib.sha512(salt + host.encode() + nonce + key.encode()).hexdigest()

    def _who(self, auth: bytes) -> tuple[str, str]:
        if not auth or self._password is None:
            return "", ""
        self._password.changed()
        text = auth + self._username.encode() + self._password.value.encode()
        return self._username, hashlib.sha512(text).hexdigest()


def _bytes(value: object) -> bytes:
    """Salts and nonces come as text or as binary."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")


def _library(section: str) -> Any:
    try:
        import msgpack
    except ImportError:
        raise SinkError(f"[{section}] needs msgpack", "Run: pip install 'teleport-event-handler[forward]'.") from None
    return msgpack


SINK = SinkType("Fluentd and Fluent Bit by the forward protocol, with acknowledgement", ForwardOptions, ForwardSink)
