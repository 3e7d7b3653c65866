"""One idempotent producer of librdkafka: it is polled from the event loop, and its log lines go to ours."""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Callable
from importlib import import_module
from time import time
from typing import Any

import orjson
import structlog

from event_handler.errors import SinkError
from event_handler.ports import Retry
from event_handler.sinks.http import MISCONFIGURED_WAIT
from event_handler.sinks.kafka.reports import next_step

KAFKA_TOKEN_LIFE = 300.0  # seconds that a token is used which does not tell when it ends
SSL_ALERT = "SSL alert number"  # how OpenSSL tells that the broker has refused our certificate, or that there is none
ALL_DOWN = "_ALL_BROKERS_DOWN"  # said after the reason why the last of them is
KAFKA_HOPELESS = frozenset({"_AUTHENTICATION", "_SSL"})  # what is queued need not wait for its time-out

log = structlog.get_logger()


def kafka_library() -> Any:
    """Raises SinkError when it is not installed."""
    try:
        return import_module("confluent_kafka")
    except ImportError:
        raise SinkError(
            "the Kafka client is not installed", "Run: pip install 'teleport-event-handler[kafka]'."
        ) from None


class Producer:
    """Raises SinkError for properties that librdkafka does not take.

    Callbacks of librdkafka run within `poll`, which never waits.
    """

    def __init__(self, properties: dict[str, Any], token: Callable[[], str] | None, name: str, section: str) -> None:
        library = kafka_library()
        self._failure: type[Exception] = library.KafkaException
        self._section = section
        self._hopeless = False
        self.is_usable = True
        self.ended = False
        self.users = 0  # batches that wait for reports
        self.trouble: Retry | None = None
        given = {**properties, "error_cb": self._failed, "logger": _logger(name)}
        if token is not None:
            given["oauth_cb"] = lambda _: (text := token(), expiry(text))
        try:
            made = library.Producer(given)
        except self._failure as error:
            said = error.args[0].str() if error.args else str(error)
            raise SinkError(f"Kafka's client refuses the options of {section} ({said})", "Correct them.") from None
        except (TypeError, ValueError) as error:
            raise SinkError(f"Kafka's client refuses the options of {section} ({error})", "Correct them.") from None
        self._held = [made]
        self.produce: Callable[..., None] = made.produce
        self._poll: Callable[[float], Any] = made.poll

    def poll(self) -> None:
        """Take in what librdkafka has to report."""
        self._serve()
        if self._hopeless and not self.ended:
            self._hopeless = False
            self._held[0].purge(in_queue=True, in_flight=False, blocking=False)
            self._serve()

    def works(self) -> None:
        """A broker has acknowledged something."""
        self.trouble = None

    def fatal(self) -> None:
        """Idempotence cannot be kept any more: it must not be used again."""
        self.is_usable = False

    def leave(self) -> None:
        """Nothing more is sent or reported."""
        self.ended = True
        self.produce = self._poll = _nothing

    def end(self) -> None:
        """Drop what is left and close the connections; this waits, so it is for another thread."""
        self._held.pop().purge()

    def _serve(self) -> None:
        try:
            self._poll(0)
        except self._failure as raised:  # errors that are fatal come so
            self._failed(raised.args[0])

    def _failed(self, error: Any) -> None:
        if error.fatal():
            self.is_usable = False
        name = "_SSL" if SSL_ALERT in error.str() else error.name()
        step = next_step(name, self._section)
        if step:
            reason = f"{error.str()}; {step}"
            self.trouble = Retry(reason, MISCONFIGURED_WAIT, misconfigured=True)
        elif self.trouble is None or not (self.trouble.misconfigured or name == ALL_DOWN):
            advice = f"check that the brokers run, {self._section}.brokers and {self._section}.tls"
            self.trouble = Retry(f"no broker was reached: {error.str()}; {advice}")
        self._hopeless = self._hopeless or name in KAFKA_HOPELESS


def _nothing(*_: Any, **__: Any) -> None:
    """Stands for the calls of a producer that has ended."""


def expiry(token: str) -> float:
    """When a JWT says that it ends, in seconds since the epoch; soon for a token of another form."""
    _, _, rest = token.partition(".")
    payload = rest.partition(".")[0]
    try:
        content = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, binascii.Error):
        content = {}
    ends = content.get("exp") if isinstance(content, dict) else None
    return float(ends) if isinstance(ends, int | float) and ends > 0 else time() + KAFKA_TOKEN_LIFE


class _ToOurLog(logging.Handler):
    """Each connection that fails (`FAIL`) has a line, many in a second: the verdicts tell them already."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def emit(self, record: logging.LogRecord) -> None:
        reason = record.getMessage()
        if not reason.startswith("FAIL "):
            say = log.warning if record.levelno >= logging.WARNING else log.debug
            say("Kafka's client says", sink=self._name, reason=reason)


def _logger(name: str) -> logging.Logger:
    made = logging.Logger(f"kafka.{name}")  # not in the tree of loggers: nobody else's settings count
    made.addHandler(_ToOurLog(name))
    return made
