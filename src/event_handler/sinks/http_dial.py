"""Connects to a receiver: its name, TCP, the proxy of the environment where there is one, TLS; an error tells which
step failed.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import socket
import ssl
import sys
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import aiohappyeyeballs

from event_handler import about
from event_handler.names import resolve
from event_handler.proxy_environment import ProxyServer

NAME_TIMEOUT = 10.0  # seconds; two tries of a resolver with its usual five seconds
NEXT_ADDRESS = 0.25  # seconds before the next address of a name is tried beside the first (RFC 8305)
TCP_KEEPALIVE = 60  # seconds between probes of an idle connection
GOODBYE = 1.0  # seconds for the other side to close its side
SOCKS_PASSING = frozenset(
    {1, 3, 4, 5, 6}
)  # replies about the receiver or the network, not about rules (RFC 1928, section 6)
PIECE = 64 * 1024  # bytes copied at once to and from a proxy with TLS
PROXY_HEAD_LIMIT = 16 * 1024  # bytes of a proxy's answer to CONNECT

Step = Literal["name", "connection", "proxy", "tls"]
T = TypeVar("T")
_Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class DialError(Exception):
    """No connection was made: at which step, and what was raised there."""

    def __init__(self, step: Step, cause: Exception) -> None:
        super().__init__(f"{step}: {cause}")
        self.step: Step = step
        self.cause = cause


class ProxyRefusedError(OSError):
    """What the proxy said instead of connecting; `passing` when it may say something else in a while."""

    def __init__(self, said: str, *, passing: bool = False) -> None:
        super().__init__(said)
        self.passing = passing


@dataclass(frozen=True, eq=False)
class Route:
    """The way to the receiver of a URL. Each is an object of its own, by which connections are told apart."""

    secure: bool
    host: str
    port: int
    proxy: ProxyServer | None = None
    carriers: set[asyncio.Task[None]] = field(default_factory=set)  # of connections inside TLS with the proxy

    def __str__(self) -> str:
        return join(self.host, self.port)

    @property
    def name(self) -> str:
        """The name that the receiver's certificate must have; a root's dot and the zone of a link are no part of it."""
        return self.host.partition("%")[0].rstrip(".")


def join(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def dial(route: Route, context: ssl.SSLContext, deadline: float) -> socket.socket:
    """Return a connected, non-blocking socket, with TLS where the route asks for it.

    Raises DialError, also at the deadline.
    """
    host, port = (route.proxy.host, route.proxy.port) if route.proxy else (route.host, route.port)
    until = min(deadline, asyncio.get_running_loop().time() + NAME_TIMEOUT)
    found = await _step("name", until, resolve(host, port))
    connecting = aiohappyeyeballs.start_connection(found, happy_eyeballs_delay=NEXT_ADDRESS)
    connected = await _step("connection", deadline, connecting)
    try:
        _tune(connected)
        if route.proxy is not None:
            if route.proxy.scheme == "https":
                connected = await _step("proxy", deadline, _inside_tls(connected, route.proxy, route.carriers))
            await _step("proxy", deadline, _through(connected, route.proxy, route))
        if route.secure:
            connected = await _step("tls", deadline, start_tls(connected, context, route.name))
    except BaseException:
        connected.close()
        raise
    return connected


async def _step(step: Step, deadline: float, doing: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout_at(deadline):
            return await doing
    except (OSError, ValueError) as error:  # ValueError: a host name that DNS or TLS cannot carry
        raise DialError(step, error) from error


def _tune(connected: socket.socket) -> None:
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, TCP_KEEPALIVE)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, TCP_KEEPALIVE)


async def start_tls(connected: socket.socket, context: ssl.SSLContext, name: str) -> ssl.SSLSocket:
    """Do the handshake on a connected socket, which belongs to the result, or is closed, afterwards."""
    secured = context.wrap_socket(connected, server_hostname=name, do_handshake_on_connect=False)
    try:
        while True:
            try:
                secured.do_handshake()
                return secured
            except ssl.SSLWantReadError:
                await _ready(secured, "add_reader", "remove_reader")
            except ssl.SSLWantWriteError:
                await _ready(secured, "add_writer", "remove_writer")
    except BaseException:
        secured.close()
        raise


async def _ready(connected: socket.socket, add: str, remove: str) -> None:
    """Wait until the socket can be read, or written."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    getattr(loop, add)(connected.fileno(), lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        getattr(loop, remove)(connected.fileno())


async def _through(connected: socket.socket, proxy: ProxyServer, route: Route) -> None:
    """Have the proxy connect to the receiver; a request to a plain one is sent to an HTTP proxy as it is."""
    if proxy.scheme.startswith("socks"):
        await _socks(connected, proxy, route)
    elif route.secure:
        await _connect(connected, proxy, str(route))


