"""Gets in by whichever way works: the likeliest first, the next beside it after a short head start, the first that is
through wins.

A way is through when the TLS session with the Auth server stands, whose certificate only the cluster's authorities can
sign.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog

from event_handler.errors import ConnectError, EventHandlerError
from event_handler.teleport.auth.credentials import RENEW, TIME, Credentials
from event_handler.teleport.auth.tls import ClientContext
from event_handler.teleport.transport import Route
from event_handler.teleport.transport.base import within
from event_handler.teleport.transport.tls_stream import reason_of

SERVER_NAME = "teleport.cluster.local"  # the name in every certificate of an Auth server, whatever its address
HEAD_START = 1.0  # seconds before the next way is tried beside one that neither got through nor failed
TLS_TIMEOUT = 15.0  # seconds; the Proxy's own limit for a handshake
HOSTNAME_MISMATCH = 62  # OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH
OUT_OF_TIME = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID and _HAS_EXPIRED
REFUSING_WORDS = (
    "certificate",
    "unknown ca",
    "access denied",
    "decrypt error",
)  # alerts about our certificate; others are about TLS itself
CHECK_ADDRESS = "Check teleport.addr, the servers behind it, and firewalls between."
CHECK_CLOCKS = "Compare the clocks of this machine and of the cluster (`date -u`, NTP)."

log = structlog.get_logger()


def always(*routes: Route) -> Callable[[Credentials], Awaitable[Sequence[Route]]]:
    """What a Connector wants, for routes that never change."""

    async def listed(_: Credentials) -> Sequence[Route]:
        return routes

    return listed


class Connector:
    """The ways into one cluster; `ways` lists them again for each entry, from its credentials and the newest answer of
    DNS.

    The one that worked is remembered and tried first the next time.
    """

    def __init__(self, routes: Callable[[Credentials], Awaitable[Sequence[Route]]]) -> None:
        self._list = routes
        self._logged: set[tuple[str, str]] = set()  # name and address of ways that a log line has named
        self._best: tuple[str, str] | None = None  # name and address
        self.address = self.route = self.tls = ""  # by which the last entry was made, and how it is encrypted

    async def enter(self, make_protocol: Callable[[], Any], context: ClientContext) -> Any:
        """Return a connected protocol made by `make_protocol`, or raise ConnectError, which says why each way
        failed.
        """
        routes = list(enumerate(await self._list(context.credentials)))
        routes.sort(key=lambda numbered: (numbered[1].name, numbered[1].address) != self._best)
        trying: dict[asyncio.Task[Any], tuple[int, Route]] = {}
        failed: dict[int, tuple[Route, ConnectError]] = {}
        try:
            while True:
                started = bool(routes)
                if routes:
                    number, route = routes.pop(0)
                    self._log(route)
                    trying[asyncio.create_task(_through(route, make_protocol, context))] = number, route
                elif not trying:
                    raise explain([failed[number] for number in sorted(failed)])
                done, _ = await asyncio.wait(
                    trying, timeout=HEAD_START if started else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    number, route = trying.pop(task)
                    error = task.exception()
                    if error is None:
                        self._prefer(route, first=number == 0)
                        transport, protocol = task.result()
                        self.address, self.route, self.tls = route.address, route.name, tls_of(transport)
                        return protocol
                    failed[number] = route, _as_connect_error(route, error)
                    log.debug("no way in", route=route.name, error=str(error))
        finally:
            for task in trying:
                task.cancel()
            for late in await asyncio.gather(*trying, return_exceptions=True):
                if not isinstance(late, BaseException):
                    late[0].close()

    def _log(self, route: Route) -> None:
        """Before the first try of each way: one that is not answered takes its time."""
        if (route.name, route.address) not in self._logged:
            self._logged.add((route.name, route.address))
            log.info("connecting to Teleport", address=route.address, route=route.name)

    def _prefer(self, route: Route, *, first: bool) -> None:
        known, self._best = self._best, (route.name, route.address)
        if known != self._best and (known or not first):
            log.info("found another way into the cluster", route=route.name, address=route.address)


async def _through(
    route: Route, make_protocol: Callable[[], Any], context: ClientContext
) -> tuple[asyncio.Transport, Any]:
    stream = await route.dial()
    failure = f"no answer from {route.address} in the TLS handshake"
    try:
        async with within(TLS_TIMEOUT, failure, CHECK_ADDRESS):
            return await asyncio.get_running_loop().create_connection(
                make_protocol, sock=stream, ssl=context, server_hostname=SERVER_NAME
            )
    except BaseException as error:
        stream.close()
        if isinstance(error, OSError):
            raise explain_tls(error, route.address, context.credentials) from None
        raise


def tls_of(transport: asyncio.Transport) -> str:
    """The version of TLS and the cipher that were agreed on, and until when the server's certificate is valid."""
    session: ssl.SSLObject = transport.get_extra_info("ssl_object")
    certificate, cipher = session.getpeercert() or {}, session.cipher()
    expires = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
    return f"{session.version()}, {cipher[0] if cipher else 'no cipher'}, certificate until {expires:{TIME}}"


