"""Adds events to Redis streams: an event counts when the server has answered, on request when replicas have it too."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from yarl import URL

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Limits, Partial, Retry, Verdict
from event_handler.sinks.http_tls import Tls, TlsFiles
from event_handler.sinks.redis_streams.answers import judge_answers
from event_handler.sinks.redis_streams.commands import Adding, command
from event_handler.sinks.redis_streams.connections import (
    CONNECT_REDIS,
    Address,
    ExchangeError,
    RedisConnections,
    redis_library,
)
from event_handler.sinks.redis_streams.options import RedisOptions
from event_handler.sinks.registry import SinkType
from event_handler.sinks.secret import Secret

STREAM_EVENTS = 500  # of a batch
STREAM_BYTES = 1024 * 1024  # of a batch; Redis keeps the answers to a pipeline in memory, and others wait meanwhile
STREAM_AGE = 0.1  # seconds an incomplete batch waits for more events
REDIRECTIONS = 3  # that are followed for a batch; a cluster that moves a key needs one
REPLICA_WAIT = 5.0  # seconds at most that the server waits for its replicas, within the time-out
REDIS_PORT = 6379


class RedisStreamsSink:
    """A `redis-streams` sink. Raises SinkError when the options cannot be used, or the client is not installed."""

    def __init__(self, options: RedisOptions, name: str, section: str) -> None:
        self.name = name
        redis_library()
        self.limits = Limits(
            STREAM_EVENTS,
            STREAM_BYTES,
            options.max_connections,
            STREAM_AGE,
            timeout=options.timeout + CONNECT_REDIS,
        )
        self._options = options
        self._section = section
        url = _server(options.url, f"{section}.url")
        if options.username and not (options.password or options.password_file):
            raise SinkError(f"{section}.username is set without {section}.password", "Set both.")
        secret = None
        if options.password or options.password_file:
            secret = Secret(options.password, options.password_file, f"{section}.password")
        files = TlsFiles(options.ca, options.cert, options.key, options.min_tls)
        self._tls = Tls(section, files) if url.scheme == "rediss" else None
        self._connections = RedisConnections(options, self._tls, secret, section)
        address = url.host or "", url.port or REDIS_PORT
        self._addresses: dict[str, Address] = {options.stream: address, options.session_stream: address}
        self._first = address
        self._adding = {
            stream: Adding(stream, options.max_length, idempotent=options.idempotent) for stream in self._addresses
        }

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        stream = self._options.session_stream if events[0].session_id else self._options.stream
        count = len(events)
        commands = self._adding[stream].commands(events)
        if self._options.replicas:
            wait = min(REPLICA_WAIT, self._options.timeout / 2)
            commands += command(b"WAIT", b"%d" % self._options.replicas, b"%d" % round(wait * 1000))
        try:
            async with asyncio.timeout(self._options.timeout):
                for _ in range(REDIRECTIONS):
                    verdict = await self._exchange(stream, commands, count)
                    if verdict is not None:
                        return verdict
        except TimeoutError:
            return Retry(f"Redis does not answer within {self._options.timeout:g} s", unanswered=True)
        return Retry("the cluster sends from one server to another; it may be moving the key")

    async def _exchange(self, stream: str, commands: bytes, count: int) -> Verdict | None:
        """None when the stream is at another server of the cluster, which is known from now on."""
        replicas = self._options.replicas
        try:
            answers = await self._connections.exchange(self._addresses[stream], commands, count + bool(replicas))
        except ExchangeError as error:
            self._addresses[stream] = self._first  # the one that took the key may be gone from the cluster
            verdict = judge_answers(error.answers[:count], count, error.verdict, self._section)
            # Without the answer of WAIT nothing is known of the replicas.
            return error.verdict if replicas else verdict
        if type(answers[0]).__name__ == "MovedError":
            moved = answers[0]
            self._addresses[stream] = moved.host or self._addresses[stream][0], int(moved.port)
            return None
        verdict = judge_answers(answers[:count], count, None, self._section)
        if replicas and not isinstance(verdict, Retry):
            return self._with_replicas(verdict, answers[count])
        return verdict

    def _with_replicas(self, verdict: Verdict, answer: object) -> Verdict:
        if isinstance(answer, Exception):
            said = judge_answers([answer], 1, None, self._section)
            return said if isinstance(said, Retry) else verdict
        if isinstance(answer, int) and answer >= self._options.replicas:
            return verdict
        why = verdict.reason if isinstance(verdict, Partial) else f"{answer} of {self._options.replicas} have them"
        return Retry(f"too few replicas have acknowledged the events ({why}); see {self._section}.replicas")

    async def reopen(self) -> None:
        if self._tls is not None:
            self._tls.reload()
        self._connections.forget()

    async def close(self) -> None:
        self._connections.forget()


def _server(text: str, option: str) -> URL:
    """Raises SinkError for what is no server's URL, or holds a password or a database."""
    try:
        url = URL(text.strip())
        bad = url.scheme not in ("redis", "rediss") or not url.host or url.user is not None
        bad = bad or url.password is not None or url.path.strip("/") != ""
    except ValueError:
        bad = True
    if bad:
        raise SinkError(
            f"{option} names no Redis server",
            "Write rediss://HOST:6379 or redis://HOST:6379; user, password and db have own options.",
        )
    return url


SINK = SinkType("Redis streams, and Valkey's", RedisOptions, RedisStreamsSink)
