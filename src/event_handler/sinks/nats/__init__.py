"""Publishes to NATS JetStream: an event counts when the stream has acknowledged it, and its id makes twice once."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

from yarl import URL

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Limits, Retry, Verdict
from event_handler.sinks.fields import session_field, with_fields
from event_handler.sinks.http import MISCONFIGURED_WAIT
from event_handler.sinks.http_tls import Tls, TlsFiles
from event_handler.sinks.nats.acks import AckBatch
from event_handler.sinks.nats.connection import CONNECT_NATS, NatsConnection, nats_library
from event_handler.sinks.nats.messages import Publication
from event_handler.sinks.nats.options import NatsOptions, NatsSignIn, Subject
from event_handler.sinks.registry import SinkType

NATS_EVENTS = 500  # of a batch
NATS_BYTES = 1024 * 1024  # of a batch
NATS_AGE = 0.1  # seconds an incomplete batch waits for more events
NATS_PAYLOAD = 1024 * 1024  # bytes: max_payload of a server as it is installed, for a message with its headers
NATS_AROUND = 1024  # bytes that headers and the name of a session may add to an event
NATS_PORT = 4222


class NatsSink:
    """A `nats` sink. Raises SinkError when the options cannot be used, or the client is not installed."""

    def __init__(self, options: NatsOptions, name: str, section: str) -> None:
        self.name = name
        nats_library()
        self.limits = Limits(
            NATS_EVENTS,
            NATS_BYTES,
            options.max_connections,
            NATS_AGE,
            timeout=options.timeout + CONNECT_NATS,
            event_bytes=NATS_PAYLOAD - NATS_AROUND,
        )
        self._options = options
        self._section = section
        urls = [_server(text.strip(), f"{section}.url") for text in options.url.split(",") if text.strip()]
        self._servers = itertools.cycle(urls)
        self._sign_in = NatsSignIn(options, section)
        self._subject = Subject(options.subject, f"{section}.subject")
        self._session_subject = Subject(options.session_subject, f"{section}.session-subject")
        self._publication = Publication(options.stream)
        self._tls = Tls(section, TlsFiles(options.ca, options.cert, options.key, options.min_tls))
        self._connection: NatsConnection | None = None
        self._connecting = asyncio.Lock()
        self._tries = 0
        self._failure: Retry | None = None  # of the last try to connect

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        deadline = asyncio.get_running_loop().time() + self._options.timeout
        connection = await self._connected()
        if isinstance(connection, Retry):
            return connection
        batch, name = connection.batch(len(events))
        messages = self._messages(events, batch, connection.replies_to(name), connection.max_payload)
        try:
            async with asyncio.timeout_at(deadline):
                if not messages or await connection.publish(messages):
                    await batch.settled
        except TimeoutError:
            if batch.has_none:  # perhaps nobody hears us; the next batch has a new connection
                await connection.close()
        finally:
            connection.forget(name)
        return batch.verdict(connection.trouble)

    def _messages(self, events: Sequence[Event], batch: AckBatch, replies: bytes, most: int) -> list[bytes]:
        """What is written for each event that the server takes; the others are rejected."""
        session = events[0].session_id
        wrapped = session_field(session) if session else b""
        subject = self._session_subject if session else self._subject
        messages = []
        for place, event in enumerate(events):
            body = with_fields(event.body, wrapped) if wrapped else event.body
            if len(body) + NATS_AROUND > most:
                batch.reject(place, f"the event has {len(body):,} bytes, more than max_payload of the server")
                continue
            name = subject.of(event.type, session).encode()
            messages.append(self._publication.of(name, b"%b%d" % (replies, place), event.id, body))
        return messages

    async def _connected(self) -> NatsConnection | Retry:
        tries = self._tries
        async with self._connecting:
            if self._connection is not None and self._connection.is_open:
                return self._connection
            if self._tries != tries and self._failure is not None:  # while this one waited; it would wait as long again
                return self._failure
            if self._connection is not None:
                await self._connection.close()
            made = NatsConnection(self._section)
            self._tries += 1
            try:
                self._failure = await made.open(next(self._servers), self._tls.current(), self._sign_in)
            except SinkError as error:
                self._failure = Retry(str(error), MISCONFIGURED_WAIT, misconfigured=True)
            self._connection = None if self._failure else made
            return self._failure or made

    async def reopen(self) -> None:
        """The files are read when the next connection is made: make one."""
        self._tls.reload()
        await self.close()

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


def _server(text: str, option: str) -> URL:
    """Raises SinkError for what is no server's URL, or holds a password."""
    try:
        url = URL(text)
        bad = url.scheme not in ("nats", "tls") or not url.host or url.user is not None
    except ValueError:
        bad = True
    if bad:
        raise SinkError(
            f"{option} names no NATS server", "Write tls://HOST:4222 or nats://HOST:4222; secrets have own options."
        )
    return url if url.explicit_port else url.with_port(NATS_PORT)


SINK = SinkType("NATS JetStream", NatsOptions, NatsSink)
