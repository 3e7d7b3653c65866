"""A receiver is reached through the proxy that the environment names for it, by Go's rules.

A proxy's refusal is told as its own.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from event_handler.errors import SinkError
from event_handler.ports import Delivered, Retry, Verdict
from event_handler.sinks.elasticsearch import ElasticsearchOptions, ElasticsearchSink
from event_handler.sinks.fluentd import FluentdOptions, FluentdSink
from event_handler.sinks.http import TlsFiles
from event_handler.sinks.webhook import WebhookOptions, WebhookSink
from tests.contract.deliveries import events, verdict
from tests.contract.pki import Pki
from tests.contract.receiver import Receiver, Reply, raw, receiving
from tests.unit.teleport.transport.servers import HttpProxy, PublicAuthority, SocksProxy, join, listening

HOST = "collector.example.com"  # a name that only a proxy of these tests knows
pytestmark = pytest.mark.usefixtures("no_settings_from_outside")


def fluentd(url: str, files: TlsFiles | None = None) -> FluentdSink:
    named = files or TlsFiles()
    return FluentdSink(
        FluentdOptions(url=f"{url}/a", session_url=f"{url}/s", ca=named.ca, cert=named.cert, key=named.key)
    )


async def said(sink: FluentdSink) -> Verdict:
    try:
        return await verdict(sink)
    finally:
        await sink.close()


@asynccontextmanager
async def plain() -> AsyncIterator[Receiver]:
    async with receiving(lambda _: Reply(200), None) as receiver:
        yield receiver


@pytest.mark.parametrize("login", ["", "us er:p€ss"])
async def test_https_goes_through_connect(pki: Pki, monkeypatch: pytest.MonkeyPatch, login: str) -> None:
    async with receiving(lambda _: Reply(200), pki.server_context(HOST)) as receiver:
        proxy = HttpProxy(receiver.port, login=login)
        async with listening(proxy) as port:
            credentials = "us%20er:p%E2%82%ACss@" if login else ""
            monkeypatch.setenv("HTTPS_PROXY", f"http://{credentials}127.0.0.1:{port}")
            sink = fluentd(f"https://{HOST}:8888", pki.client_files())
            assert await verdict(sink, events(1)) == Delivered()
            assert await said(sink) == Delivered()
    assert len(proxy.seen) == 1, "the connection is kept"
    assert proxy.seen[0].startswith(f"CONNECT {HOST}:8888 HTTP/1.1\r\nHost: {HOST}:8888\r\n")
    assert [request.target for request in receiver.requests] == ["/a", "/a"]
    assert "proxy-authorization" not in receiver.requests[0].headers


@pytest.mark.parametrize("secure", [True, False])
async def test_a_proxy_may_itself_be_spoken_to_over_tls(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secure: bool
) -> None:
    public = PublicAuthority(tmp_path, monkeypatch)
    async with receiving(lambda _: Reply(200), pki.server_context(HOST) if secure else None) as receiver:
        connect = HttpProxy(receiver.port, login="user:password")

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await join(reader, writer, receiver.port)

        async with listening(connect if secure else forward, public.context()) as port:
            monkeypatch.setenv("HTTPS_PROXY" if secure else "HTTP_PROXY", f"https://user:password@localhost:{port}")
            sink = fluentd(f"http{'s' if secure else ''}://{HOST}:8888", pki.client_files() if secure else None)
            large = events(1, size=1_000_000)
            assert await verdict(sink, large) == Delivered()
            assert await said(sink) == Delivered()
    assert receiver.requests[0].body == large[0].body
    assert receiver.connections == 1


async def test_a_proxy_whose_certificate_is_not_trusted_is_named(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(HttpProxy(0), PublicAuthority(tmp_path, monkeypatch).context("elsewhere")) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"https://localhost:{port}")
        got = await said(fluentd(f"https://{HOST}:8888", pki.client_files()))
    assert isinstance(got, Retry)
    assert got.misconfigured
    assert f"the proxy https://localhost:{port} does not connect" in got.reason
    assert "certificate verify failed" in got.reason


@pytest.mark.parametrize("login", ["", "user:p€ss"])
async def test_http_asks_the_proxy_for_the_whole_url(monkeypatch: pytest.MonkeyPatch, login: str) -> None:
    async with plain() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://{login}{'@' if login else ''}127.0.0.1:{proxy.port}")
        sink = fluentd(f"http://{HOST}:8888/x%2Fy")
        assert await verdict(sink, events(1, session_id="s1")) == Delivered()
        assert await said(sink) == Delivered()
    assert [request.target for request in proxy.requests] == [
        f"http://{HOST}:8888/x%2Fy/s.s1.log",
        f"http://{HOST}:8888/x%2Fy/a",
    ]
    headers = proxy.requests[0].headers
    assert headers["host"] == f"{HOST}:8888"
    assert headers.get("proxy-authorization") == (
        f"Basic {base64.b64encode(login.encode()).decode()}" if login else None
    )
    assert proxy.connections == 1


@pytest.mark.parametrize("secure", [True, False])
@pytest.mark.parametrize("login", ["", "user:secret"])
async def test_a_socks_proxy_is_used_too(pki: Pki, monkeypatch: pytest.MonkeyPatch, secure: bool, login: str) -> None:
    async with receiving(lambda _: Reply(200), pki.server_context(HOST) if secure else None) as receiver:
        proxy = SocksProxy(receiver.port, login=login)
        async with listening(proxy) as port:
            monkeypatch.setenv(
                "HTTPS_PROXY" if secure else "HTTP_PROXY", f"socks5://{login}{'@' if login else ''}127.0.0.1:{port}"
            )
            assert (
                await said(fluentd(f"http{'s' if secure else ''}://{HOST}", pki.client_files() if secure else None))
                == Delivered()
            )
    assert proxy.seen == [b"\x03" + HOST.encode() + (443 if secure else 80).to_bytes(2)]


@pytest.mark.parametrize(
    ("host", "on_the_wire"),
    [("192.0.2.9", b"\x01\xc0\x00\x02\x09"), ("[2001:db8::7]", b"\x04\x20\x01\x0d\xb8" + b"\0" * 11 + b"\x07")],
)
async def test_a_socks_proxy_is_given_an_address_as_such(
    monkeypatch: pytest.MonkeyPatch, host: str, on_the_wire: bytes
) -> None:
    async with plain() as receiver:
        proxy = SocksProxy(receiver.port)
        async with listening(proxy) as port:
            monkeypatch.setenv("HTTP_PROXY", f"socks5h://127.0.0.1:{port}")
            assert await said(fluentd(f"http://{host}:8888")) == Delivered()
    assert proxy.seen == [on_the_wire + (8888).to_bytes(2)]
    assert receiver.requests[0].headers["host"] == f"{host}:8888"


@pytest.mark.parametrize(
    ("variables", "host"),
    [
        ({"HTTPS_PROXY": "http://127.0.0.1:1"}, "127.0.0.1"),
        ({"ALL_PROXY": "http://127.0.0.1:1"}, "127.0.0.1"),
        ({"HTTP_PROXY": "http://127.0.0.1:1"}, "localhost"),
        ({"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": "10.0.0.0/8, .internal"}, "127.0.0.1"),
    ],
)
async def test_this_machine_and_another_schemes_setting_need_no_proxy(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], host: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    async with plain() as receiver:
        assert await said(fluentd(f"http://{host}:{receiver.port}")) == Delivered()


async def test_a_host_of_no_proxy_is_reached_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    async with plain() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", ".invalid")
        direct = await said(fluentd("http://collector.invalid:8888"))
    assert isinstance(direct, Retry)
    assert "collector.invalid:8888 does not resolve" in direct.reason
    assert proxy.requests == []


@pytest.mark.parametrize(
    ("answer", "misconfigured"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", True),
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", True),
        (b"SSH-2.0-x\r\n\r\n", True),
        (b"", True),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", False),
    ],
)
async def test_a_proxy_that_does_not_connect_is_named(
    pki: Pki, monkeypatch: pytest.MonkeyPatch, answer: bytes, misconfigured: bool
) -> None:
    async with listening(HttpProxy(0, answer=answer)) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:secret@127.0.0.1:{port}")
        got = await said(fluentd(f"https://{HOST}:8888", pki.client_files()))
    assert isinstance(got, Retry)
    assert got.misconfigured is misconfigured
    for part in (f"http://127.0.0.1:{port}", f"{HOST}:8888", "HTTPS_PROXY"):
        assert part in got.reason
    assert "secret" not in got.reason


async def test_a_proxy_that_wants_a_password_for_plain_http_is_no_receiver_that_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with plain() as proxy:
        proxy.script.append(raw(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"))
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        got = await said(fluentd(f"http://{HOST}:8888"))
    assert isinstance(got, Retry)
    assert got.misconfigured
    assert (
        f"the proxy http://127.0.0.1:{proxy.port} asks for a user name and password; put them into HTTP_PROXY"
        in got.reason
    )


async def test_a_proxy_that_is_down_is_named_not_the_receiver(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(HttpProxy(0)) as port:
        pass
    monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{port}")
    got = await said(fluentd(f"https://{HOST}:8888", pki.client_files()))
    assert isinstance(got, Retry)
    assert f"no connection to the proxy http://127.0.0.1:{port}" in got.reason


async def test_a_proxy_that_hangs_costs_a_time_out(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(hang) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{port}")
        files = pki.client_files()
        url = f"https://{HOST}:8888/a"
        got = await said(
            FluentdSink(
                FluentdOptions(url=url, session_url=url, ca=files.ca, cert=files.cert, key=files.key, timeout=0.3)
            )
        )
    assert isinstance(got, Retry)
    assert not got.unanswered


@pytest.mark.parametrize("value", ["ftp://u:secret@proxy", "http://u:secret@proxy:port"])
def test_a_proxy_that_cannot_be_used_is_refused_at_the_start_without_its_password(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(SinkError, match="HTTPS_PROXY") as caught:
        fluentd(f"https://{HOST}")
    with pytest.raises(SinkError, match="HTTPS_PROXY"):
        ElasticsearchSink(ElasticsearchOptions(url=f"https://{HOST}"))
    assert "secret" not in str(caught.value)


async def test_a_proxy_of_the_sinks_own_wins_over_the_environment(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    files = pki.client_files()
    async with receiving(lambda _: Reply(200), pki.server_context(HOST)) as receiver:
        proxy = HttpProxy(receiver.port)
        async with listening(proxy) as port:
            options = WebhookOptions(
                url=f"https://{HOST}:8888/", ca=files.ca, cert=files.cert, key=files.key, proxy=f"127.0.0.1:{port}"
            )
            sink = WebhookSink(options, "hook", "sinks.hook")
            assert await verdict(sink) == Delivered()
            await sink.close()
    assert len(proxy.seen) == 1


async def test_none_as_a_proxy_is_the_direct_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    sink = WebhookSink(WebhookOptions(url=f"http://{HOST}:8888/", proxy="none"), "hook", "sinks.hook")
    answer = await verdict(sink)
    await sink.close()
    assert isinstance(answer, Retry)
    assert "the name of the receiver" in answer.reason


def test_a_proxy_that_is_none_is_refused_at_the_start_without_its_password() -> None:
    options = WebhookOptions(url=f"https://{HOST}:8888/", proxy="ftp://me:s3cret@proxy:1")
    with pytest.raises(SinkError, match=r"sinks\.hook\.proxy is not a proxy URL") as caught:
        WebhookSink(options, "hook", "sinks.hook")
    assert "s3cret" not in f"{caught.value.message} {caught.value.hint}"
