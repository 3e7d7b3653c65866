"""What the sinks that speak HTTP share: a client whose TLS files may change, and how a status becomes a verdict."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from io import BytesIO
from pathlib import Path
from time import monotonic, time
from typing import Literal

import aiohttp
import structlog
from yarl import URL

from event_handler import about
from event_handler.errors import SinkError
from event_handler.sinks.base import Delivered, Reject, Retry, Split, Verdict

KEEPALIVE = 8.0  # seconds; Fluentd's in_http closes idle connections after 10
REQUEST_TIMEOUT = 30.0  # seconds from connect to the end of the answer, as the Go plugin waits
ANSWER_LIMIT = 64 * 1024  # bytes; an answer read to its end lets the connection be used again, a longer one is cut off
TLS_CHECK_EVERY = 5.0  # seconds between looks at the TLS files; renewed certificates are taken up without a restart
LONGEST_RETRY_AFTER = 3600.0  # seconds; a receiver that asks for more is asked again after an hour
REASON_LENGTH = 200  # characters of an answer that a log line shows
MISCONFIGURED_WAIT = 5.0  # seconds at least; only a person can mend it, so there is no hurry
REJECTED = frozenset({400, 422})  # the receiver has looked at the content and does not want it
PASSING = frozenset({408, 425, 429})  # of the 4xx; any other 4xx, and 3xx, 501 and 505, only a person can mend
FAST = 1  # gzip's level; audit events shrink to a fifth with it, and to a sixth with level 6, which takes more than twice the time
PACK_ASIDE = 16 * 1024  # bytes; a smaller body is packed in less time than handing it to a thread takes
PACKED_MAYBE_REFUSED = frozenset({400, 415, 422})  # what a receiver may answer that cannot unpack a body
LARGE = 256 * 1024  # bytes; a body from here on is written in pieces, so that the event loop does other work between them

Compression = Literal["none", "gzip"]
PACKED = {"Content-Encoding": "gzip"}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: `ca` to trust (the system's authorities without it), `cert` and `key` to show; "" means none."""

    ca: str = ""
    cert: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver said; `complete` is False when the body was cut off, by the receiver, by time or by ANSWER_LIMIT."""

    status: int
    retry_after: str
    body: bytes
    complete: bool


class HttpClient:
    """Posts bodies over kept-alive connections. `section` names the options in errors, for example `forward.fluentd`.

    With `compression` bodies go out packed. A body that is refused so is sent again as it is, for not every receiver says that it
    cannot unpack; one that takes it then is sent plain bodies from that time on.

    Raises SinkError when the TLS files cannot be used at the start; later changes that cannot be used are logged and ignored.
    """

    def __init__(
        self,
        section: str,
        files: TlsFiles,
        *,
        connections: int,
        headers: Mapping[str, str],
        timeout: float = REQUEST_TIMEOUT,
        keepalive: float = KEEPALIVE,
        answer_limit: int = ANSWER_LIMIT,
        compression: Compression = "none",
    ) -> None:
        self._section = section
        self._tls = _Tls(section, files)
        self._connections = connections
        # Answers are short, and unpacked ones have no honest length.
        self._headers = {"User-Agent": about.user_agent(), "Accept-Encoding": "identity", **headers}
        self._timeout = timeout
        self._keepalive = keepalive
        self._answer_limit = answer_limit
        self._packs = compression == "gzip"
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: URL, body: bytes) -> Answer | Retry:
        """Return the answer, or why there is none."""
        if not self._packs:
            return await self._send(url, body)
        packed = await asyncio.to_thread(_pack, body) if len(body) >= PACK_ASIDE else _pack(body)
        answer = await self._send(url, packed, PACKED)
        if isinstance(answer, Retry) or answer.status not in PACKED_MAYBE_REFUSED:
            return answer
        plain = await self._send(url, body)
        if isinstance(plain, Answer) and 200 <= plain.status < 300 and self._packs:
            self._packs = False
            next_step = f"Set {self._section}.compression to none, or have the receiver take gzip."
            log.warning("the receiver takes no packed bodies, sending them plain", status=answer.status, next_step=next_step)
        return plain

    async def request(self, method: str, url: URL, body: bytes) -> Answer | Retry:
        """Send any other request, its body as JSON."""
        return await self._send(url, body, {"Content-Type": "application/json"}, method)

    async def _send(self, url: URL, body: bytes, headers: Mapping[str, str] | None = None, method: str = "POST") -> Answer | Retry:
        """Redirects are not followed: their GET would lose the event."""
        data = BytesIO(body) if len(body) >= LARGE else body  # aiohttp sends a file in pieces
        try:
            request = self._client().request(method, url, data=data, headers=headers, allow_redirects=False, ssl=self._tls.current())
            async with request as answer:
                text, complete = await _read(answer, self._answer_limit)
                return Answer(answer.status, answer.headers.get("Retry-After", ""), text, complete)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._tls.look_again()
            return self._unanswered(error, url.scheme == "https")

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=self._keepalive),
                timeout=aiohttp.ClientTimeout(total=self._timeout),
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _unanswered(self, error: Exception, tls: bool) -> Retry:
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            reason = f"the receiver's certificate is not trusted ({error.certificate_error})"
            return Retry(f"{reason}; check {self._section}.ca and the name in the URL", MISCONFIGURED_WAIT, misconfigured=True)
        fault = next((cause for cause in _causes(error) if isinstance(cause, ssl.SSLError)), None)
        if fault is not None and (isinstance(error, aiohttp.ClientConnectorError) or "ALERT" in str(fault.reason)):
            reason = f"TLS with the receiver failed ({fault})"
            return Retry(f"{reason}; check {self._section}.cert, key and ca", MISCONFIGURED_WAIT, misconfigured=True)
        if isinstance(error, TimeoutError):
            return Retry(f"the receiver does not answer within {self._timeout:g} s")
        if isinstance(error, aiohttp.ClientConnectorError):
            return Retry(f"no connection to the receiver at {error.host}:{error.port} ({_words(error.os_error)})")
        reason = f"the receiver does not answer ({_words(error)})"
        if tls:
            # Cut after connecting: with TLS 1.3 a reset may overtake the alert that says why, and some servers send none.
            reason += f"; if it stays so, the receiver may refuse the certificate of {self._section}.cert"
        return Retry(reason)

    def look_again(self) -> None:
        """Look at the TLS files before the next request."""
        self._tls.look_again()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            await asyncio.sleep(0)  # let the transports finish closing
            self._session = None


def _pack(body: bytes) -> bytes:
    return gzip.compress(body, FAST, mtime=0)


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


async def _read(answer: aiohttp.ClientResponse, limit: int) -> tuple[bytes, bool]:
    """Read the body up to `limit` bytes; a connection whose answer was not read to its end is not used again."""
    body = bytearray()
    try:
        async for piece in answer.content.iter_any():
            body += piece
            if len(body) > limit:
                answer.close()
                return bytes(body[:limit]), False
    except (aiohttp.ClientError, TimeoutError, OSError):
        return bytes(body), False
    return bytes(body), True


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from: TLS 1.3 reports a refused client certificate only when reading, wrapped by aiohttp."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def judge(answer: Answer) -> Verdict:
    """Turn a status into a verdict: any 2xx is success, also when the body was cut off, for the status has decided already."""
    status = answer.status
    if 200 <= status < 300:
        return Delivered()
    reason = f"the receiver answered {status} {readable(answer.body)}".strip()
    if status == 413:
        return Split(reason)
    if status in REJECTED:
        return Reject(reason)
    if status in PASSING or (status >= 500 and status not in (501, 505)):
        return Retry(reason, after=retry_seconds(answer.retry_after))
    return Retry(f"{reason}; check the URL and the receiver's access rules", after=MISCONFIGURED_WAIT, misconfigured=True)


def readable(answer: bytes) -> str:
    """The beginning of an answer on one line."""
    return " ".join(answer[: 4 * REASON_LENGTH].decode("utf-8", "replace").split())[:REASON_LENGTH]


def retry_seconds(retry_after: str) -> float:
    """`Retry-After` in seconds: a number or an HTTP date, 0 when absent or odd (RFC 9110, 10.2.3)."""
    if retry_after.isascii() and retry_after.isdigit():
        return min(float(retry_after), LONGEST_RETRY_AFTER)
    try:
        return max(0.0, min(parsedate_to_datetime(retry_after).timestamp() - time(), LONGEST_RETRY_AFTER))
    except (ValueError, OverflowError):
        return 0.0


def endpoint(text: str, option: str) -> URL:
    """Parse the URL of a receiver. Raises SinkError, without the URL (it may hold a password), when it is none."""
    try:
        url = URL(text)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise SinkError(f"{option} is no URL", "It must look like https://host:port/path.")
    return url


class _Tls:
    """The TLS context of the files, made anew when one of them changes: connections made from then on use the new one."""

    def __init__(self, section: str, files: TlsFiles) -> None:
        self._section = section
        self._files = files
        self._seen = self._signature()
        self._context = tls_context(section, files)
        self._look_at = monotonic() + TLS_CHECK_EVERY

    def current(self) -> ssl.SSLContext:
        if monotonic() < self._look_at:
            return self._context
        self._look_at = monotonic() + TLS_CHECK_EVERY
        seen = self._signature()
        if seen != self._seen:
            self._seen = seen
            try:
                self._context = tls_context(self._section, self._files)
                log.info("TLS files have changed and are in use", options=self._section)
            except SinkError as error:  # perhaps only one of two files is written yet; the next change is looked at again
                log.warning("TLS files have changed but cannot be used, going on with the old ones", error=str(error))
        return self._context

    def look_again(self) -> None:
        """Look at the files before the next request: what failed may be mended by now."""
        self._look_at = 0.0

    def _signature(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stamp(Path(file)) for file in (self._files.ca, self._files.cert, self._files.key) if file)


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def tls_context(section: str, files: TlsFiles) -> ssl.SSLContext:
    """TLS 1.2 or newer, the receiver's name checked, trusting `ca` only, or the system's authorities without one."""
    if bool(files.cert) != bool(files.key):
        raise SinkError(f"only one of {section}.cert and {section}.key is set", "Set both or none.")
    try:
        context = ssl.create_default_context(cafile=files.ca or None)
    except OSError as error:
        raise SinkError(f"the receiver's CA file {files.ca} cannot be used ({error})", "It must hold PEM certificates.") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python 3.13 turns strict checks on by default; certificates made by the Go plugin lack the extensions that they want.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if files.cert:
        try:
            context.load_cert_chain(files.cert, files.key, password="")
        except (OSError, ValueError) as error:
            raise SinkError(
                f"the client certificate {files.cert} and key {files.key} cannot be used together ({error})",
                "They must be PEM, unencrypted, and belong to each other.",
            ) from None
    return context
