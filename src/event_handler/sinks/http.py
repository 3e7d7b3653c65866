"""What the sinks that speak HTTP share: a client whose TLS files may change."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from time import time
from urllib.parse import unquote_to_bytes

import structlog
from yarl import URL

from event_handler import about
from event_handler.errors import ConnectError, SinkError
from event_handler.ports import Retry
from event_handler.proxy_environment import ProxyServer, parse_proxy, proxy_for_url
from event_handler.sinks.http_answer import Answer as Answer
from event_handler.sinks.http_answer import AnswerReader, UnreadableAnswerError
from event_handler.sinks.http_connection import LARGE as LARGE
from event_handler.sinks.http_connection import NoAnswerError
from event_handler.sinks.http_dial import GOODBYE, DialError, Route, basic
from event_handler.sinks.http_faults import MISCONFIGURED_WAIT as MISCONFIGURED_WAIT
from event_handler.sinks.http_faults import Faults
from event_handler.sinks.http_pool import Pool
from event_handler.sinks.http_tls import Tls
from event_handler.sinks.http_tls import TlsFiles as TlsFiles
from event_handler.sinks.packing import Compression as Compression
from event_handler.sinks.packing import packer

KEEPALIVE = 8.0  # seconds; Fluentd's in_http closes idle connections after 10
REQUEST_TIMEOUT = 30.0  # seconds from connect to the end of the answer, as the Go plugin waits
ANSWER_LIMIT = 64 * 1024  # bytes; an answer read to its end lets the connection be used again, a longer one is cut off
LONGEST_RETRY_AFTER = 3600.0  # seconds; a receiver that asks for more is asked again after an hour
PACK_ASIDE = 16 * 1024  # bytes; a smaller body is packed in less time than handing it to a thread takes
PACKED_MAYBE_REFUSED = frozenset({400, 415, 422})  # what a receiver may answer that cannot unpack a body

# Takes method, URL, body and headers of a request, and returns the headers to send, signed, or why there are none.
Sign = Callable[[str, URL, bytes, Mapping[str, str]], Awaitable[Mapping[str, str] | Retry]]

# Takes the body of a request as it goes out, packed or not, and returns more headers for it.
About = Callable[[bytes], Mapping[str, str]]

JSON_CONTENT = {"Content-Type": "application/json"}
NO_FILES = TlsFiles()
DIRECT = "none"  # as a proxy: none, whatever the environment says

log = structlog.get_logger()


class HttpClient:
    """Posts bodies over kept-alive connections. `section` names the options in errors, for example `forward.fluentd`.

    `proxy` is as in HttpOptions.

    `headers` go with every request, except that their Content-Type is of what is posted.

    With `compression` bodies go out packed. A body that is refused so is sent again as it is, for not every receiver
    says that it cannot unpack; one that takes it then is sent plain bodies from that time on. With `status_only` the
    body of an answer that takes the events is of no interest. `sign` is asked for each request, as it goes out.

    Raises SinkError when the TLS files cannot be used at the start; later changes that cannot be used are logged and
    ignored.
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
        status_only: bool = False,
        proxy: str = "",
        sign: Sign | None = None,
    ) -> None:
        self._section = section
        self._proxy = proxy
        self._tls = Tls(section, files)
        self._faults = Faults(section, files, timeout)
        self._connections = connections
        # Answers are short, and unpacked ones have no honest length.
        self._headers = {"User-Agent": about.user_agent(), "Accept-Encoding": "identity", **headers}
        self._content_type = _lines({"Content-Type": self._headers.pop("Content-Type")})
        self._timeout = timeout
        self._keepalive = keepalive
        self._answer_limit = answer_limit
        self._status_only = status_only
        self._sign = sign
        self._pack, self._encoding = packer(compression)
        self._packs = compression != "none"
        self._pool: Pool | None = None
        self._routes: dict[tuple[str, str], tuple[Route, bytes, str]] = {}

    async def post(self, url: URL, body: bytes, method: str = "POST", about: About | None = None) -> Answer | Retry:
        """Return the answer, or why there is none. `about` gives more headers for the body as it goes out."""

        async def send(content: bytes, head: bytes) -> Answer | Retry:
            return await self._send(url, content, head + _lines(about(content)) if about else head, method)

        if not self._packs:
            return await send(body, self._content_type)
        packed = await asyncio.to_thread(self._pack, body) if len(body) >= PACK_ASIDE else self._pack(body)
        answer = await send(packed, self._content_type + self._encoding)
        if isinstance(answer, Retry) or answer.status not in PACKED_MAYBE_REFUSED:
            return answer
        plain = await send(body, self._content_type)
        if isinstance(plain, Answer) and 200 <= plain.status < 300 and self._packs:
            self._packs = False
            next_step = f"Set {self._section}.compression to none, or have the receiver unpack bodies."
            log.warning(
                "the receiver takes no packed bodies, sending them plain", status=answer.status, next_step=next_step
            )
        return plain

    async def request(
        self, method: str, url: URL, body: bytes, headers: Mapping[str, str] = JSON_CONTENT
    ) -> Answer | Retry:
        """Send any other request as it is, its body as JSON unless its own `headers` say otherwise."""
        return await self._send(url, body, _lines(headers), method)

    async def _send(self, url: URL, body: bytes, about_body: bytes, method: str = "POST") -> Answer | Retry:
        """Redirects are not followed: their GET would lose the event."""
        if self._sign is not None:
            named = dict(line.split(": ", 1) for line in about_body.decode("latin-1").splitlines())
            signed = await self._sign(method, url, body, named)
            if isinstance(signed, Retry):
                return signed
            about_body = _lines(signed)
        if self._pool is None:
            self._pool = Pool(self._connections, self._timeout, self._keepalive)
        authority = url.scheme, url.raw_authority
        route, headers, before_path = self._routes.get(authority) or self._route(url, authority)
        head = b"%b %b HTTP/1.1\r\n%b%bContent-Length: %d\r\n\r\n" % (
            method.encode("ascii"),
            f"{before_path}{url.raw_path_qs}".encode("ascii"),
            headers,
            about_body,
            len(body),
        )
        context = self._tls.current()
        try:
            reader = AnswerReader(self._answer_limit, status_only=self._status_only)
            answer = await self._pool.exchange(route, context, head, body, reader)
        except (DialError, NoAnswerError, UnreadableAnswerError) as error:
            self._tls.reload()
            return await self._faults.explain(route, context, error)
        return self._faults.judge(route, answer)

    def _route(self, url: URL, authority: tuple[str, str]) -> tuple[Route, bytes, str]:
        """How a URL's host is reached, the headers of each request there, and what a proxy wants before the path."""
        proxy = proxy_of(url, self._proxy, f"{self._section}.proxy")
        route = Route(url.scheme == "https", url.raw_host or "", url.port or 0, proxy)
        headers = {"Host": url.host_port_subcomponent or "", **self._headers}
        before_path = ""
        if url.raw_user or url.raw_password:
            headers.setdefault(
                "Authorization", basic(unquote_to_bytes(url.raw_user or ""), unquote_to_bytes(url.raw_password or ""))
            )
        if proxy is not None and not route.secure and not proxy.scheme.startswith("socks"):
            before_path = f"http://{url.host_port_subcomponent}"
            if proxy.user or proxy.password:
                headers["Proxy-Authorization"] = basic(proxy.user.encode(), proxy.password.encode())
        made = self._routes[authority] = route, _lines(headers), before_path
        return made

    def set_header(self, name: str, value: str) -> None:
        """Send another value from the next request on. Connections that are open are not used again."""
        self._headers[name] = value
        self._routes.clear()

    def reload(self) -> None:
        """Look at the TLS files before the next request."""
        self._tls.reload()

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close()
            self._pool = None
        if carriers := [task for route, _, _ in self._routes.values() for task in route.carriers]:
            await asyncio.wait(carriers, timeout=GOODBYE)


