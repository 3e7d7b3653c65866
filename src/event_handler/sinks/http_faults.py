"""Says why a request has no answer, with the address, the setting or file to look at, and what to do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

from cryptography import x509

from event_handler.ports import Retry
from event_handler.sinks.http_answer import Answer, UnreadableAnswerError
from event_handler.sinks.http_connection import NoAnswerError
from event_handler.sinks.http_dial import DialError, ProxyRefusedError, Route, dial
from event_handler.sinks.http_tls import TlsFiles

MISCONFIGURED_WAIT = 5.0  # seconds at least; only a person can repair it, so there is no hurry
LOOK_TIMEOUT = 5.0  # seconds for a look at the receiver's certificate; without it the error says less
EXPLAIN_AGAIN = 60.0  # seconds that what was seen of a receiver is taken as it was
NAMES_SHOWN = 5  # of a certificate

# What OpenSSL says when the other side's first bytes are no TLS; it depends on the version of the library and on the
# bytes.
NO_TLS = frozenset(
    {"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL"}
)
# Words of the alerts with which a server refuses a client's certificate, or that it has none.
OF_CERTIFICATE = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "HANDSHAKE_FAILURE", "DECRYPT_ERROR")
NOT_YET_VALID, EXPIRED, OTHER_NAME, OTHER_ADDRESS = 9, 10, 62, 64  # X509_V_ERR_… of OpenSSL
# What servers on TLS answer, with 400 and in the clear, to a request without: Go, nginx, Apache and Tomcat.
WANTS_TLS = (
    b"http request to an https server",
    b"plain http request was sent to https port",
    b"plain http to an ssl-enabled",
    b"combination of host and port requires tls",
)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a look at a receiver has shown, at a moment of the monotonic clock."""

    at: float
    speaks_tls: bool
    certificate: x509.Certificate | None


CUT = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)  # which of them depends on the version of Python


