"""Receivers of syslog: our own, which takes what RFC 5424 and 6587 say and nothing else, and a real rsyslog."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from event_handler.sinks.syslog.sink import SyslogOptions, SyslogSink
from tests.contract.message_adapter import MessageAdapter
from tests.contract.pki import Pki, make_pki

MESSAGE = re.compile(
    rb"<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (\S{1,255}) (\S{1,48}) (\S{1,128}) (\S{1,32}) "
    rb'(\[teleport@\d+(?: [a-z]+="(?:[^"\\\]]|\\["\\\]])*")*\]) (.*)',
    re.DOTALL,
)


class SyslogServer:
    """Keeps messages. Every `refuse`-th connection is reset after it was read a little, and what was read is kept."""

    option = "sinks.log.url"

    def __init__(self, scheme: str, directory: Path, pki: Pki | None = None, framing: str = "octet-counting") -> None:
        self.scheme = scheme
        self._pki = pki
        self._framing = framing
        self._path = directory / "log"
        self.port = 0
        self.messages: list[bytes] = []
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._datagrams: asyncio.DatagramTransport | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.reset_after: Callable[[], int] = lambda: 0  # messages of a connection, 0 = never

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        if self.scheme in ("udp", "unix"):
            if self.scheme == "udp":
                made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024 * 1024)
                made.bind(("127.0.0.1", self.port))
                self.port = made.getsockname()[1]
            else:
                made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._path.unlink(missing_ok=True)
                made.bind(str(self._path))
            made.setblocking(False)
            self._datagrams, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self.messages), sock=made)
        elif self.scheme == "unix-stream":
            self._server = await asyncio.start_unix_server(self._serve, str(self._path))
        else:
            context = self._pki.server_context("localhost") if self._pki else None
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=context)
            self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._datagrams is not None:
            self._datagrams.close()
            self._path.unlink(missing_ok=True)
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await self._server.wait_closed()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        left = self.reset_after()
        try:
            while True:
                if self._framing == "lines":
                    message = (await reader.readuntil(b"\n"))[:-1]
                else:
                    message = await reader.readexactly(int(await reader.readuntil(b" ")))
                self.messages.append(message)
                left -= 1
                if not left:
                    reset(writer)
                    return
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            with contextlib.suppress(OSError, ssl.SSLError):
                writer.close()

    @property
    def url(self) -> str:
        if self.scheme.startswith("unix"):
            return f"{self.scheme}://{self._path}"
        return f"{self.scheme}://localhost:{self.port}"

    def options(self, **more: Any) -> SyslogOptions:
        known: dict[str, Any] = {"url": self.url, "framing": self._framing, "confirm_after": 0.1, "timeout": 5.0}
        if self._pki:
            files = self._pki.client_files()
            known |= {"ca": files.ca, "cert": files.cert, "key": files.key}
        return SyslogOptions(**{**known, **more})

    def sink(self, **more: Any) -> SyslogSink:
        return SyslogSink(self.options(**more), "log", "sinks.log")

    async def taken(self) -> list[dict[str, Any]]:
        return [orjson.loads(split(message)[-1]) for message in self.messages]


def split(message: bytes) -> tuple[bytes, ...]:
    """Priority, time, host, application, process, type, structured data and text of a message."""
    found = MESSAGE.fullmatch(message)
    assert found, message
    return found.groups()


def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection at once, so that the other side gets an error."""
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, messages: list[bytes]) -> None:
        self._messages = messages

    def datagram_received(self, data: bytes, _: object) -> None:
        self._messages.append(data)


@asynccontextmanager
async def server(
    scheme: str, directory: Path, *, secure: bool = False, framing: str = "octet-counting"
) -> AsyncIterator[SyslogServer]:
    made = SyslogServer(scheme, directory, make_pki(directory, "syslog") if secure else None, framing)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


class Rsyslog(SyslogServer):
    """A real rsyslog that writes what it takes into a file."""

    def __init__(self, directory: Path, pki: Pki | None) -> None:
        super().__init__("tls" if pki else "tcp", directory, pki)
        self._directory = directory
        self._file = directory / "taken.log"
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.port = listening.getsockname()[1]
        key, cert = pki.issue("localhost") if pki else (b"", b"")
        (directory / "rsyslog.key").write_bytes(key)
        (directory / "rsyslog.crt").write_bytes(cert)

    async def start(self) -> None:
        driver = mode = ""
        if self._pki:
            files = (("Ca", self._pki.path("ca.crt")), ("Cert", Path("rsyslog.crt")), ("Key", Path("rsyslog.key")))
            named = " ".join(f'DefaultNetstreamDriver{name}File="{self._directory / file}"' for name, file in files)
            driver = f'global(DefaultNetstreamDriver="gtls" {named})\n'
            mode = ' StreamDriver.Name="gtls" StreamDriver.Mode="1" StreamDriver.AuthMode="x509/certvalid"'
        (self._directory / "rsyslog.conf").write_text(
            f"""
global(maxMessageSize="128k" workDirectory="{self._directory}")
{driver}module(load="imtcp"{mode})
template(name="whole" type="string" string="%rawmsg%\\n")
input(type="imtcp" address="127.0.0.1" port="{self.port}")
action(type="omfile" file="{self._file}" template="whole")
"""
        )
        command = ["rsyslogd", "-n", "-f", str(self._directory / "rsyslog.conf"), "-i", str(self._directory / "pid")]
        self._process = self._run(command)
        async with asyncio.timeout(20):
            while True:
                assert self._process.poll() is None, (self._directory / "rsyslog.log").read_text()
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                except OSError:
                    await asyncio.sleep(0.02)

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self._directory / "rsyslog.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    async def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            await asyncio.to_thread(self._process.wait)
            self._process = None
            (self._directory / "pid").unlink(missing_ok=True)

    async def taken(self) -> list[dict[str, Any]]:
        lines = self._file.read_bytes().splitlines() if self._file.exists() else []
        return [orjson.loads(split(line)[-1]) for line in lines if line.endswith(b"}")]


@asynccontextmanager
async def rsyslog(directory: Path, *, secure: bool) -> AsyncIterator[Rsyslog]:
    made = Rsyslog(directory, make_pki(directory, "rsyslog") if secure else None)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


def no_rsyslog() -> str:
    return "" if shutil.which("rsyslogd") else "there is no rsyslogd; apt-get install rsyslog rsyslog-gnutls"


def no_gnutls() -> str:
    found = list(Path("/usr/lib").glob("*/rsyslog/lmnsd_gtls.so"))
    return no_rsyslog() or ("" if found else "rsyslog has no TLS here; apt-get install rsyslog-gnutls")


Starting = Callable[[Path], AbstractAsyncContextManager[SyslogServer]]
OWN: dict[str, Starting] = {
    "syslog-tls": partial(server, "tls", secure=True),
    "syslog-tcp": partial(server, "tcp"),
    "syslog-tcp-lines": partial(server, "tcp", framing="lines"),
    "syslog-unix-stream": partial(server, "unix-stream"),
    "syslog-unix": partial(server, "unix"),
}
SYSLOG = [
    *(MessageAdapter(name, starting) for name, starting in OWN.items()),
    MessageAdapter("syslog-udp", partial(server, "udp"), restarts=False),
    MessageAdapter("rsyslog-tcp", partial(rsyslog, secure=False), skip=no_rsyslog),
    MessageAdapter("rsyslog-tls", partial(rsyslog, secure=True), skip=no_gnutls),
]
