"""Every HTTP sink trusts whom it should, says what is wrong with certificates, and takes up renewed ones."""

from __future__ import annotations

import asyncio
import ssl
from time import monotonic

import pytest

from event_handler.errors import SinkError
from event_handler.ports import Delivered, Retry, Sink
from event_handler.sinks.http import TlsFiles
from event_handler.sinks.webhook import WebhookOptions, WebhookSink
from tests.contract.deliveries import BOUND, verdict
from tests.contract.http_adapter import HttpAdapter
from tests.contract.pki import Pki
from tests.contract.receiver import Receiver, Reply, answer, receiving, refusing


async def test_a_client_certificate_that_is_refused_is_a_fault_to_mend(
    adapter: HttpAdapter, pki: Pki, other_pki: Pki
) -> None:
    async with refusing(pki.server_context("localhost", clients=other_pki)) as url:
        sink = adapter.sink(url, pki.client_files())
        said = await verdict(sink)
        await sink.close()
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert f"check {adapter.option}.cert" in said.reason


async def test_a_client_certificate_that_is_refused_without_a_word_is_repeated_with_a_hint(
    adapter: HttpAdapter, receiver: Receiver, sink: Sink, pki: Pki, other_pki: Pki
) -> None:
    await receiver.stop()
    await receiver.start(pki.server_context("localhost", clients=other_pki))
    said = await verdict(sink)
    assert isinstance(said, Retry)
    assert f"{adapter.option}.cert" in said.reason
    assert receiver.requests == []


async def test_a_connection_that_is_cut_in_the_handshake_is_an_outage(adapter: HttpAdapter, pki: Pki) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.close()

    async with await asyncio.start_server(cut, "127.0.0.1", 0) as server:
        sink = adapter.sink(f"https://localhost:{server.sockets[0].getsockname()[1]}", pki.client_files())
        said = await verdict(sink)
        await sink.close()
    assert isinstance(said, Retry)
    assert not said.misconfigured


async def test_a_receiver_without_tls_is_a_fault_to_mend(adapter: HttpAdapter, pki: Pki) -> None:
    async def answer_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer_plainly, "127.0.0.1", 0) as server:
        sink = adapter.sink(f"https://localhost:{server.sockets[0].getsockname()[1]}", pki.client_files())
        said = await verdict(sink)
        await sink.close()
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert "TLS" in said.reason


async def test_a_certificate_for_another_name_is_not_accepted(
    adapter: HttpAdapter, receiver: Receiver, sink: Sink, pki: Pki
) -> None:
    await receiver.stop()
    await receiver.start(pki.server_context("elsewhere.example"))
    said = await verdict(sink)
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert "name in the URL" in said.reason
    assert receiver.requests == []


async def test_a_certificate_of_an_unknown_authority_is_not_accepted(
    adapter: HttpAdapter, receiver: Receiver, sink: Sink, other_pki: Pki, pki: Pki
) -> None:
    await receiver.stop()
    await receiver.start(other_pki.server_context("localhost", clients=pki))
    said = await verdict(sink)
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert f"{adapter.option}.ca" in said.reason
    assert receiver.requests == []


async def test_a_new_certificate_of_the_same_authority_is_accepted(receiver: Receiver, sink: Sink, pki: Pki) -> None:
    receiver.script.append(answer(503, Connection="close"))
    await verdict(sink)
    await receiver.stop()
    await receiver.start(pki.server_context("localhost"))
    assert await verdict(sink) == Delivered()


async def test_renewed_client_files_are_taken_up_without_a_restart(
    adapter: HttpAdapter, receiver: Receiver, pki: Pki, other_pki: Pki
) -> None:
    files = pki.client_files("renewed")
    sink = adapter.sink(receiver.url, files)
    assert await verdict(sink) == Delivered()
    await receiver.stop()
    await receiver.start(pki.server_context("localhost", clients=other_pki))
    assert isinstance(await verdict(sink), Retry)
    key, cert = other_pki.issue()
    pki.path("renewed.crt").write_bytes(cert)
    assert isinstance(await verdict(sink), Retry), "half of the pair is written: the old files stay in use"
    pki.path("renewed.key").write_bytes(key)
    await eventually_delivered(sink)
    await sink.close()


async def eventually_delivered(sink: Sink) -> None:
    end = monotonic() + BOUND
    while not isinstance(await verdict(sink), Delivered):
        assert monotonic() < end
        await asyncio.sleep(0.05)


async def test_plain_http_works(adapter: HttpAdapter) -> None:
    async with receiving(adapter.success, None) as plain:
        sink = adapter.sink(plain.url, TlsFiles())
        assert await verdict(sink) == Delivered()
        await sink.close()


@pytest.mark.parametrize("missing", ["ca", "cert", "key"])
def test_files_that_cannot_be_used_are_refused_at_the_start_by_name(
    adapter: HttpAdapter, pki: Pki, missing: str
) -> None:
    files = pki.client_files()
    named = {"ca": files.ca, "cert": files.cert, "key": files.key, missing: "/nowhere/file.pem"}
    with pytest.raises(SinkError, match=r"/nowhere/file\.pem"):
        adapter.sink("https://localhost:1", TlsFiles(named["ca"], named["cert"], named["key"]))


def test_a_certificate_without_its_key_is_refused_at_the_start(adapter: HttpAdapter, pki: Pki) -> None:
    with pytest.raises(SinkError, match=rf"{adapter.option}\.cert"):
        adapter.sink("https://localhost:1", TlsFiles(pki.client_files().ca, pki.client_files().cert, ""))


@pytest.mark.parametrize("url", ["", "localhost:8888", "ftp://localhost", "https://", "https://host:port"])
def test_a_url_that_is_none_is_refused_at_the_start(adapter: HttpAdapter, url: str) -> None:
    with pytest.raises(SinkError, match=rf"{adapter.option}\.url"):
        adapter.sink(url, TlsFiles())


async def test_an_older_tls_than_the_oldest_that_is_set_is_not_spoken(pki: Pki) -> None:
    context = pki.server_context("localhost")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    files = pki.client_files()
    async with receiving(lambda _: Reply(200), context) as old:
        said = {}
        for oldest in ("1.2", "1.3"):
            options = WebhookOptions.model_validate(
                {"url": f"{old.url}/", "ca": files.ca, "cert": files.cert, "key": files.key, "min_tls": oldest}
            )
            sink = WebhookSink(options, "hook", "sinks.hook")
            said[oldest] = await verdict(sink)
            await sink.close()
    assert said["1.2"] == Delivered()
    assert isinstance(said["1.3"], Retry)
    assert len(old.requests) == 1
