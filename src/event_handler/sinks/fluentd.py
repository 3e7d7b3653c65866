"""Delivers to Fluentd, or to any collector that takes JSON over HTTP: one event per request, or an array of them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from io import BytesIO
from time import time
from typing import Literal

import aiohttp

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.sinks.base import Delivered, Limits, Reject, Retry, Split, Verdict

KEEPALIVE = 8.0  # seconds; Fluentd's in_http closes idle connections after 10
REQUEST_TIMEOUT = 30.0  # seconds from connect to the end of the answer, as the Go plugin waits
ANSWER_LIMIT = 64 * 1024  # bytes read of an answer, so that the connection can be used again
ARRAY_EVENTS = 500  # events of an array; more brings nothing and makes a lost answer dearer
ARRAY_BYTES = 1024 * 1024  # bytes; Fluent Bit takes 4 MiB and Fluentd 32, but most SaaS intakes only 1
ARRAY_AGE = 0.05  # seconds an incomplete batch waits for more events
MISCONFIGURED = frozenset({301, 302, 303, 307, 308, 401, 403, 404, 405, 407, 501})
REJECTED = frozenset({400, 406, 415, 422})


@dataclass(frozen=True, slots=True)
class FluentdSettings:
    """Where and how to deliver: URLs, TLS files ("" = none), body format and the cap on requests in flight."""

    url: str
    session_url: str
    ca: str = ""
    cert: str = ""
    key: str = ""
    format: Literal["single", "array"] = "single"
    max_connections: int = 10


class FluentdSink:
    """The `fluentd` sink. Raises SinkError when the TLS files cannot be used."""

    name = "fluentd"

    def __init__(self, settings: FluentdSettings) -> None:
        self._settings = settings
        single = settings.format == "single"
        self.limits = Limits(1 if single else ARRAY_EVENTS, ARRAY_BYTES, settings.max_connections, 0.0 if single else ARRAY_AGE)
        self._single = single
        self._context = tls_context(settings.ca, settings.cert, settings.key)
        self._session: aiohttp.ClientSession | None = None

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._settings.max_connections, keepalive_timeout=KEEPALIVE, ssl=self._context),
                timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT),
                headers={"Content-Type": "application/json"},
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        session_id = events[0].session_id
        url = f"{self._settings.session_url}.{session_id}.log" if session_id else self._settings.url
        body = events[0].body if self._single else b"[" + b",".join(event.body for event in events) + b"]"
        try:
            # As a file, aiohttp sends a large body in pieces and does not block the event loop.
            async with self._client().post(url, data=BytesIO(body), allow_redirects=False) as answer:
                text = await answer.content.read(ANSWER_LIMIT)
                return judge(answer.status, answer.headers.get("Retry-After", ""), text)
        except aiohttp.ClientConnectorCertificateError as error:
            reason = f"the collector's certificate is not trusted ({error.certificate_error})"
            return Retry(f"{reason}; check forward.fluentd.ca and the name in the URL", misconfigured=True)
        except (aiohttp.ClientConnectorSSLError, aiohttp.ClientSSLError, ssl.SSLError) as error:
            reason = f"TLS with the collector failed ({error})"
            return Retry(f"{reason}; check forward.fluentd.cert, key and ca", misconfigured=True)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Retry(f"the collector does not answer ({error or 'time-out'})")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            await asyncio.sleep(0)  # let the transports finish closing
            self._session = None


def judge(status: int, retry_after: str, answer: bytes) -> Verdict:
    """Turn the collector's answer into a verdict: any 2xx is success, a redirect is an error (its GET would lose the event)."""
    if 200 <= status < 300:
        return Delivered()
    reason = f"the collector answered {status} {answer[:200].decode('utf-8', 'replace').strip()}".strip()
    if status == 413:
        return Split(reason)
    if status in MISCONFIGURED:
        return Retry(f"{reason}; check the URL and the collector's access rules", after=5.0, misconfigured=True)
    if status in REJECTED:
        return Reject(reason)
    return Retry(reason, after=_seconds(retry_after))


def _seconds(retry_after: str) -> float:
    """`Retry-After` in seconds: a number or an HTTP date, 0 when absent or odd (RFC 9110, 10.2.3)."""
    if retry_after.isascii() and retry_after.isdigit():
        return min(float(retry_after), 3600.0)
    try:
        return max(0.0, min(parsedate_to_datetime(retry_after).timestamp() - time(), 3600.0))
    except ValueError:
        return 0.0


def tls_context(ca: str, cert: str, key: str) -> ssl.SSLContext:
    """TLS 1.2 or newer, the collector's name checked, trusting `ca` only, or the system's authorities without one."""
    if bool(cert) != bool(key):
        raise SinkError("only one of forward.fluentd.cert and forward.fluentd.key is set", "Set both or none.")
    try:
        context = ssl.create_default_context(cafile=ca or None)
    except OSError as error:
        raise SinkError(f"the collector's CA file {ca} cannot be used ({error})", "It must hold PEM certificates.") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python 3.13 turns strict checks on by default; certificates made by the Go plugin lack the extensions that they want.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if cert:
        try:
            context.load_cert_chain(cert, key, password="")
        except (OSError, ValueError) as error:
            raise SinkError(
                f"the client certificate {cert} and key {key} cannot be used together ({error})",
                "They must be PEM, unencrypted, and belong to each other.",
            ) from None
    return context
