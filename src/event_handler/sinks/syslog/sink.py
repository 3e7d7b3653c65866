"""Where messages go: the options, batches on a connection, and datagrams."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Sequence
from typing import Annotated, Literal

from pydantic import Field

from event_handler.event import Event
from event_handler.names import resolve
from event_handler.ports import Delivered, Limits, Partial, Retry, Verdict
from event_handler.setting import Setting
from event_handler.sinks.stream import Address, Dialer, StreamOptions, address_of
from event_handler.sinks.syslog.formats import Format, Header, messages_of, octet_counted
from event_handler.sinks.syslog.line import ConfirmedLine

SYSLOG_EVENTS = 2000  # of a batch
SYSLOG_BYTES = 1024 * 1024  # of a batch
SYSLOG_BATCHES = 32  # written and not confirmed, so that a confirmation that takes a fifth of a second costs no speed
SYSLOG_ROOM = 4  # times the bytes in flight of others: a quarter of a second at the speed of other sinks
SYSLOG_AGE = 0.2  # seconds an incomplete batch waits for more events
PORTS = {"tls": 6514, "tcp": 514, "udp": 514, "unix": 0, "unix-stream": 0}  # RFC 5425; RFC 6587 has none of its own
AROUND = 600  # bytes of a message beside the event at most: header and structured data
ESCAPED = 2  # times that escaping makes an event longer at most, nearly; CEF escapes `=` and `\\`
SHORTEST_MESSAGE = 2048  # bytes that every receiver should take (RFC 5424, section 6.1)
LARGEST_DATAGRAM = 65_000  # bytes; UDP takes no more
FACILITIES = {
    "user": 1, "auth": 4, "authpriv": 10, "audit": 13, "local0": 16, "local1": 17, "local2": 18, "local3": 19,
    "local4": 20, "local5": 21, "local6": 22, "local7": 23,
}  # fmt: skip

Facility = Literal[
    "user", "auth", "authpriv", "audit", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"
]


class SyslogOptions(StreamOptions):
    """Where to, and what messages look like."""

    url: Annotated[
        str,
        Setting("text", "tls://host:6514, tcp://host:514, udp://host:514, unix:///dev/log or unix-stream:///path",
                required=True),
    ] = ""  # fmt: skip
    format: Annotated[Format, Setting("choice", "the message: the event as JSON, or CEF, or LEEF")] = "json"
    facility: Annotated[Facility, Setting("choice", "facility of all messages")] = "audit"
    hostname: Annotated[str, Setting("text", "host of all messages", unset="the name of this machine")] = ""
    app_name: Annotated[str, Setting("text", "application of all messages")] = "teleport"
    enterprise: Annotated[int, Setting("number", "enterprise number in the structured data"), Field(ge=0)] = 49345
    framing: Annotated[
        Literal["octet-counting", "lines"],
        Setting("choice", "how messages follow one another over TCP and TLS (RFC 6587)"),
    ] = "octet-counting"
    max_message_bytes: Annotated[
        int,
        Setting("number", "bytes of the largest message that the receiver takes; rsyslog takes 8 KiB by default"),
        Field(ge=SHORTEST_MESSAGE, le=64 * 1024 * 1024),
    ] = 65_536
    confirm_after: Annotated[
        float,
        Setting("duration", "how long the connection must stand after a batch has arrived"),
        Field(ge=0.0, le=60.0),
    ] = 0.2


class SyslogSink:
    """A `syslog` sink. Raises SinkError when the address or the TLS files cannot be used."""

    def __init__(self, options: SyslogOptions, name: str, section: str) -> None:
        self.name = name
        self._options = options
        self._address = address_of(options.url, f"{section}.url", PORTS)
        datagrams = self._address.scheme in ("udp", "unix")
        largest = min(options.max_message_bytes, LARGEST_DATAGRAM) if datagrams else options.max_message_bytes
        self._largest = largest
        most = largest if options.format == "json" else largest // ESCAPED
        self.limits = Limits(
            SYSLOG_EVENTS,
            SYSLOG_BYTES,
            1 if datagrams else SYSLOG_BATCHES,
            SYSLOG_AGE,
            event_bytes=most - AROUND,
            room=SYSLOG_ROOM,
        )
        self._header = Header(
            FACILITIES[options.facility],
            options.hostname or socket.gethostname(),
            options.app_name,
            str(os.getpid()),
            options.enterprise,
        )
        self._dialer = Dialer(self._address, options, section, secure=self._address.scheme == "tls")
        self._line = ConfirmedLine(self._dialer.dial, options.confirm_after)
        self._datagrams = Datagrams(self._address) if datagrams else None

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        messages, large, most = messages_of(events, self._header, self._options.format), {}, self._largest
        if max(map(len, messages)) > most:  # what is around the event, or escaping, has made it so
            large = {place: self._too_large(message) for place, message in enumerate(messages) if len(message) > most}
            messages = [message for message in messages if len(message) <= most]
        failure = None
        if messages:
            sending = self._datagrams.send(messages) if self._datagrams else self._line.send(self._framed(messages))
            del messages  # what is written is confirmed long after, and needs no memory meanwhile
            failure = await self._sent(sending)
        if large and not failure:
            return Partial(frozenset(), large)
        return failure or Delivered()

    async def _sent(self, sending: Awaitable[None]) -> Retry | None:
        """Return why it was not delivered."""
        try:
            async with asyncio.timeout(self._options.timeout):
                await sending
        except (OSError, ValueError) as error:
            if not isinstance(error, ConnectionResetError):
                self._line.drop()
            return self._dialer.explain(error, self._options.timeout)
        return None

    def _too_large(self, message: bytes) -> str:
        return f"the message has {len(message):,} bytes, more than the {self._largest:,} that are taken"

    def _framed(self, messages: Sequence[bytes]) -> bytes:
        """Octet counting, or a line each: no message has a line break, for JSON escapes them."""
        if self._options.framing == "lines":
            return b"\n".join([*messages, b""])
        return octet_counted(messages)

    async def reopen(self) -> None:
        self._dialer.reload()

    async def close(self) -> None:
        await self._line.close()
        if self._datagrams is not None:
            self._datagrams.close()


class Datagrams:
    """Sends each message by itself, over UDP or to a UNIX socket; nobody says whether it arrives."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._socket: socket.socket | None = None
        self._sending = asyncio.Lock()

    async def send(self, messages: Sequence[bytes]) -> None:
        """Raises OSError."""
        loop = asyncio.get_running_loop()
        async with self._sending:
            if self._socket is None:
                self._socket = await self._connected()
            try:
                for message in messages:
                    await loop.sock_sendall(self._socket, message)
            except OSError:
                self.close()  # the server was started again: the socket of that name is another one
                raise

    async def _connected(self) -> socket.socket:
        if self._address.path:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            target: str | tuple[object, ...] = self._address.path
        else:
            found = (await resolve(self._address.host, self._address.port))[0]
            made = socket.socket(found[0], socket.SOCK_DGRAM)
            target = found[4]
        made.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(made, target)
        except BaseException:
            made.close()
            raise
        return made

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