def _lines(headers: Mapping[str, str]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1")


def retry_seconds(retry_after: str) -> float:
    """`Retry-After` in seconds: a number or an HTTP date in any of its three forms, 0 when absent or odd (RFC 9110,
    10.2.3).
    """
    if retry_after.isascii() and retry_after.isdigit():
        return min(float(retry_after), LONGEST_RETRY_AFTER)
    try:
        date = parsedate_to_datetime(retry_after)
        if date.tzinfo is None:  # asctime's form has no zone, and an HTTP date is always GMT
            date = date.replace(tzinfo=UTC)
        return max(0.0, min(date.timestamp() - time(), LONGEST_RETRY_AFTER))
    except (ValueError, OverflowError):
        return 0.0


def endpoint(text: str, option: str, files: TlsFiles = NO_FILES, proxy: str = "") -> URL:
    """Parse the URL of a receiver. Raises SinkError, without the URL (it may hold a password), when it cannot be used.

    TLS `files` beside an http:// URL are an error too: everything would go out in the clear, and who set them expects
    otherwise.
    """
    text = text.strip()
    try:
        url = URL(text)
        if url.scheme not in ("http", "https") or not url.host or not url.port or not text.isprintable():
            raise ValueError
    except ValueError:
        raise SinkError(
            f"{option} is not a URL of http or https", "It must look like https://host:port/path."
        ) from None
    section = option.rpartition(".")[0]
    given = [f"{section}.{name}" for name, file in (("ca", files.ca), ("cert", files.cert), ("key", files.key)) if file]
    if url.scheme == "http" and given:
        reason = (
            f"{option} begins with http://, so events would be sent in the clear although {' and '.join(given)} "
            f"{_is(given)} set"
        )
        raise SinkError(reason, f"Write https://, or remove {' and '.join(given)}.")
    proxy_of(url, proxy, f"{section}.proxy")
    return url


def _is(named: list[str]) -> str:
    return "is" if len(named) == 1 else "are"


def proxy_of(url: URL, chosen: str = "", option: str = "") -> ProxyServer | None:
    """The proxy that was chosen in an option, or else that of the environment for the URL.

    Raises SinkError for one that cannot be used.
    """
    try:
        if chosen:
            return None if chosen == DIRECT else parse_proxy(option, chosen)
        return proxy_for_url(url.scheme, url.raw_host or "", url.port or 0, os.environ)
    except ConnectError as error:
        raise SinkError(error.message, error.hint) from None
