"""TCP to an address, through the proxy of the environment where there is one: HTTP CONNECT or SOCKS5."""

from __future__ import annotations

import base64
import ipaddress
import os

from event_handler import about
from event_handler.errors import ConnectError
from event_handler.proxy_environment import ProxyServer, ascii_name, proxy_for
from event_handler.teleport.transport.base import connect_tcp, join_address, split_address, within
from event_handler.teleport.transport.stream import SocketStream, Stream, read_exactly, read_head
from event_handler.teleport.transport.tls_stream import public_context, start_tls

PROXY_TIMEOUT = 20.0  # seconds for a proxy's answer: it waits for its own connection to the target

_HTTP_REFUSALS = {
    "403": "The proxy's rules forbid this address: ask who runs it.",
    "405": "The proxy does not allow CONNECT: use another one.",
    "407": "It asks for a user name and password: put them into the URL, percent-encoded.",
    "502": "The proxy cannot reach the address: check teleport.addr.",
    "503": "The proxy cannot reach the address: check teleport.addr.",
    "504": "The proxy cannot reach the address: check teleport.addr.",
}
_SOCKS_REFUSALS = {  # RFC 1928, section 6
    1: "general failure",
    2: "its rules forbid this address",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "time to live expired",
    7: "it does not support CONNECT",
    8: "it does not support this kind of address",
}


async def connect(address: str) -> Stream:
    """Connect to `host:port`, through the environment's proxy where it names one. Raises ConnectError."""
    host, port = split_address(address)
    proxy = proxy_for(host, port, os.environ)
    if proxy is None:
        return SocketStream(await connect_tcp(host, port))
    hint = f"Check {proxy.setting}."
    stream: Stream = SocketStream(await connect_tcp(proxy.host, proxy.port, proxy.setting))
    try:
        if proxy.scheme == "https":
            stream = await start_tls(stream, public_context(str(proxy)), proxy.host, f"the proxy {proxy}", hint)
        async with within(PROXY_TIMEOUT, f"the proxy {proxy} did not answer", "Check that it can reach the address."):
            if proxy.scheme.startswith("socks"):
                await _socks(stream, proxy, host, port)
            else:
                await _http_connect(stream, proxy, host, port)
    except OSError as error:
        stream.close()
        raise ConnectError(f"the proxy {proxy} broke off ({error})", hint) from None
    except BaseException:
        stream.close()
        raise
    return stream


async def _http_connect(stream: Stream, proxy: ProxyServer, host: str, port: int) -> None:
    target = join_address(host, port)
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", f"User-Agent: {about.user_agent()}"]
    if proxy.user or proxy.password:
        token = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode("ascii")
        lines.append(f"Proxy-Authorization: Basic {token}")
    await stream.write("\r\n".join([*lines, "", ""]).encode())
    status = (await read_head(stream)).partition(b"\r\n")[0].decode("latin-1")
    version, _, rest = status.partition(" ")
    code = rest[:3]
    if not version.startswith("HTTP/"):
        raise ConnectError(f"{proxy} does not answer as an HTTP proxy", f"Check {proxy.setting}.")
    if code != "200":
        hint = _HTTP_REFUSALS.get(code, f"Check {proxy.setting}.")
        raise ConnectError(f"the proxy {proxy} refused to connect to {target}: {rest[:200].strip()!r}", hint)


async def _socks(stream: Stream, proxy: ProxyServer, host: str, port: int) -> None:
    with_password = bool(proxy.user or proxy.password)
    await stream.write(b"\x05\x02\x00\x02" if with_password else b"\x05\x01\x00")
    version, method = await read_exactly(stream, 2)
    if version != 5:
        raise ConnectError(f"{proxy} does not answer as a SOCKS5 proxy", f"Check {proxy.setting}.")
    if method == 2 and with_password:
        await _sign_in(stream, proxy)
    elif method != 0:
        hint = f"It asks for another way to sign in: check the user name and password in {proxy.setting}."
        raise ConnectError(f"the proxy {proxy} refused every way to sign in", hint)
    await stream.write(b"\x05\x01\x00" + _socks_address(host) + port.to_bytes(2))
    version, reply, _, kind = await read_exactly(stream, 4)
    if version != 5 or reply != 0:
        reason = _SOCKS_REFUSALS.get(reply, f"code {reply}")
        raise ConnectError(
            f"the proxy {proxy} refused to connect to {join_address(host, port)}: {reason}", "Check teleport.addr."
        )
    sizes = {1: 4, 4: 16}
    size = sizes[kind] if kind in sizes else (await read_exactly(stream, 1))[0]
    await read_exactly(stream, size + 2)  # the proxy's own address of the connection: of no use


async def _sign_in(stream: Stream, proxy: ProxyServer) -> None:
    """RFC 1929: user name and password."""
    user, password = proxy.user.encode(), proxy.password.encode()
    if not user or max(len(user), len(password)) > 255:
        raise ConnectError(
            f"SOCKS5 needs a user name, and takes 255 bytes of it and of the password ({proxy})",
            f"Check {proxy.setting}.",
        )
    await stream.write(b"\x01" + bytes([len(user)]) + user + bytes([len(password)]) + password)
    _, status = await read_exactly(stream, 2)
    if status != 0:
        raise ConnectError(f"the proxy {proxy} refused the user name and password", f"Check them in {proxy.setting}.")


def _socks_address(host: str) -> bytes:
    """The target for a SOCKS5 request: an IP address as such, a name as a name, so that the proxy resolves it."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = ascii_name(host).encode()
        if len(name) > 255:
            raise ConnectError(f"the host name {host[:40]}… is longer than 255 bytes", "Check teleport.addr.") from None
        return bytes([3, len(name)]) + name
    return bytes([1 if address.version == 4 else 4]) + address.packed
