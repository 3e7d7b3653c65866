"""A URL with the wrong scheme, a refused client certificate and other faults of the connection are said with host
and next step.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from yarl import URL

from event_handler.errors import SinkError
from event_handler.ports import Delivered, Reject, Retry
from event_handler.sinks.fluentd import FluentdOptions, FluentdSink
from event_handler.sinks.http import Answer, HttpClient, TlsFiles
from tests.contract import receiver as scripted
from tests.contract.deliveries import events, verdict
from tests.contract.http_adapter import HttpAdapter
from tests.contract.pki import Pki
from tests.contract.receiver import Receiver, Reply, receiving


def fluentd(url: str, files: TlsFiles | None = None, timeout: float = 20.0) -> FluentdSink:
    named = files or TlsFiles()
    return FluentdSink(
        FluentdOptions(
            url=f"{url}/a", session_url=f"{url}/s", ca=named.ca, cert=named.cert, key=named.key, timeout=timeout
        )
    )


async def said(url: str, files: TlsFiles | None = None) -> Retry:
    """The verdict of one delivery, which must be to repeat it."""
    sink = fluentd(url, files)
    try:
        got = await verdict(sink)
    finally:
        await sink.close()
    assert isinstance(got, Retry)
    return got


@asynccontextmanager
async def answering(data: bytes, *, end: Callable[[asyncio.StreamWriter], None] | None = None) -> AsyncIterator[int]:
    """A server in the clear that takes a request's head, sends `data` and ends the connection; yields its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read(100)
            writer.write(data)
            (end or asyncio.StreamWriter.close)(writer)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_http_to_a_receiver_with_tls_is_named(pki: Pki) -> None:
    """The server is asyncio's: it cuts the connection without a word."""
    async with receiving(lambda _: Reply(200), pki.server_context("localhost")) as receiver:
        got = await said(f"http://localhost:{receiver.port}")
    assert got.misconfigured
    assert f"localhost:{receiver.port} expects TLS; write https:// in forward.fluentd.url" in got.reason


@pytest.mark.parametrize(
    "data",
    [
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"\x15\x03\x03\x00\x02\x02\x0a",
        b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n<h1>The plain HTTP request was sent to HTTPS port</h1>",
    ],
    ids=["alert", "other alert", "go", "nginx"],
)
async def test_a_server_that_says_that_it_wants_tls_is_understood(data: bytes) -> None:
    async with answering(data) as port:
        got = await said(f"http://127.0.0.1:{port}")
    assert got.misconfigured
    assert f"127.0.0.1:{port} expects TLS; write https:// in forward.fluentd.url" in got.reason


async def test_an_event_that_is_quoted_is_not_taken_for_words_about_tls() -> None:
    async with receiving(lambda _: Reply(200), None) as receiver:
        sink = fluentd(receiver.url)
        assert await verdict(sink) == Delivered()
        receiver.script.append(scripted.answer(400, b"bad agent: Client sent an HTTP request to an HTTPS server"))
        assert isinstance(await verdict(sink), Reject)
        await sink.close()


async def test_a_request_leaves_nothing_of_itself_in_memory_while_its_connection_is_idle() -> None:
    async with receiving(lambda _: Reply(200), None) as receiver:
        client = HttpClient("forward.fluentd", TlsFiles(), connections=1, headers={"Content-Type": "application/json"})
        body = b"x" * 1_000_000
        before = sys.getrefcount(body)
        assert isinstance(await client.post(URL(receiver.url), body), Answer)
        assert sys.getrefcount(body) == before
        await client.close()


async def test_a_plain_receiver_that_resets_the_first_request_is_not_taken_for_one_with_tls() -> None:
    async with answering(b"", end=scripted.reset) as port:
        got = await said(f"http://127.0.0.1:{port}")
    assert not got.misconfigured
    assert got.unanswered
    assert f"127.0.0.1:{port}" in got.reason


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n", b"220 smtp ready\r\n"], ids=["http", "ssh", "smtp"]
)
async def test_https_to_a_receiver_without_tls_is_named(pki: Pki, data: bytes) -> None:
    async with answering(data) as port:
        got = await said(f"https://localhost:{port}", pki.client_files())
    assert got.misconfigured
    assert f"localhost:{port} speaks no TLS; write http:// in forward.fluentd.url" in got.reason


def serve_refusals(listening: socket.socket, context: ssl.SSLContext, polite: list[bool]) -> None:
    """End each connection after the handshake, by an alert that can be read where `polite` says so and by a reset
    otherwise.
    """
    for politely in polite:
        connected, _ = listening.accept()
        connected.settimeout(20)
        if politely:
            with connected, context.wrap_socket(connected, server_side=True, do_handshake_on_connect=False) as secured:
                with contextlib.suppress(ssl.SSLError):
                    secured.do_handshake()
                with socket.socket(fileno=secured.detach()) as plain, contextlib.suppress(OSError):
                    plain.settimeout(20)
                    while plain.recv(65536):
                        pass
        else:
            with connected:
                connected.recv(100)
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


