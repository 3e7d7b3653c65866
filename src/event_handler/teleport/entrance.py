"""Gets in by whichever way works: the likeliest first, the next beside it after a short head start, the first that is through wins.

A way is through when the TLS session with the Auth server stands, whose certificate only the cluster's authorities can sign.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from event_handler.errors import ConnectError
from event_handler.teleport.dial import Way

SERVER_NAME = "teleport.cluster.local"  # the name in every certificate of an Auth server, whatever its address
HEAD_START = 1.0  # seconds before the next way is tried beside one that neither got through nor failed
TLS_TIMEOUT = 15.0  # seconds; the Proxy's own limit for a handshake

log = structlog.get_logger()


class Entrance:
    """The ways into one cluster; `ways` lists them anew for each entry, in the same order, from the newest credentials.

    The one that worked is remembered and tried first the next time.
    """

    def __init__(self, ways: Callable[[], Sequence[Way]]) -> None:
        self._list = ways
        self._best = 0

    async def enter(self, make_protocol: Callable[[], Any], context: ssl.SSLContext) -> Any:
        """Return a connected protocol made by `make_protocol`, or raise ConnectError, which says why each way failed."""
        ways = list(enumerate(self._list()))
        ways.sort(key=lambda numbered: numbered[0] != self._best)
        trying: dict[asyncio.Task[Any], tuple[int, Way]] = {}
        failed: dict[int, tuple[Way, ConnectError]] = {}
        try:
            while True:
                started = bool(ways)
                if ways:
                    number, way = ways.pop(0)
                    trying[asyncio.create_task(_through(way, make_protocol, context))] = number, way
                elif not trying:
                    raise explain([failed[number] for number in sorted(failed)])
                done, _ = await asyncio.wait(trying, timeout=HEAD_START if started else None, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    number, way = trying.pop(task)
                    error = task.exception()
                    if error is None:
                        self._prefer(number, way)
                        return task.result()[1]
                    if not isinstance(error, ConnectError):
                        raise error
                    failed[number] = way, error
                    log.debug("no way in", way=way.name, error=str(error))
        finally:
            for task in trying:
                task.cancel()
            for late in await asyncio.gather(*trying, return_exceptions=True):
                if not isinstance(late, BaseException):
                    late[0].close()

    def _prefer(self, number: int, way: Way) -> None:
        if number != self._best:
            self._best = number
            log.info("found another way into the cluster", way=way.name)


async def _through(way: Way, make_protocol: Callable[[], Any], context: ssl.SSLContext) -> tuple[asyncio.Transport, Any]:
    stream = await way.dial()
    try:
        return await asyncio.get_running_loop().create_connection(
            make_protocol, sock=stream, ssl=context, server_hostname=SERVER_NAME, ssl_handshake_timeout=TLS_TIMEOUT
        )
    except BaseException as error:
        stream.close()
        if isinstance(error, OSError | ssl.SSLError):
            raise explain_tls(error) from None
        raise


def explain(failed: Sequence[tuple[Way, ConnectError]]) -> ConnectError:
    """One error for all ways: what a server of the cluster itself said comes first, then the ways in the order they are listed."""
    ranked = sorted(failed, key=lambda pair: not pair[1].from_cluster)
    first = ranked[0][1]
    if len({error.message for _, error in failed}) == 1:
        return first
    lines = "".join(f"\n  {way.name}: {error.message}" for way, error in ranked)
    return ConnectError(f"no way into the cluster:{lines}\n", first.hint, from_cluster=first.from_cluster)


def explain_tls(error: BaseException) -> ConnectError:
    """Turn a failed handshake into words and a next step."""
    text = str(error).lower()
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConnectError(
            f"the certificate of the server is not trusted ({error.verify_message})",
            "The address belongs to another cluster, or a load balancer ends TLS in front of Teleport: check teleport.addr, "
            "and issue the identity anew if the cluster's authority was rotated.",
        )
    if "expired" in text:
        return ConnectError(
            "Teleport refused our certificate: it has expired",
            "Renew it with tbot, or with `tctl auth sign --user=teleport-event-handler --out=identity`.",
            from_cluster=True,
        )
    if "alert" in text or "certificate" in text:
        return ConnectError(
            f"Teleport refused our certificate ({error})", "Check that the identity belongs to this cluster.", from_cluster=True
        )
    if isinstance(error, ConnectionError) or "eof" in text:
        return ConnectError(
            f"the connection was closed during the TLS handshake ({error})",
            "Check that teleport.addr is the Auth port or a Proxy with TLS routing.",
        )
    if isinstance(error, TimeoutError):
        return ConnectError(f"no answer in the TLS handshake within {TLS_TIMEOUT:.0f} s", "Check teleport.addr and firewalls between.")
    return ConnectError(f"the TLS handshake failed ({error})", "Check teleport.addr.")
