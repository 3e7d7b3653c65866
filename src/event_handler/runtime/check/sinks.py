"""Each sink: its options, its certificate, the way to its receiver, and when asked for one event."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from time import time
from urllib.parse import urlsplit

from cryptography import x509
from yarl import URL

from event_handler.config.components import ConfiguredSink
from event_handler.config.model import StartSettings
from event_handler.errors import SinkError
from event_handler.names import resolve
from event_handler.runtime.certificate_file import CertificateFile
from event_handler.runtime.check.finding import Finding, fault, ok, warning
from event_handler.runtime.sinks import PlannedSink, planned_sink
from event_handler.runtime.trial import try_sink
from event_handler.sinks.http import proxy_of
from event_handler.sinks.http_tls import TlsFiles, tls_context

WITHIN = 15.0  # seconds for a name, a connection and a handshake
HANDSHAKE_WITHIN = 10.0  # seconds of these for the handshake alone
ALERT_WITHIN = 0.3  # seconds for an alert about our certificate, which comes behind the handshake of TLS 1.3
WEEK = 7 * 86_400.0  # seconds
SECURE_PORTS = {"https": 443, "tls": 0}  # schemes of URLs, with their ports
CLEAR_PORTS = {"http": 80, "tcp": 0}


async def check_sinks(settings: StartSettings, *, send: bool) -> AsyncIterator[Finding]:
    for configured in settings.sinks:
        area = f"sink {configured.name}"
        try:
            plan = planned_sink(settings, configured)
        except SinkError as error:
            yield fault(area, error)
            continue
        try:
            async for finding in _check(plan, configured, area, send=send):
                yield finding
        finally:
            await plan.sink.close()


async def _check(plan: PlannedSink, configured: ConfiguredSink, area: str, *, send: bool) -> AsyncIterator[Finding]:
    yield ok(area, f"the options of {configured.type} can be used")
    expires = CertificateFile(plan.certificate).expires()
    if expires is not None and expires < time() + WEEK:
        when = f"{datetime.fromtimestamp(expires, UTC):%Y-%m-%d %H:%M} UTC"
        step = f"Put a new one into {plan.certificate}; it is taken up without a restart."
        if expires < time():
            yield fault(area, f"the client certificate {plan.certificate} expired at {when}", step)
        else:
            yield warning(area, f"the client certificate {plan.certificate} expires at {when}", step)
    if send:
        delivered, said = await try_sink(plan.sink)
        yield ok(area, said) if delivered else fault(area, said, f"docs/sinks.md has a page for {configured.type}.")
        return
    url = str(getattr(configured.options, "url", ""))
    yield await _reach(url, configured, area)


async def _reach(url: str, configured: ConfiguredSink, area: str) -> Finding:
    """Whether the receiver can be reached and trusted, for sinks that have one at a URL."""
    parts = urlsplit(url)
    if parts.scheme not in {*SECURE_PORTS, *CLEAR_PORTS} or not parts.hostname:
        return ok(area, "its receiver is tried with --send only")
    port = parts.port or {**SECURE_PORTS, **CLEAR_PORTS}[parts.scheme]
    where, option = f"{parts.hostname}:{port}", f"{configured.section}."
    chosen = str(getattr(configured.options, "proxy", ""))
    if parts.scheme in ("http", "https") and proxy_of(URL(url), chosen, f"{configured.section}.proxy"):
        return ok(area, f"{where} is reached by a proxy, which is tried with --send only")
    context = None
    if parts.scheme in SECURE_PORTS:
        ca, cert, key = (str(getattr(configured.options, name, "")) for name in ("ca", "cert", "key"))
        context = tls_context(configured.section, TlsFiles(ca, cert, key))
    try:
        async with asyncio.timeout(WITHIN):
            return ok(area, f"{where} {await _dial(parts.hostname, port, context)}")
    except TimeoutError:
        return fault(area, f"{where} does not answer within {WITHIN:.0f} s", f"Check {option}url and firewalls.")
    except socket.gaierror as error:
        reason = f"the name {parts.hostname} cannot be resolved ({error.strerror})"
        return fault(area, reason, f"Check {option}url and the name servers.")
    except ssl.SSLCertVerificationError as error:
        reason = f"the certificate of {where} is not trusted ({error.verify_message})"
        return fault(area, reason, f"Check {option}ca, and that the name in the URL is in the certificate.")
    except ssl.SSLError as error:
        reason = f"the TLS handshake with {where} failed ({getattr(error, 'reason', None) or error.strerror})"
        return fault(area, reason, f"Check {option}url, cert and key.")
    except OSError as error:
        reason = f"{where} cannot be reached ({error.strerror or error})"
        return fault(area, reason, f"Check {option}url, and that the receiver runs.")


async def _dial(host: str, port: int, context: ssl.SSLContext | None) -> str:
    """What answered, in words. A client certificate that is refused shows in the first bytes after a handshake."""
    await resolve(host, port)
    reader, writer = await asyncio.open_connection(host, port)
    try:
        if context is None:
            return "takes connections, in the clear"
        try:
            await writer.start_tls(context, server_hostname=host, ssl_handshake_timeout=HANDSHAKE_WITHIN)
        except ConnectionAbortedError:
            raise ssl.SSLError(1, f"no answer within {HANDSHAKE_WITHIN:.0f} s") from None
        try:
            async with asyncio.timeout(ALERT_WITHIN):
                if not await reader.read(1):
                    raise ssl.SSLError(1, "it closed the connection; perhaps it wants a client certificate")
        except TimeoutError:
            pass
        session = writer.get_extra_info("ssl_object")
        leaf = x509.load_der_x509_certificate(session.getpeercert(binary_form=True))
        return f"speaks {session.version()}, with a certificate until {leaf.not_valid_after_utc:%Y-%m-%d}"
    finally:
        writer.transport.abort()
