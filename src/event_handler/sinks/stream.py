"""A connection to a receiver that speaks neither HTTP nor a protocol with a library: TCP, TLS or a UNIX socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field

from event_handler.errors import SinkError
from event_handler.ports import Retry
from event_handler.setting import Options, Setting
from event_handler.sinks.http_dial import join
from event_handler.sinks.http_faults import MISCONFIGURED_WAIT
from event_handler.sinks.http_tls import Tls, TlsFiles, TlsVersion

CLOSE_WITHIN = 1.0  # seconds for the end of TLS
STREAM_LIMIT = 1024 * 1024  # bytes of what a receiver says that are kept at most


class StreamOptions(Options):
    """TLS files ("" = none), and how long a call may take."""

    ca: Annotated[str, Setting("file", "TLS CA of the receiver", unset="those of the system")] = ""
    cert: Annotated[str, Setting("file", "TLS client certificate for the receiver")] = ""
    key: Annotated[str, Setting("file", "TLS client key for the receiver")] = ""
    min_tls: Annotated[TlsVersion, Setting("choice", "oldest version of TLS that is spoken with the receiver")] = "1.2"
    timeout: Annotated[
        float, Setting("duration", "longest time for a batch, from connecting to its acknowledgement"), Field(ge=0.1)
    ] = 30.0

    @property
    def files(self) -> TlsFiles:
        return TlsFiles(self.ca, self.cert, self.key, self.min_tls)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a receiver is: `scheme` tells how it is spoken to; `path` is that of a UNIX socket."""

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        return self.path or join(self.host, self.port)


def address_of(text: str, option: str, ports: dict[str, int]) -> Address:
    """Parse `scheme://host:port` or `unix:///path`; `ports` are the schemes with their default ports, 0 for none.

    Raises SinkError for what cannot be used.
    """
    examples = " or ".join(f"{scheme}:///path" if scheme.startswith("unix") else f"{scheme}://host" for scheme in ports)
    problem = SinkError(f"{option} is not an address that can be used", f"It must look like {examples}.")
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        raise problem from None
    if parts.scheme not in ports or parts.username or parts.query:
        raise problem
    if parts.scheme.startswith("unix"):
        if parts.netloc or not parts.path.startswith("/"):
            raise problem
        return Address(parts.scheme, path=parts.path)
    if not parts.hostname or parts.path.strip("/") or not (port or ports[parts.scheme]):
        raise problem
    return Address(parts.scheme, parts.hostname, port or ports[parts.scheme])


class Dialer:
    """Makes connections to one address, with TLS for the schemes in `secure`. Raises SinkError for unusable files."""

    def __init__(self, address: Address, options: StreamOptions, section: str, *, secure: bool) -> None:
        given = [name for name in ("ca", "cert", "key") if getattr(options, name)]
        if given and not secure:
            raise SinkError(
                f"{section}.{given[0]} is set, but events would be sent in the clear", f"Correct {section}.url."
            )
        self.address = address
        self._section = section
        self._tls = Tls(section, options.files) if secure else None

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Raises OSError, also ssl.SSLError. Who calls it bounds the time."""
        if self.address.path:
            return await asyncio.open_unix_connection(self.address.path, limit=STREAM_LIMIT)
        context = self._tls.current() if self._tls else None
        reader, writer = await asyncio.open_connection(
            self.address.host,
            self.address.port,
            ssl=context,
            server_hostname=self.address.host if context else None,
            happy_eyeballs_delay=0.25,
            limit=STREAM_LIMIT,
        )
        connected = writer.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return reader, writer

    def reload(self) -> None:
        """Look at the TLS files before the next connection."""
        if self._tls:
            self._tls.reload()

    def explain(self, error: Exception, seconds: float) -> Retry:
        """Say why there is no connection, or none any more, and what to check."""
        self.reload()
        whom, check = f"the receiver at {self.address}", f"{self._section}.url"
        if isinstance(error, ssl.SSLCertVerificationError):
            reason = f"the certificate of {whom} is not trusted ({error.verify_message}); check {self._section}.ca"
            return Retry(reason, MISCONFIGURED_WAIT, misconfigured=True)
        if isinstance(error, ssl.SSLError):
            reason = f"TLS with {whom} failed ({error.reason or error}); check {check} and {self._section}.cert"
            return Retry(reason, unanswered=True)
        if isinstance(error, socket.gaierror):
            return Retry(f"the name of {whom} does not resolve ({error.strerror}); check {check} and the name server")
        if isinstance(error, TimeoutError):
            return Retry(f"{whom} does not answer within {seconds:g} s; check {check}", unanswered=True)
        if isinstance(error, asyncio.IncompleteReadError | ConnectionResetError | BrokenPipeError):
            return Retry(f"{whom} closed the connection; check its log, and {check}", unanswered=True)
        words = getattr(error, "strerror", "") or str(error) or type(error).__name__
        return Retry(f"no connection to {whom} ({words}); check that it runs, and {check}")


async def close_stream(writer: asyncio.StreamWriter) -> None:
    """Close, and wait a little for the other side."""
    writer.close()
    with contextlib.suppress(Exception):  # it is gone either way
        await asyncio.wait_for(writer.wait_closed(), CLOSE_WITHIN)
