"""The certificates of `configure` in collectors on OpenSSL's, Go's and Java's TLS: the sink gets in, and nobody without
a certificate.

Go and Java are used where they are installed.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from event_handler.configure import Request, groups
from event_handler.configure.authority import KeyType
from event_handler.configure.files import write
from event_handler.event import Event
from event_handler.ports import Delivered, Retry
from event_handler.sinks.fluentd import FluentdOptions, FluentdSink

PROGRAMS = Path(__file__).parent / "collectors"
PASSPHRASE = "correct horse"
EVENT = Event("user.login", "u1", 0.0, 0, b'{"uid":"u1"}')
OPENSSL = "openssl"
GO = pytest.param("go", marks=pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed"))
JAVA = pytest.param("java", marks=pytest.mark.skipif(shutil.which("javac") is None, reason="no JDK is installed"))
# Seconds; Go compiles its own library the first time. What it makes is linked statically and has a clock of its own.
pytestmark = [pytest.mark.timeout(300), pytest.mark.own_clock]


@pytest.fixture(scope="module", params=["rsa", "ecdsa", "ed25519"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind: KeyType = request.param
    out = tmp_path_factory.mktemp(kind)
    wanted = Request(
        out, "example.test:443", "ca", "server", "client", ("localhost",), (), timedelta(days=1), 2048, kind
    )
    write(groups(wanted, lambda: PASSPHRASE))
    openssl("pkey", "-in", out / "server.key", "-passin", f"pass:{PASSPHRASE}", "-out", out / "plain.key")
    pair = ("-in", out / "server.crt", "-inkey", out / "plain.key")
    openssl("pkcs12", "-export", *pair, "-out", out / "server.p12", "-passout", "pass:changeit")
    return out


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the collectors that can be built here."""
    out = tmp_path_factory.mktemp("built")
    if shutil.which("go"):
        subprocess.run(["go", "build", "-o", str(out / "collector"), str(PROGRAMS / "collector.go")], check=True)
    if shutil.which("javac"):
        subprocess.run(["javac", "-d", str(out), str(PROGRAMS / "Collector.java")], check=True)
    return out


@asynccontextmanager
async def collector(stack: str, made: Path, built: Path) -> AsyncIterator[tuple[int, asyncio.StreamReader]]:
    """A running collector: its port, and what it prints."""
    ca, certificate = str(made / "ca.crt"), str(made / "server.crt")
    trust = ("-CAfile", ca, "-Verify", "1", "-verify_return_error")
    key = ("-key", str(made / "server.key"), "-pass", f"pass:{PASSPHRASE}")
    command = {
        OPENSSL: ["openssl", "s_server", "-accept", "localhost:0", *trust, "-cert", certificate, *key],
        "go": [str(built / "collector"), ca, certificate, str(made / "plain.key")],
        "java": ["java", "-cp", str(built), "Collector", ca, str(made / "server.p12")],
    }[stack]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        port = b""
        while not port.isdigit():  # openssl prints more than that
            line = await process.stdout.readline()
            assert line, "ended before it listened"
            port = line.strip().rpartition(b":")[2]
        yield int(port), process.stdout
    finally:
        process.kill()
        await process.wait()


def sink(made: Path, port: int, *, signed: bool) -> FluentdSink:
    """A sink that trusts the authority, and shows its certificate where it is `signed`."""
    cert, key = (str(made / "client.crt"), str(made / "client.key")) if signed else ("", "")
    url, ca = f"https://localhost:{port}", str(made / "ca.crt")
    return FluentdSink(FluentdOptions(url=f"{url}/a", session_url=f"{url}/s", ca=ca, cert=cert, key=key))


async def until_printed(wanted: bytes, printed: asyncio.StreamReader) -> None:
    shown = b""
    while piece := await printed.read(4096):
        shown += piece
        if wanted in shown:
            return
    raise AssertionError("the collector ended before it had the event")


@pytest.mark.parametrize("stack", [OPENSSL, GO, JAVA])
async def test_a_collector_on_another_tls_library_and_the_sink_accept_each_other(
    stack: str, made: Path, built: Path
) -> None:
    async with collector(stack, made, built) as (port, printed):
        own = sink(made, port, signed=True)
        delivering = asyncio.create_task(own.deliver([EVENT]))
        await until_printed(EVENT.body, printed)
        if stack == OPENSSL:  # it shows what it gets and speaks no HTTP
            delivering.cancel()
        said = (await asyncio.gather(delivering, return_exceptions=True))[0]
        assert isinstance(said, asyncio.CancelledError if stack == OPENSSL else Delivered)
        await own.close()


@pytest.mark.parametrize("stack", [GO, JAVA])
async def test_such_a_collector_refuses_a_client_without_a_certificate(stack: str, made: Path, built: Path) -> None:
    async with collector(stack, made, built) as (port, _):
        stranger = sink(made, port, signed=False)
        assert isinstance(await stranger.deliver([EVENT]), Retry)
        await stranger.close()