def _as_connect_error(route: Route, error: BaseException) -> ConnectError:
    """Whatever makes one way fail leaves the others to be tried."""
    if isinstance(error, ConnectError):
        return error
    if isinstance(error, EventHandlerError):
        return ConnectError(error.message, error.hint)
    reason = " ".join(str(error).split()) or type(error).__name__
    return ConnectError(
        f"{route.address} cannot be reached by the route {route.name} ({type(error).__name__}: {reason})", CHECK_ADDRESS
    )


def explain(failed: Sequence[tuple[Route, ConnectError]]) -> ConnectError:
    """One error for all routes: the one that shows the real cause comes first, then the others in their order."""
    ranked = sorted(failed, key=lambda pair: not pair[1].conclusive)
    first = ranked[0][1]
    if len({error.message for _, error in failed}) == 1:
        return first
    causes = "; ".join(f"{route.name}: {error.message}" for route, error in ranked)
    return ConnectError(f"no route into the cluster: {causes}", first.hint, conclusive=first.conclusive)


def explain_tls(error: OSError, address: str, ours: Credentials) -> ConnectError:
    """Turn a TLS session with Auth by way of `address` that failed, in the handshake or later, into words and a next
    step.
    """
    text = str(error).lower().replace("_", " ")
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_certificate(error, address, ours)
    if "expired" in text:
        return _explain_expired(address, ours)
    if any(words in text for words in REFUSING_WORDS):
        return ConnectError(
            f"Teleport at {address} refused our certificate{reason_of(error)} from {ours.source}",
            "Check that the identity belongs to this cluster, and make it again if the cluster's authority was "
            "rotated.",
            conclusive=True,
        )
    if isinstance(error, ConnectionError) or "eof" in text:
        return ConnectError(
            f"{address} closed the connection in the TLS handshake{reason_of(error)}",
            "Check that teleport.addr is the Auth port or a Proxy with TLS routing, and that the identity belongs to "
            "this cluster.",
        )
    return ConnectError(
        f"the TLS handshake with {address} failed{reason_of(error)}",
        "Check that teleport.addr is the Auth port or a Proxy: what answers there may be another server, or a load "
        "balancer.",
    )


def _explain_expired(address: str, ours: Credentials) -> ConnectError:
    """The same alert says that a certificate has expired and that it is not valid yet, by the cluster's clock."""
    if datetime.now(UTC) >= ours.not_after:
        return ConnectError(
            f"Teleport at {address} refused our certificate: it has expired ({ours.source}, at "
            f"{ours.not_after:{TIME}})",
            RENEW,
            conclusive=True,
        )
    return ConnectError(
        f"Teleport at {address} refused our certificate: it has expired or is not valid yet by the cluster's clock, "
        f"though by this"
        f" machine's it is valid from {ours.not_before:{TIME}} to {ours.not_after:{TIME}} ({ours.source})",
        CHECK_CLOCKS,
        conclusive=True,
    )


def _explain_certificate(error: ssl.SSLCertVerificationError, address: str, ours: Credentials) -> ConnectError:
    if error.verify_code == HOSTNAME_MISMATCH:
        return ConnectError(
            f"the server that {address} leads to is of this cluster, but not Auth: its certificate is not for "
            f"{SERVER_NAME}",
            "Check that teleport.addr is the Auth port, or a Proxy with its web port.",
        )
    if error.verify_code in OUT_OF_TIME:
        return ConnectError(
            f"by this machine's clock the certificate of the server at {address} is not valid at this time "
            f"({error.verify_message})",
            f"{CHECK_CLOCKS} If both are right, look at the certificates of the cluster.",
        )
    return ConnectError(
        f"the certificate of the server at {address} is not trusted ({error.verify_message}, by the authorities in"
        f" {ours.authorities_source})",
        "The address belongs to another cluster than the identity, or a load balancer ends TLS in front of Teleport: "
        "check "
        "teleport.addr, and make the identity again if the cluster's authority was rotated.",
    )
