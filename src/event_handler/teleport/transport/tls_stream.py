"""TLS as a layer of a stream, and the settings of TLS that is not the cluster's own: public roots, or none on
request.
"""

from __future__ import annotations

import ssl
from contextlib import suppress

import structlog

from event_handler.errors import ConnectError
from event_handler.teleport.transport.base import within
from event_handler.teleport.transport.stream import CHUNK, Stream

TLS_TIMEOUT = 15.0  # seconds; the Proxy's own limit for a handshake

log = structlog.get_logger()


class TlsStream:
    """The client side of TLS on top of any stream. `start` must have returned before the first read or write."""

    def __init__(self, below: Stream, context: ssl.SSLContext, server_name: str) -> None:
        self._below = below
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)

    @property
    def protocol(self) -> str | None:
        """The protocol name that the server picked (ALPN)."""
        return self._tls.selected_alpn_protocol()

    async def start(self) -> None:
        """Do the handshake. Raises ssl.SSLError and OSError."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError:
                with suppress(OSError):
                    await self._flush()  # the alert that says why
                raise
            else:
                return await self._flush()

    async def read(self, limit: int = CHUNK) -> bytes:
        while True:
            try:
                return self._tls.read(limit)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]
        await self._flush()

    async def finish(self) -> None:
        with suppress(ssl.SSLError):  # the peer's own goodbye is not waited for
            self._tls.unwrap()
        await self._flush()
        await self._below.finish()

    def close(self) -> None:
        self._below.close()

    async def _fill(self) -> None:
        if data := await self._below.read():
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await self._below.write(data)


def public_context(address: str, *, insecure: bool = False, protocols: tuple[str, ...] = ()) -> ssl.SSLContext:
    """TLS 1.2 or newer for the public side of `address`, trusting the system's authorities (SSL_CERT_FILE is honoured).

    With `insecure` the certificate is not checked, and a log line says so each time.
    """
    context = ssl.create_default_context()
    if insecure:
        log.warning("the public certificate is NOT checked: the insecure option is set", address=address)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return _common(context, protocols)


def cluster_context(authorities_pem: bytes, protocols: tuple[str, ...]) -> ssl.SSLContext:
    """TLS 1.2 or newer without a client certificate, trusting the cluster's own authorities only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authorities_pem.decode("ascii"))
    return _common(context, protocols)


def _common(context: ssl.SSLContext, protocols: tuple[str, ...]) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # authorities of companies lack extensions that strict mode demands
    context.options |= ssl.OP_NO_RENEGOTIATION  # it would make a write wait for a read
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


async def start_tls(below: Stream, context: ssl.SSLContext, server_name: str, whom: str, hint: str) -> TlsStream:
    """Put TLS on top of `below`.

    `whom` and `hint` are for messages. Closes `below` and raises ConnectError when it fails.
    """
    try:
        stream = TlsStream(below, context, server_name)
        async with within(TLS_TIMEOUT, f"no TLS handshake with {whom}", hint):
            await stream.start()
    except ssl.SSLCertVerificationError as error:
        below.close()
        raise untrusted(error, whom, hint) from None
    except (OSError, ValueError) as error:  # ValueError: a host name that TLS cannot carry
        below.close()
        raise broken(error, whom, hint) from None
    except BaseException:
        below.close()
        raise
    return stream


def untrusted(error: ssl.SSLCertVerificationError, whom: str, hint: str) -> ConnectError:
    return ConnectError(f"the certificate of {whom} is not trusted ({error.verify_message})", hint)


def broken(error: OSError | ValueError, whom: str, hint: str) -> ConnectError:
    """A handshake that failed for another reason than the certificate."""
    return ConnectError(f"TLS with {whom} failed{reason_of(error)}", hint)


def reason_of(error: OSError | ValueError) -> str:
    """OpenSSL's or the system's words in brackets, without numbers, source files and lines; "" where there are none."""
    if isinstance(error, ssl.SSLError) and error.reason:
        words = error.reason.lower().replace("_", " ")
    else:
        words = getattr(error, "strerror", None) or str(error)
    return f" ({words})" if words else ""
