"""A connection to a NATS server: it publishes batches and hands each acknowledgement to its batch."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

from yarl import URL

from event_handler import about
from event_handler.errors import SinkError
from event_handler.ports import Retry
from event_handler.sinks.http import MISCONFIGURED_WAIT
from event_handler.sinks.nats.acks import AckBatch
from event_handler.sinks.nats.options import NatsSignIn

CONNECT_NATS = 10.0  # seconds for a connection to one server
GOODBYE_NATS = 1.0  # seconds for closing one


class NotSecureError(Exception):
    """The server speaks no TLS, and the URL asks for it."""


def nats_library() -> Any:
    """Raises SinkError when it is not installed."""
    try:
        return import_module("nats.aio.client")
    except ImportError:
        raise SinkError(
            "the NATS client is not installed", "Run: pip install 'teleport-event-handler[nats]'."
        ) from None


class NatsConnection:
    """It never connects again by itself, for then the client would keep messages that nobody waits for any more."""

    def __init__(self, section: str) -> None:
        self._section = section
        self._client: Any = _client(self._taken)
        self._batches: dict[bytes, AckBatch] = {}
        self._names: Iterator[int] = itertools.count()
        self._inbox = b""
        self._said: Exception | None = None  # the last error that the client has told
        self.is_open = False
        self.trouble = Retry("no acknowledgement came in time", unanswered=True)

    @property
    def max_payload(self) -> int:
        """Bytes of a message with its headers, by what the server says."""
        return int(self._client.max_payload)

    async def open(self, url: URL, context: ssl.SSLContext, sign_in: NatsSignIn) -> Retry | None:
        """Connect; a Retry says why that failed. Raises SinkError for files that cannot be used."""
        secure = url.scheme == "tls"

        def check() -> None:
            # The client would go on in the clear with a server that offers no TLS.
            if secure and not getattr(self._client, "_server_info", {}).get("tls_required"):
                raise NotSecureError

        arguments, public = sign_in.arguments(check)
        if public:
            self._client._public_nkey = public
        connecting = self._client.connect(
            servers=[str(url)],
            tls=context,
            name=about.PROGRAM,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=int(CONNECT_NATS),
            error_cb=self._failed,
            closed_cb=self._closed,
            **arguments,
        )
        try:
            await asyncio.wait_for(connecting, CONNECT_NATS)
            check()
            inbox = self._client.new_inbox()
            await self._client.subscribe(f"{inbox}.*.*", cb=self._answered)
            self._inbox = f"{inbox}.".encode()
        except NotSecureError:
            await self.close()
            return _misconfigured(
                f"the server at {url.host}:{url.port} speaks no TLS; turn it on there, or write nats:// in "
                f"{self._section}.url"
            )
        except Exception as error:
            await self.close()
            return self._no_connection(url, self._said or self._client.last_error or error)
        except asyncio.CancelledError:
            await self.close()
            raise
        self.is_open = True
        return None

    def batch(self, count: int) -> tuple[AckBatch, bytes]:
        """A batch that waits for answers, and its name."""
        name = b"%d" % next(self._names)
        made = self._batches[name] = AckBatch(count, self._section)
        return made, name

    def replies_to(self, name: bytes) -> bytes:
        """What the reply subjects of a batch begin with; the place of the message follows."""
        return b"%b%b." % (self._inbox, name)

    def forget(self, name: bytes) -> None:
        self._batches.pop(name, None)

    async def publish(self, messages: Sequence[bytes]) -> bool:
        """Whether the messages went out, or False when the connection has ended.

        The client's own `publish` takes one at a time, which costs as much as all else that is done for an event; so
        they are put where it puts each, through its private parts (pinned below 2.17, and tests deliver so).
        """
        try:
            if not self._client.is_connected:
                raise ConnectionError(self._client.last_error or "closed")
            await self._client._send_command(b"".join(messages))
            await self._client._flush_pending()
        except Exception as error:  # by the client's kinds of errors: closed, draining, its buffer
            self._end(Retry(f"the connection to NATS has ended ({_words(error)})", unanswered=True))
        return self.is_open

    async def close(self) -> None:
        self.is_open = False
        with contextlib.suppress(Exception):  # it is given up, whatever it says
            await asyncio.wait_for(self._client.close(), GOODBYE_NATS)
        transport = getattr(self._client, "_transport", None)
        for name in ("_io_writer", "_bare_io_writer"):  # after a TLS handshake that failed the client leaves one open
            writer = getattr(transport, name, None)
            if writer is not None:
                with contextlib.suppress(AttributeError):  # Python 3.11.2: a TLS transport that is closed already
                    writer.transport.abort()

    async def _answered(self, message: Any) -> None:
        self._taken(message.subject.encode(), message.data, message.headers)

    def _taken(self, subject: bytes, data: bytes, headers: Mapping[str, str] | None = None) -> bool:
        """Hand an answer to its batch; return whether it is one to a message of ours."""
        before, _, name_and_place = subject.partition(self._inbox)
        name, _, place = name_and_place.partition(b".")
        if before or not place.isdigit():
            return False
        if (batch := self._batches.get(name)) is not None:
            batch.take(int(place), data, headers)
        return True

    async def _failed(self, error: Exception) -> None:
        """Some errors the server tells without closing; the message that it refuses is never answered."""
        self._said = error
        if "permissions violation" in str(error).lower():
            reason = f"NATS answered: {_words(error)}; let the user publish to {self._section}.subject and subscribe"
            self._end(_misconfigured(f"{reason} to _INBOX.>"))

    async def _closed(self) -> None:
        last = self._client.last_error
        why = f" ({_words(last)})" if last else ""
        self._end(Retry(f"the connection to NATS has ended{why}", unanswered=True))

    def _end(self, trouble: Retry) -> None:
        """Nothing that waits is answered any more."""
        if not self.trouble.misconfigured:
            self.trouble = trouble
        self.is_open = False
        for batch in self._batches.values():
            batch.stop()

    def _no_connection(self, url: URL, error: Exception) -> Retry:
        whom, words = f"the server at {url.host}:{url.port}", _words(error)
        if "authorization" in words.lower() or "authentication" in words.lower():
            return _misconfigured(
                f"{whom} answered: {words}; check {self._section}.username and password, token, nkey-file or creds-file"
            )
        if isinstance(error, ssl.SSLError):
            return _misconfigured(f"TLS with {whom} failed ({words}); check {self._section}.ca, cert and key")
        if "maximum connections" in words.lower():
            return Retry(f"{whom} answered: {words}")
        if isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError):
            # A reset may overtake the words with which the server refuses the sign-in or the certificate.
            reason = f"{whom} closed the connection ({words}); if it stays so, it may refuse the sign-in or the "
            return Retry(f"{reason}certificate of {self._section}")
        return Retry(f"no connection to {whom} ({words}); check that it runs, and {self._section}.url")


def _client(taken: Callable[[bytes, bytes], bool]) -> Any:
    """A client that hands on an acknowledgement as it is read.

    By itself it makes an object of each, and puts that into a queue which a task of the subscription empties.
    """

    class Client(nats_library().Client):  # type: ignore[misc]  # a class without types
        async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
            if headers or not taken(bytes(subject), data):
                await super()._process_msg(sid, subject, reply, data, headers)

    return Client()


def _misconfigured(reason: str) -> Retry:
    return Retry(reason, MISCONFIGURED_WAIT, misconfigured=True)


def _words(error: BaseException) -> str:
    return " ".join(str(error).split()).removeprefix("nats: ")[:200] or type(error).__name__