async def test_a_refused_client_certificate_stays_refused_when_a_reset_overtakes_the_alert(
    pki: Pki, other_pki: Pki
) -> None:
    polite = [True, False, False, True, False]
    files = pki.client_files()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        context = pki.server_context("localhost", clients=other_pki)
        serving = asyncio.create_task(asyncio.to_thread(serve_refusals, listening, context, polite))
        port = listening.getsockname()[1]
        sink = fluentd(f"https://localhost:{port}", files)
        got = [await verdict(sink) for _ in polite]
        await sink.close()
        await serving
    assert len(set(got)) == 1
    assert isinstance(got[0], Retry)
    assert got[0].misconfigured
    for part in (f"localhost:{port} refuses the client certificate {files.cert}", "forward.fluentd.cert"):
        assert part in got[0].reason


async def test_an_alert_is_read_also_when_the_request_can_no_longer_be_written(pki: Pki, other_pki: Pki) -> None:
    """A body that does not fit into the socket: the write fails first."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        context = pki.server_context("localhost", clients=other_pki)

        def serve() -> None:
            connected, _ = listening.accept()
            secured = context.wrap_socket(connected, server_side=True, do_handshake_on_connect=False)
            with secured, contextlib.suppress(ssl.SSLError):
                secured.do_handshake()

        serving = asyncio.create_task(asyncio.to_thread(serve))
        sink = fluentd(f"https://localhost:{listening.getsockname()[1]}", pki.client_files())
        got = await verdict(sink, events(1, size=8_000_000))
        await sink.close()
        await serving
    assert isinstance(got, Retry)
    assert "refuses the client certificate" in got.reason


async def test_a_refusal_is_forgotten_when_the_receiver_answers(pki: Pki, other_pki: Pki) -> None:
    async with receiving(lambda _: Reply(200), pki.server_context("localhost")) as receiver:
        sink = fluentd(receiver.url, pki.client_files())
        port = receiver.port
        await receiver.stop()
        with socket.create_server(("127.0.0.1", port)) as listening:
            context = pki.server_context("localhost", clients=other_pki)
            serving = asyncio.create_task(asyncio.to_thread(serve_refusals, listening, context, [True]))
            refused = await verdict(sink)
            await serving
        assert isinstance(refused, Retry)
        assert refused.misconfigured
        await receiver.start(pki.server_context("localhost"))
        assert await verdict(sink) == Delivered()
        await receiver.stop()
        async with receiving(lambda _: Reply(200), None) as other:
            assert other.port
        down = await verdict(sink)
        await sink.close()
    assert isinstance(down, Retry)
    assert not down.misconfigured


async def test_a_receiver_that_accepts_and_says_nothing_fails_the_handshake_in_time(pki: Pki) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        sink = fluentd(f"https://localhost:{port}", pki.client_files(), timeout=0.3)
        got = await verdict(sink)
        await sink.close()
    assert isinstance(got, Retry)
    assert not got.unanswered
    assert f"localhost:{port} did not finish the TLS handshake within 0.3 s" in got.reason


async def test_a_name_that_does_not_exist_is_named() -> None:
    got = await said("http://no-such-host.invalid:8888")
    assert not got.unanswered
    assert "the name of the receiver at no-such-host.invalid:8888 does not resolve" in got.reason
    assert "forward.fluentd.url" in got.reason


@pytest.mark.parametrize(
    "step", [scripted.cut_without_answer, scripted.reset_in_request, scripted.stay_silent], ids=lambda s: s.__name__
)
async def test_a_request_that_went_out_and_had_no_answer_says_so(
    receiver: Receiver, hasty: FluentdSink, step: scripted.Step
) -> None:
    receiver.script.append(step)
    got = await verdict(hasty)
    assert isinstance(got, Retry)
    assert got.unanswered


async def test_where_no_connection_was_made_nothing_went_out(receiver: Receiver, sink: FluentdSink) -> None:
    await receiver.stop()
    got = await verdict(sink)
    assert isinstance(got, Retry)
    assert not got.unanswered


@pytest.mark.parametrize("given", [("ca",), ("cert", "key"), ("ca", "cert", "key")], ids="+".join)
def test_tls_files_beside_a_url_in_the_clear_are_refused_at_the_start(
    adapter: HttpAdapter, pki: Pki, given: tuple[str, ...]
) -> None:
    files = pki.client_files()
    named = TlsFiles(**{name: getattr(files, name) for name in given})
    with pytest.raises(SinkError, match=r"in the clear") as caught:
        adapter.sink("http://collector.example.com:8888", named)
    assert all(f"{adapter.option}.{name}" in str(caught.value) for name in given)


@pytest.mark.parametrize("clear", ["url", "session-url"])
def test_it_is_enough_that_one_of_two_urls_is_in_the_clear(pki: Pki, clear: str) -> None:
    url, session_url = [("http" if each == clear else "https") + "://a/x" for each in ("url", "session-url")]
    with pytest.raises(SinkError, match=rf"forward\.fluentd\.{clear} begins with http://"):
        FluentdSink(FluentdOptions(url=url, session_url=session_url, ca=pki.client_files().ca))