class Faults:
    """The words for one client's failures. `section` and `files` are its options.

    It remembers what a receiver has said against the client certificate: with TLS 1.3 a reset may overtake those words
    the next time.
    """

    def __init__(self, section: str, files: TlsFiles, timeout: float) -> None:
        self._section = section
        self._files = files
        self._timeout = timeout
        self._refusals: dict[Route, tuple[ssl.SSLContext, Retry]] = {}
        self._took: set[Route] = set()  # receivers that have taken a request
        self._seen: dict[Route, _Seen] = {}
        self._look = asyncio.Lock()

    def judge(self, route: Route, answer: Answer) -> Answer | Retry:
        """An answer counts, unless it came from a proxy or from a server that has not understood the request for want
        of TLS.

        Words about TLS from a receiver that has taken a request before are those of an event that it quotes.
        """
        if 200 <= answer.status < 300:
            self._took.add(route)
        if self._refusals:
            self._refusals.pop(route, None)
        if self._seen:
            self._seen.pop(route, None)
        if route.secure or answer.status not in (400, 407):
            return answer
        if (
            answer.status == 400
            and route not in self._took
            and any(words in answer.body.lower() for words in WANTS_TLS)
        ):
            return self._wants_tls(route)
        if answer.status == 407 and route.proxy is not None:
            return _misconfigured(
                f"the proxy {route.proxy} asks for a user name and password; put them into {route.proxy.setting}"
            )
        return answer

    async def explain(
        self, route: Route, context: ssl.SSLContext, error: DialError | NoAnswerError | UnreadableAnswerError
    ) -> Retry:
        if isinstance(error, UnreadableAnswerError):
            return self._unreadable(route, error)
        if isinstance(error, NoAnswerError):
            return await self._no_answer(route, context, error)
        if error.step == "tls":
            return await self._no_tls(route, context, error.cause)
        return self._no_connection(route, error)

    def _no_connection(self, route: Route, error: DialError) -> Retry:
        proxy, cause = route.proxy, error.cause
        whom, check = f"the receiver at {route}", f"{self._section}.url"
        if proxy is not None:
            whom, check = f"the proxy {proxy}", proxy.setting
        if error.step == "name":
            return Retry(f"the name of {whom} does not resolve ({_words(cause)}); check {check} and the name server")
        if error.step == "proxy":
            reason = (
                f"{whom} does not connect to the receiver at {route} ({_words(cause)}); check {check} and the "
                f"proxy's rules"
            )
            lasting = isinstance(cause, ssl.SSLCertVerificationError) or (
                isinstance(cause, ProxyRefusedError) and not cause.passing
            )
            return _misconfigured(reason) if lasting else Retry(reason)
        return Retry(f"no connection to {whom} ({_words(cause)}); check that it runs, and the address in {check}")

    async def _no_tls(self, route: Route, context: ssl.SSLContext, cause: Exception) -> Retry:
        whom = f"the receiver at {route}"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _misconfigured(await self._untrusted(route, cause))
        if isinstance(cause, TimeoutError):
            return Retry(
                f"{whom} did not finish the TLS handshake within {self._timeout:g} s; does it expect TLS on this port?"
            )
        reason = str(getattr(cause, "reason", None) or "")
        if reason in NO_TLS:
            return _misconfigured(
                f"{whom} speaks no TLS; write http:// in {self._section}.url, or turn TLS on at the receiver"
            )
        if "ALERT" in reason:
            return self._refused(route, context, reason)
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, CUT):
            return _misconfigured(f"TLS with {whom} failed ({_words(cause)}); check {self._section}.cert, key and ca")
        if isinstance(cause, ValueError):
            return _misconfigured(
                f"TLS with {whom} is not possible ({_words(cause)}); check the host in {self._section}.url"
            )
        return self._refusal(route, context) or Retry(
            f"{whom} closed the connection in the TLS handshake ({_words(cause)})"
        )

    async def _no_answer(self, route: Route, context: ssl.SSLContext, error: NoAnswerError) -> Retry:
        cause = error.cause
        if isinstance(cause, TimeoutError):
            return Retry(f"the receiver does not answer within {self._timeout:g} s", unanswered=True)
        reason = str(getattr(cause, "reason", None) or "")
        if "ALERT" in reason:
            return self._refused(route, context, reason)
        if error.first and (refusal := self._refusal(route, context)):
            return refusal
        if error.first and not route.secure and route.proxy is None and (await self._look_at(route)).speaks_tls:
            return self._wants_tls(route)
        said = f"the receiver at {route} does not answer ({_words(cause) if cause else 'it closed the connection'})"
        if route.secure:
            # Cut after connecting: with TLS 1.3 a reset may overtake the alert that says why, and some servers send
            # none.
            said += f"; if it stays so, the receiver may refuse the certificate of {self._section}.cert"
        return Retry(said, unanswered=True)

    def _refused(self, route: Route, context: ssl.SSLContext, alert: str) -> Retry:
        """The receiver has ended TLS with an alert."""
        words = _plain(alert.rpartition("ALERT_")[2])
        if not any(word in alert for word in OF_CERTIFICATE):
            return _misconfigured(
                f"TLS with the receiver at {route} failed ({words}); check {self._section}.cert, key and ca"
            )
        shown = f"the client certificate {self._files.cert}" if self._files.cert else "a client without a certificate"
        sign = (
            "have it signed by an authority that the receiver trusts"
            if self._files.cert
            else "set a pair that the receiver trusts"
        )
        refusal = _misconfigured(
            f"the receiver at {route} refuses {shown} ({words}); check {self._section}.cert and key: {sign}"
        )
        self._refusals[route] = context, refusal
        return refusal

    def _refusal(self, route: Route, context: ssl.SSLContext) -> Retry | None:
        """What the receiver has said against the certificate that was shown this time too."""
        shown, refusal = self._refusals.get(route, (None, None))
        return refusal if shown is context else None

    def _unreadable(self, route: Route, error: UnreadableAnswerError) -> Retry:
        if error.beginning[:2] in (b"\x15\x03", b"\x16\x03") and not route.secure:
            return self._wants_tls(route)
        if error.beginning[:2] == b"\x00\x00" and error.beginning[3:4] == b"\x04":
            return _misconfigured(
                f"the receiver at {route} speaks HTTP/2 only; turn HTTP/1.1 on there, or put a proxy before it"
            )
        shown = error.beginning.decode("ascii", "backslashreplace")
        return _misconfigured(
            f"the receiver at {route} does not answer in HTTP, but with {shown!r}; check {self._section}.url"
        )

    def _wants_tls(self, route: Route) -> Retry:
        return _misconfigured(f"the receiver at {route} expects TLS; write https:// in {self._section}.url")

    async def _untrusted(self, route: Route, error: ssl.SSLCertVerificationError) -> str:
        certificate = (await self._look_at(route)).certificate
        whose = f"the certificate of the receiver at {route}"
        if error.verify_code in (OTHER_NAME, OTHER_ADDRESS):
            names = _names(certificate)
            its = f", but for {names}" if names else ""
            repair = (
                f"write a name that it has as the name in the URL ({self._section}.url), or have one issued for "
                f"{route.name}"
            )
            return f"{whose} is not for {route.name}{its}; {repair}"
        now = datetime.now(UTC)
        if error.verify_code == EXPIRED:
            own = certificate is not None and certificate.not_valid_after_utc < now
            which = f"{whose} has expired" if own or certificate is None else f"an authority above {whose} has expired"
            when = f" at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC" if own and certificate else ""
            return f"{which}{when}; renew it, or set this machine's clock, which says {now:%Y-%m-%d %H:%M} UTC"
        if error.verify_code == NOT_YET_VALID:
            when = f" before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC" if certificate else " yet"
            return (
                f"{whose} is not valid{when}; set the clock of its issuer or of this machine, which says "
                f"{now:%Y-%m-%d %H:%M} UTC"
            )
        issuer = f", issued by {certificate.issuer.rfc4514_string()}," if certificate is not None else ""
        where = (
            f"the file {self._files.ca} of {self._section}.ca"
            if self._files.ca
            else f"the system's; set {self._section}.ca to its file"
        )
        return f"{whose}{issuer} is not trusted ({error.verify_message}); its authority must be in {where}"

    async def _look_at(self, route: Route) -> _Seen:
        """Connect once more, without checking anything or sending a request, to see what the receiver shows."""
        async with self._look:
            seen = self._seen.get(route)
            if seen is None or monotonic() - seen.at > EXPLAIN_AGAIN:
                seen = self._seen[route] = await _look_at(Route(True, route.host, route.port, route.proxy))
            return seen


