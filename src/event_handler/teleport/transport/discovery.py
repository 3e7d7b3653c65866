"""Asks a Proxy where its tunnel is (`/webapi/find`), and turns the answer into one address.

Source of the rules: Teleport's api/client/webclient, as restated in its protocol reference.
"""

from __future__ import annotations

import http.client
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from io import BytesIO
from typing import Any

import orjson

from event_handler import about
from event_handler.errors import ConnectError
from event_handler.teleport.transport import proxied
from event_handler.teleport.transport.base import join_address, split_address, within
from event_handler.teleport.transport.stream import Stream
from event_handler.teleport.transport.tls_stream import public_context, start_tls

FIND_TIMEOUT = 10.0  # seconds
DISCOVERY_LIMIT = 1024 * 1024  # bytes; a real answer has some 2 KiB
TUNNEL_PORT = 3024
WEB_PORT = 443
TUNNEL_VARIABLE = "TELEPORT_TUNNEL_PUBLIC_ADDR"

_HOST = re.compile(r"[^\s\[\]/@]+")
_SCHEMES = ("tcp://", "http://", "https://")
_NO_PROXY_HINT = "Check that teleport.addr is the web address of a Teleport Proxy."


@dataclass(frozen=True, slots=True)
class Discovery:
    """What a Proxy says of itself; addresses as they are written there, "" where there is none.

    `clock` is its time (RFC 9110, section 6.6.1) in seconds since the epoch, without parts of a second; None where it
    tells none.
    """

    server_version: str = ""
    cluster_name: str = ""
    tls_routing: bool = False
    public_addr: str = ""
    web_listen_addr: str = ""
    ssh_public_addr: str = ""
    tunnel_public_addr: str = ""
    tunnel_listen_addr: str = ""
    clock: float | None = None


async def find(address: str, *, insecure_proxy: bool) -> Discovery:
    """Ask the Proxy at `address`. Raises ConnectError."""
    host, _ = split_address(address)
    async with within(FIND_TIMEOUT, f"{address} did not say where its tunnel is", _NO_PROXY_HINT):
        context = public_context(address, insecure=insecure_proxy)
        stream = await start_tls(await proxied.connect(address), context, host, address, _NO_PROXY_HINT)
        try:
            response = _response(await _get(stream, address))
            return replace(parse(address, response.read()), clock=_clock(response.getheader("Date", "")))
        except (OSError, http.client.HTTPException) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ConnectError(f"{address} does not answer as a web server ({reason})", _NO_PROXY_HINT) from None
        finally:
            stream.close()


async def _get(stream: Stream, address: str) -> bytes:
    """The whole answer, up to the end of the connection."""
    lines = ["GET /webapi/find HTTP/1.1", f"Host: {address}", "Accept: application/json", "Connection: close"]
    lines.append(f"User-Agent: {about.user_agent()}")
    await stream.write("\r\n".join([*lines, "", ""]).encode())
    answer = bytearray()
    while piece := await stream.read():
        answer += piece
        if len(answer) > DISCOVERY_LIMIT:
            raise ConnectionError(f"its answer is larger than {DISCOVERY_LIMIT // 1024} KiB")
    return bytes(answer)


class _Recorded:
    """What http.client wants of a socket."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def makefile(self, *_: object) -> BytesIO:
        return BytesIO(self._answer)


def _response(answer: bytes) -> http.client.HTTPResponse:
    response = http.client.HTTPResponse(_Recorded(answer))  # type: ignore[arg-type]  # a socket as far as it is read
    response.begin()
    return response


def _clock(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None


def parse(address: str, body: bytes) -> Discovery:
    """Read the JSON of `/webapi/find`.

    Members that are missing or of another type count as empty. Raises ConnectError.
    """
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("proxy"), dict):
        raise ConnectError(
            f"{address} answers /webapi/find with something other than a Proxy's description: it is not Teleport",
            _NO_PROXY_HINT,
            conclusive=True,
        )
    proxy = found["proxy"]
    ssh = proxy.get("ssh") if isinstance(proxy.get("ssh"), dict) else {}
    return Discovery(
        server_version=_text(found, "server_version"),
        cluster_name=_text(found, "cluster_name"),
        tls_routing=proxy.get("tls_routing_enabled") is True,
        public_addr=_text(ssh, "public_addr"),
        web_listen_addr=_text(ssh, "web_listen_addr"),
        ssh_public_addr=_text(ssh, "ssh_public_addr"),
        tunnel_public_addr=_text(ssh, "ssh_tunnel_public_addr"),
        tunnel_listen_addr=_text(ssh, "tunnel_listen_addr"),
    )


def _text(members: dict[str, Any], name: str) -> str:
    value = members.get(name)
    return value if isinstance(value, str) else ""


def tunnel_address(found: Discovery, environment: Mapping[str, str]) -> str:
    """The `host:port` of the tunnel: the environment's word, else what the Proxy says. Raises ConnectError where
    nothing does.
    """
    web_port = _split(found.web_listen_addr)[1] or WEB_PORT
    tunnel_port = _split(found.tunnel_listen_addr)[1] or TUNNEL_PORT
    if forced := environment.get(TUNNEL_VARIABLE):
        return _join(forced, web_port if found.tls_routing else tunnel_port)
    if found.tls_routing:
        chosen = found.public_addr or found.web_listen_addr
        return _join(chosen, web_port)
    if found.tunnel_public_addr:
        return _join(found.tunnel_public_addr, tunnel_port)
    if public := found.ssh_public_addr or found.public_addr:
        return _join(_split(public)[0], tunnel_port)
    return _join(found.tunnel_listen_addr or found.web_listen_addr, tunnel_port)


def _join(address: str, default_port: int) -> str:
    host, port = _split(address)
    if not _HOST.fullmatch(host):
        raise ConnectError(
            f"the Proxy names no address of its tunnel that can be dialed ({address!r})",
            f"Set proxy_service.public_addr in its configuration, or {TUNNEL_VARIABLE} here.",
        )
    return join_address(host, port or default_port)


def _split(address: str) -> tuple[str, int]:
    """Host and port of an address with or without scheme, brackets, and port (0 = none or not a number)."""
    for scheme in _SCHEMES:
        address = address.removeprefix(scheme)
    address = address.rstrip("/")
    if address.startswith("["):
        host, _, rest = address[1:].partition("]")
        port = rest.removeprefix(":")
    elif address.count(":") > 1:
        host, port = address, ""
    else:
        host, _, port = address.partition(":")
    valid = port.isascii() and port.isdigit() and len(port) < 6 and int(port) < 65536
    return host, int(port) if valid else 0
