"""Connections to a Redis server, made by its client; each carries one batch of commands at a time."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from importlib import import_module
from typing import Any

from event_handler.errors import SinkError
from event_handler.ports import Retry
from event_handler.sinks.http import MISCONFIGURED_WAIT
from event_handler.sinks.http_tls import Tls
from event_handler.sinks.redis_streams.answers import refusal
from event_handler.sinks.redis_streams.options import RedisOptions
from event_handler.sinks.secret import Secret

CONNECT_REDIS = 10.0  # seconds for a connection with its sign-in
REDIS_IDLE = 1.0  # seconds after which a connection is looked at before it is used again
Address = tuple[str, int]


def redis_library() -> Any:
    """Raises SinkError when it is not installed."""
    try:
        return import_module("redis.asyncio.connection"), import_module("redis.exceptions")
    except ImportError:
        raise SinkError(
            "the Redis client is not installed", "Run: pip install 'teleport-event-handler[redis]'."
        ) from None


class ExchangeError(Exception):
    """A connection was not made, or has ended: `verdict` is what that means, `answers` those that had come."""

    def __init__(self, verdict: Retry, answers: list[Any] | None = None) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict
        self.answers = answers or []


class _Context:
    """Stands where the client would make a TLS context of its own."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.check_hostname = context.check_hostname
        self._context = context

    def get(self) -> ssl.SSLContext:
        return self._context


class RedisConnections:
    """At most `options.max_connections` to each address at a time. `secret` is the password, None without one."""

    def __init__(self, options: RedisOptions, tls: Tls | None, secret: Secret | None, section: str) -> None:
        self._options = options
        self._tls = tls
        self._secret = secret
        self._section = section
        self._library, self._errors = redis_library()
        self._idle: dict[Address, list[tuple[Any, float]]] = {}
        self._context: ssl.SSLContext | None = None

    async def exchange(self, address: Address, commands: bytes, count: int) -> list[Any]:
        """The answers to so many commands, those that are errors as exceptions. Raises ExchangeError."""
        connection = await self._connected(address)
        answers: list[Any] = []
        complete = False
        try:
            await connection.send_packed_command([commands], check_health=False)
            for _ in range(count):
                try:
                    answers.append(await connection.read_response(disable_decoding=True, disconnect_on_error=False))
                except (self._errors.ResponseError, self._errors.BusyLoadingError) as error:
                    answers.append(error)
                except self._errors.AuthenticationError as error:
                    answers.append(error)
            complete = True
        except (self._errors.RedisError, OSError) as error:
            raise ExchangeError(
                Retry(f"the connection to Redis has ended ({_words(error)})", unanswered=True), answers
            ) from None
        finally:
            if complete and not any(isinstance(answer, self._errors.ReadOnlyError) for answer in answers):
                self._idle.setdefault(address, []).append((connection, asyncio.get_running_loop().time()))
            else:
                self._drop(connection)
        return answers

    def forget(self) -> None:
        """Make new connections from now on."""
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection, _ in connections:
                self._drop(connection)

    async def _connected(self, address: Address) -> Any:
        context = self._tls.current() if self._tls is not None else None
        if (self._secret is not None and self._secret.changed()) or context is not self._context:
            self.forget()
        self._context = context
        idle = self._idle.get(address, [])
        while idle:
            connection, since = idle.pop()
            if await self._is_usable(connection, since):
                return connection
            self._drop(connection)
        return await self._connect(address, context)

    async def _is_usable(self, connection: Any, since: float) -> bool:
        """Whether a connection is still open, as far as that was heard: nothing is to be read on it."""
        if asyncio.get_running_loop().time() - since < REDIS_IDLE:
            return True
        look = getattr(connection, "can_read", None) or connection.can_read_destructive
        try:
            return not await look()
        except (self._errors.RedisError, OSError):
            return False

    async def _connect(self, address: Address, context: ssl.SSLContext | None) -> Any:
        settings: dict[str, Any] = {
            "host": address[0],
            "port": address[1],
            "db": self._options.db,
            "username": self._options.username or None,
            "password": self._secret.value if self._secret is not None else None,
            "protocol": 2,
            "socket_timeout": None,
            "socket_connect_timeout": CONNECT_REDIS,
        }
        if context is None:
            connection = self._library.Connection(**settings)
        else:
            connection = self._library.SSLConnection(**settings)
            connection.ssl_context = _Context(context)
        try:
            await asyncio.wait_for(connection.connect(), CONNECT_REDIS)
        except (self._errors.RedisError, OSError) as error:
            self._drop(connection)
            raise ExchangeError(self._no_connection(address, error)) from None
        except asyncio.CancelledError:
            self._drop(connection)
            raise
        return connection

    def _no_connection(self, address: Address, error: Exception) -> Retry:
        whom = f"the server at {address[0]}:{address[1]}"
        answered = (self._errors.ResponseError, self._errors.AuthenticationError, self._errors.BusyLoadingError)
        if isinstance(error, answered):
            return refusal(error, self._section)
        if isinstance(error.__cause__ or error.__context__, ssl.SSLError):
            reason = f"TLS with {whom} failed ({_words(error)}); check {self._section}.url, ca, cert and key"
            return Retry(reason, MISCONFIGURED_WAIT, misconfigured=True)
        return Retry(f"no connection to {whom} ({_words(error)}); check that it runs, and {self._section}.url")

    def _drop(self, connection: Any) -> None:
        writer = getattr(connection, "_writer", None)
        if writer is not None:
            connection._writer = connection._reader = None  # or it warns that nobody has closed it
            with contextlib.suppress(AttributeError):  # Python 3.11.2: a TLS transport that is closed already
                writer.transport.abort()


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
