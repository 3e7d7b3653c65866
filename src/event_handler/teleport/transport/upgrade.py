"""The way in to a Proxy behind a load balancer that ends TLS: an outer TLS session, and in it a WebSocket that carries
our bytes.

Source of names and rules: Teleport's protocol reference, "ALPN connection upgrade".
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import socket
import ssl
from collections.abc import Mapping

from event_handler import about
from event_handler.errors import ConnectError
from event_handler.teleport.transport import proxied
from event_handler.teleport.transport.base import Dialer, split_address, within
from event_handler.teleport.transport.stream import Stream, as_socket, read_head
from event_handler.teleport.transport.tls_stream import TlsStream, broken, public_context, start_tls, untrusted
from event_handler.teleport.transport.websocket import WebSocketStream

TEST_TIMEOUT = 5.0  # seconds, as Teleport's own clients wait
ANSWER_TIMEOUT = 15.0  # seconds for the answer to the upgrade request
TUNNEL_PROTOCOL = "teleport-reversetunnel"  # ALPN name that every Proxy knows
WITH_PINGS, WITHOUT_PINGS = "alpn-ping", "alpn"  # pings keep load balancers from closing an idle connection
ACCEPT_SUFFIX = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
FORCED = "TELEPORT_TLS_ROUTING_CONN_UPGRADE"
MODE_VARIABLE = "TELEPORT_TLS_ROUTING_CONN_UPGRADE_MODE"

_YES = frozenset({"yes", "yeah", "y", "true", "1", "on"})
_NO = frozenset({"no", "nope", "n", "false", "0", "off"})
_TRUST_HINT = (
    "Check teleport.addr, and that its certificate is of an authority that this machine knows (or SSL_CERT_FILE names)."
)
_FIREWALL_HINT = "Check teleport.addr, and that no firewall between cuts TLS off."
_NO_PROTOCOL = (
    "no application protocol",
    "bad extension",
)  # OpenSSL's words: alert 120, and a protocol that was not offered


def upgrade(address: str, *, always: bool = False, insecure_proxy: bool = False) -> Dialer:
    """Dial the Proxy at `address` through a connection upgrade; unless `always`, only when its load balancer makes that
    necessary.

    Raises ConfigurationError at once; the dialer raises ConnectError.
    """
    split_address(address)

    async def dial() -> socket.socket:
        if not always and not await _decided(address, os.environ, insecure_proxy):
            hint = f"If a load balancer ends TLS in front of it, set {FORCED}=yes to be told what is wrong with that."
            raise ConnectError(f"{address} needs no connection upgrade", hint)
        return as_socket(await open_upgraded(address, insecure_proxy=insecure_proxy))

    return dial


def forced(address: str, environment: Mapping[str, str]) -> bool | None:
    """What the environment says about `address`: upgrade, do not, or None where the variable is not set.

    It is a list with `;` or `,` between: `host:port=yes` is for one address, a bare `no` for all that are not named.
    Where it has no bare word, addresses that are not named are not upgraded.
    """
    setting = environment.get(FORCED, "")
    if not setting:
        return None
    default = False
    for token in re.split(r"[;,]", setting):
        named, equals, word = (part.strip() for part in token.rpartition("="))
        word = word.lower()
        if word not in _YES | _NO:
            continue
        if not equals:
            default = word in _YES
        elif named == address:
            return word in _YES
    return default


async def needs_upgrade(address: str, environment: Mapping[str, str], *, insecure_proxy: bool = False) -> bool:
    """Whether TLS is ended in front of the Proxy at `address`: by the environment's word, else by a test handshake.

    A test that fails, for example because there is no listener, says nothing; then the answer is no.
    """
    try:
        return await _decided(address, environment, insecure_proxy)
    except ConnectError:
        return False


async def _decided(address: str, environment: Mapping[str, str], insecure: bool) -> bool:
    decided = forced(address, environment)
    return await _test(address, insecure) if decided is None else decided


async def _test(address: str, insecure: bool) -> bool:
    """Offer a protocol name that every Proxy picks: whatever ends TLS without picking it is no Proxy. Raises
    ConnectError.
    """
    host, _ = split_address(address)
    context = public_context(address, insecure=insecure, protocols=(TUNNEL_PROTOCOL,))
    below: Stream | None = None
    try:
        async with within(TEST_TIMEOUT, f"no TLS handshake with {address}", _FIREWALL_HINT):
            below = await proxied.connect(address)
            outer = TlsStream(below, context, host)
            await outer.start()
        return outer.protocol != TUNNEL_PROTOCOL
    except ssl.SSLCertVerificationError as error:
        raise untrusted(error, address, _TRUST_HINT) from None
    except (OSError, ValueError) as error:  # ValueError: a host name that TLS cannot carry
        text = str(error).lower().replace("_", " ")  # Python has no name for some of OpenSSL's reasons, only their text
        if any(reason in text for reason in _NO_PROTOCOL):
            return True
        raise broken(error, address, _FIREWALL_HINT) from None
    finally:
        if below is not None:
            below.close()


async def open_upgraded(address: str, *, insecure_proxy: bool) -> Stream:
    """Connect to `address` and have the Proxy take the connection over. Raises ConnectError."""
    legacy = os.environ.get(MODE_VARIABLE, "").strip().lower() == "legacy"
    for kind in (WITHOUT_PINGS,) if legacy else (WITH_PINGS, WITHOUT_PINGS):
        if stream := await _request(address, kind, insecure_proxy, legacy=legacy):
            return stream
    raise ConnectError(
        f"{address} does not take part in a connection upgrade (400)", "Check that teleport.addr is a Teleport Proxy."
    )


async def _request(address: str, kind: str, insecure: bool, *, legacy: bool) -> Stream | None:
    """Ask for one kind of upgrade.

    None when the server does not know this kind. `legacy` is the form before WebSocket.
    """
    host, _ = split_address(address)
    context = public_context(address, insecure=insecure)
    outer = await start_tls(await proxied.connect(address), context, host, address, _TRUST_HINT)
    key = base64.b64encode(os.urandom(16)).decode("ascii")
    lines = [
        "GET /webapi/connectionupgrade HTTP/1.1",
        f"Host: {address}",
        "Connection: Upgrade",
        f"User-Agent: {about.user_agent()}",
    ]
    if legacy:
        lines.append(f"Upgrade: {kind}")
    else:
        lines += [
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
            f"Sec-WebSocket-Protocol: {kind}",
        ]
    try:
        async with within(
            ANSWER_TIMEOUT, f"{address} did not answer the connection upgrade", "Check the load balancer."
        ):
            await outer.write("\r\n".join([*lines, "", ""]).encode())
            status, headers = _parse(await read_head(outer))
            if status == 400:
                outer.close()
                return None
            _check(address, status, headers, "" if legacy else key)
    except OSError as error:
        outer.close()
        raise ConnectError(
            f"{address} broke off the connection upgrade ({error})", "Check the load balancer's rules for it."
        ) from None
    except BaseException:
        outer.close()
        raise
    return outer if legacy else WebSocketStream(outer)


def _parse(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers (lower-case names) of an HTTP answer; status 0 when it is none."""
    first, *lines = head.decode("latin-1").split("\r\n")
    status = re.match(r"HTTP/1\.[01] (\d{3})\b", first)
    pairs = (line.partition(":") for line in lines)
    return int(status[1]) if status else 0, {name.strip().lower(): value.strip() for name, _, value in pairs}


def _check(address: str, status: int, headers: Mapping[str, str], key: str) -> None:
    """Raise ConnectError unless the server switched protocols.

    With a `key` also unless it did so by the WebSocket rules.
    """
    if status == 404:
        raise ConnectError(
            f"{address} knows no connection upgrade (404): it is older than Teleport 15.1 or no Teleport Proxy",
            "Check teleport.addr, or upgrade the cluster.",
        )
    if status != 101:
        raise ConnectError(
            f"{address} did not switch protocols (status {status})",
            "Check that the load balancer lets WebSocket requests to /webapi/connectionupgrade through.",
        )
    expected = base64.b64encode(hashlib.sha1(key.encode() + ACCEPT_SUFFIX, usedforsecurity=False).digest()).decode(
        "ascii"
    )
    if key and (
        headers.get("upgrade", "").lower() != "websocket"
        or headers.get("sec-websocket-accept") != expected
        or headers.get("sec-websocket-protocol") not in (WITH_PINGS, WITHOUT_PINGS)
    ):
        raise ConnectError(
            f"{address} switched to something else than Teleport's WebSocket",
            "Check that the load balancer passes Upgrade and Sec-WebSocket headers on unchanged.",
        )