async def _look_at(route: Route) -> _Seen:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        connected = await dial(route, context, asyncio.get_running_loop().time() + LOOK_TIMEOUT)
    except DialError as error:
        return _Seen(monotonic(), "ALERT" in str(getattr(error.cause, "reason", "")), None)
    with connected:
        encoded = connected.getpeercert(binary_form=True) if isinstance(connected, ssl.SSLSocket) else None
        certificate = None
        if encoded:
            with contextlib.suppress(ValueError):
                certificate = x509.load_der_x509_certificate(encoded)
        if isinstance(connected, ssl.SSLSocket):
            with contextlib.suppress(OSError):
                connected.unwrap()
    return _Seen(monotonic(), True, certificate)


def _names(certificate: x509.Certificate | None) -> str:
    """The names that a certificate is for, as it may be read by a person; "" where it has none."""
    if certificate is None:
        return ""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ""
    names = [*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))]
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


def _misconfigured(reason: str) -> Retry:
    return Retry(reason, MISCONFIGURED_WAIT, misconfigured=True)


def _words(error: Exception) -> str:
    """What the library or the system says, without numbers, source files and objects' addresses."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return _plain(error.reason)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, UnicodeError):
        return "it is not a host name"
    if isinstance(error, OSError) and error.errno:
        return error.strerror if isinstance(error, socket.gaierror) and error.strerror else os.strerror(error.errno)
    return " ".join(str(error).split()) or type(error).__name__


def _plain(reason: str) -> str:
    return reason.lower().replace("_", " ")
