"""A forward proxy to test ways out: HTTP CONNECT or SOCKS5, with or without a password, counting what passes.

`python -m event_handler.simulator.forward_proxy --kind connect` prints its address as JSON, and its counts when it is
ended.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import ipaddress
import json
import signal
from collections.abc import Mapping
from enum import StrEnum

from event_handler.simulator import starting
from event_handler.simulator.listener import Listener, copy_both_ways

_NO_AUTHENTICATION, _USER_PASSWORD, _NONE_ACCEPTABLE = 0, 2, 0xFF
_GRANTED, _REFUSED, _COMMAND_NOT_SUPPORTED, _ADDRESS_NOT_SUPPORTED = 0, 5, 7, 8
_IPV4, _NAME, _IPV6 = 1, 3, 4

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Kind(StrEnum):
    """Protocols: HTTP CONNECT (RFC 9110 section 9.3.6), SOCKS5 (RFC 1928, passwords RFC 1929)."""

    CONNECT = "connect"
    SOCKS5 = "socks5"


class ForwardProxy:
    """Listens on loopback; `user` "" asks for no password. `targets` are the host:port that it has connected to, in
    their order.

    `hosts` has addresses of names that only this proxy can resolve, as in a network that is reached through it alone.
    """

    def __init__(
        self, kind: Kind, user: str = "", password: str = "", *, hosts: Mapping[str, str] | None = None
    ) -> None:
        self._user = user
        self._password = password
        self._hosts = hosts or {}
        self._listener = Listener(self._connect if kind is Kind.CONNECT else self._socks5)
        self.targets: list[str] = []

    @property
    def accepted(self) -> int:
        """Connections that clients made, also those that were refused."""
        return self._listener.accepted

    async def start(self, port: int = 0) -> str:
        """Listen and return host:port."""
        return await self._listener.start(port)

    async def close(self) -> None:
        await self._listener.close()

    async def _open(self, host: str, port: int) -> Stream:
        opened = await asyncio.open_connection(self._hosts.get(host, host), port)
        self.targets.append(f"{host}:{port}")
        return opened

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target = f"{head[0]}  ".split(" ")[:2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        expected = "Basic " + base64.b64encode(f"{self._user}:{self._password}".encode()).decode()
        if method != "CONNECT":
            await _answer(writer, "405 Method Not Allowed")
        elif self._user and headers.get("proxy-authorization") != expected:
            await _answer(writer, '407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="simulated"')
        else:
            host, _, port = target.rpartition(":")
            try:
                stream = await self._open(host.strip("[]"), int(port))
            except (OSError, ValueError):
                await _answer(writer, "502 Bad Gateway")
                return
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await copy_both_ways(reader, writer, *stream)

    async def _socks5(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not await self._signed_in(reader, writer):
            return
        _, command, _, kind = await reader.readexactly(4)
        if kind not in (_IPV4, _NAME, _IPV6):
            await _reply(writer, _ADDRESS_NOT_SUPPORTED)
            return
        host = await _read_host(reader, kind)
        port = int.from_bytes(await reader.readexactly(2))
        if command != 1:
            await _reply(writer, _COMMAND_NOT_SUPPORTED)
            return
        try:
            stream = await self._open(host, port)
        except OSError:
            await _reply(writer, _REFUSED)
            return
        await _reply(writer, _GRANTED)
        await copy_both_ways(reader, writer, *stream)

    async def _signed_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        version, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        method = _USER_PASSWORD if self._user else _NO_AUTHENTICATION
        if version != 5 or method not in methods:
            writer.write(bytes([5, _NONE_ACCEPTABLE]))
            await writer.drain()
            return False
        writer.write(bytes([5, method]))
        if method == _NO_AUTHENTICATION:
            return True
        await reader.readexactly(1)
        user = await reader.readexactly((await reader.readexactly(1))[0])
        password = await reader.readexactly((await reader.readexactly(1))[0])
        right = (user, password) == (self._user.encode(), self._password.encode())
        writer.write(bytes([1, 0 if right else 1]))
        await writer.drain()
        return right


async def _answer(writer: asyncio.StreamWriter, status: str) -> None:
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
    await writer.drain()


async def _read_host(reader: asyncio.StreamReader, kind: int) -> str:
    if kind == _NAME:
        return (await reader.readexactly((await reader.readexactly(1))[0])).decode("ascii", "replace")
    return str(ipaddress.ip_address(await reader.readexactly(4 if kind == _IPV4 else 16)))


async def _reply(writer: asyncio.StreamWriter, code: int) -> None:
    writer.write(bytes([5, code, 0, _IPV4, 0, 0, 0, 0, 0, 0]))
    await writer.drain()


async def serve(options: argparse.Namespace) -> None:
    proxy = ForwardProxy(Kind(options.kind), options.user, options.password)
    print(json.dumps({"address": await proxy.start(options.port)}), flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await proxy.close()
    print(json.dumps({"accepted": proxy.accepted, "targets": proxy.targets}), flush=True)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m event_handler.simulator.forward_proxy", description=__doc__)
    made.add_argument("--kind", choices=list(Kind), required=True, help="which protocol to speak")
    made.add_argument("--user", default="", help="user that must sign in; without one everybody is let through")
    made.add_argument("--password", default="", help="that user's password")
    made.add_argument("--port", type=int, default=0, help="port on loopback, 0 takes a free one")
    return made


def main() -> None:
    options = parser().parse_args()
    with starting.told():
        asyncio.run(serve(options))


if __name__ == "__main__":
    main()