async def _inside_tls(connected: socket.socket, proxy: ProxyServer, carriers: set[asyncio.Task[None]]) -> socket.socket:
    """A socket whose other end is carried to the proxy inside TLS, for a second TLS session cannot be put on a TLS
    socket.
    """
    context = ssl.create_default_context()  # SSL_CERT_FILE is honoured
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # authorities of companies lack extensions that strict mode demands
    far = await asyncio.open_connection(sock=connected, ssl=context, server_hostname=proxy.host)
    ours, end = socket.socketpair()
    ours.setblocking(False)
    carrying = asyncio.create_task(_carry(far, await asyncio.open_connection(sock=end)))
    carriers.add(carrying)
    carrying.add_done_callback(carriers.discard)
    return ours


async def _carry(*ends: _Stream) -> None:
    """Copy both ways until either end closes."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(PIECE):
                writer.write(data)
                await writer.drain()

    (reader, writer), (other_reader, other_writer) = ends
    copies = [asyncio.create_task(copy(reader, other_writer)), asyncio.create_task(copy(other_reader, writer))]
    try:
        await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in copies:
            task.cancel()
        await asyncio.gather(*copies, return_exceptions=True)
        writer.close()
        other_writer.close()
        try:
            async with asyncio.timeout(GOODBYE):
                await asyncio.gather(writer.wait_closed(), other_writer.wait_closed(), return_exceptions=True)
        finally:
            for one in (writer, other_writer):
                with contextlib.suppress(AttributeError):  # Python 3.11.2: a TLS transport that is closed already
                    one.transport.abort()


async def _connect(connected: socket.socket, proxy: ProxyServer, target: str) -> None:
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", f"User-Agent: {about.user_agent()}"]
    if proxy.user or proxy.password:
        lines.append(f"Proxy-Authorization: {basic(proxy.user.encode(), proxy.password.encode())}")
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connected, "\r\n".join([*lines, "", ""]).encode())
    head = b""
    while b"\r\n\r\n" not in head:  # nothing comes behind it: TLS begins with the client's words
        piece = await loop.sock_recv(connected, 4096)
        if not piece or len(head) > PROXY_HEAD_LIMIT:
            raise ProxyRefusedError("it does not answer as an HTTP proxy")
        head += piece
    version, _, status = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    if not version.startswith("HTTP/"):
        raise ProxyRefusedError("it does not answer as an HTTP proxy")
    if not status.startswith("2"):
        raise ProxyRefusedError(f"it answered {' '.join(status[:80].split())!r}", passing=status.startswith("5"))


def basic(user: bytes, password: bytes) -> str:
    """The value of an Authorization header (RFC 7617)."""
    return f"Basic {base64.b64encode(user + b':' + password).decode()}"


async def _socks(connected: socket.socket, proxy: ProxyServer, route: Route) -> None:
    """SOCKS5 (RFC 1928) with a user name and password where the proxy asks for them (RFC 1929).

    The proxy resolves the name.
    """
    user, password, name = proxy.user.encode(), proxy.password.encode(), route.name.encode()
    if max(len(user), len(password), len(name)) > 255:
        raise ProxyRefusedError("SOCKS5 takes 255 bytes of a user name, a password or a host name")
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connected, b"\x05\x02\x00\x02" if user else b"\x05\x01\x00")
    version, method = await _exactly(connected, 2)
    if version != 5:
        raise ProxyRefusedError("it does not answer as a SOCKS5 proxy")
    if method == 2 and user:
        await loop.sock_sendall(connected, b"\x01" + bytes([len(user)]) + user + bytes([len(password)]) + password)
        if (await _exactly(connected, 2))[1] != 0:
            raise ProxyRefusedError("it does not take the user name and password")
    elif method != 0:
        raise ProxyRefusedError("it asks for a user name and password")
    await loop.sock_sendall(connected, b"\x05\x01\x00" + _socks_target(name) + route.port.to_bytes(2))
    _, reply, _, kind = await _exactly(connected, 4)
    if reply != 0:
        raise ProxyRefusedError(f"it answered with SOCKS5 code {reply}", passing=reply in SOCKS_PASSING)
    size = {1: 4, 4: 16}.get(kind) or (await _exactly(connected, 1))[0]
    await _exactly(connected, size + 2)  # the proxy's own address of the connection: of no use


def _socks_target(name: bytes) -> bytes:
    try:
        address = ipaddress.ip_address(name.decode("ascii"))
    except ValueError:
        return bytes([3, len(name)]) + name
    return bytes([1 if address.version == 4 else 4]) + address.packed


async def _exactly(connected: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    got = b""
    while len(got) < count:
        piece = await loop.sock_recv(connected, count - len(got))
        if not piece:
            raise ProxyRefusedError("it closed the connection")
        got += piece
    return got
