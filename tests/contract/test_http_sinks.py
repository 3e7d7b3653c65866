"""Every HTTP sink turns whatever its receiver does into the right verdict, in bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from time import monotonic

import orjson
import pytest

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.sinks.base import Delivered, Partial, Reject, Retry, Sink, Split, Verdict
from event_handler.sinks.http import KEEPALIVE, TlsFiles
from tests.contract import receiver as scripted
from tests.contract.http_adapters import ADAPTERS, HttpAdapter
from tests.contract.pki import Pki
from tests.contract.receiver import Receiver, Reply, Request, Step, answer, receiving, refusing

BOUND = 20.0  # seconds that a verdict may take on a loaded machine; below the time-out of the sinks that are not hasty


def events(count: int = 1, session_id: str = "", size: int = 0) -> list[Event]:
    bodies = [{"event": "user.login", "uid": f"e{number}", "pad": "p" * size} for number in range(count)]
    return [
        Event("user.login", body["uid"], 1_790_000_000.5, number, orjson.dumps(body), session_id) for number, body in enumerate(bodies)
    ]


async def verdict(sink: Sink, batch: list[Event] | None = None) -> Verdict:
    async with asyncio.timeout(BOUND):
        return await sink.deliver(batch or events(sink.limits.events if sink.limits.events < 3 else 3))


async def eventually(condition: Callable[[], bool], within: float = BOUND) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)


def taken(adapter: HttpAdapter, receiver: Receiver) -> list[str]:
    return [uid for request in receiver.requests for uid in adapter.ids(request)]


# What the receiver says


async def test_events_arrive_whole_and_in_order_and_count_as_delivered(adapter: HttpAdapter, receiver: Receiver, sink: Sink) -> None:
    batch = events(min(sink.limits.events, 50))
    assert await verdict(sink, batch) == Delivered()
    assert taken(adapter, receiver) == [event.id for event in batch]


@pytest.mark.parametrize("status", [200, 201, 202])
async def test_any_2xx_that_takes_the_events_is_success(adapter: HttpAdapter, receiver: Receiver, sink: Sink, status: int) -> None:
    async def step(exchange: scripted.Exchange) -> None:
        await answer(status, adapter.success(await exchange.read_body()).body)(exchange)

    receiver.script.append(step)
    assert await verdict(sink) == Delivered()


async def test_204_is_success_unless_the_answer_must_name_the_events(adapter: HttpAdapter, receiver: Receiver, sink: Sink) -> None:
    receiver.script.append(answer(204))
    said = await verdict(sink)
    assert said == Delivered() if not adapter.needs_body else isinstance(said, Retry) and said.misconfigured


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_a_passing_failure_is_repeated(receiver: Receiver, sink: Sink, status: int) -> None:
    receiver.script.append(answer(status, b"busy  \n now"))
    said = await verdict(sink)
    assert said == Retry(f"the receiver answered {status} busy now")
    assert await verdict(sink) == Delivered()


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_in_seconds_is_kept(receiver: Receiver, sink: Sink, status: int) -> None:
    receiver.script.append(answer(status, Retry_After="17"))
    said = await verdict(sink)
    assert isinstance(said, Retry)
    assert said.after == 17.0


async def test_retry_after_as_a_date_is_kept(receiver: Receiver, sink: Sink) -> None:
    receiver.script.append(answer(429, Retry_After=format_datetime(datetime.now(UTC) + timedelta(seconds=120), usegmt=True)))
    said = await verdict(sink)
    assert isinstance(said, Retry)
    assert 120.0 - BOUND <= said.after <= 120.0


@pytest.mark.parametrize(("value", "after"), [("soon", 0.0), ("-5", 0.0), ("9" * 400, 3600.0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0)])
async def test_an_odd_retry_after_does_no_harm(receiver: Receiver, sink: Sink, value: str, after: float) -> None:
    receiver.script.append(answer(429, Retry_After=value))
    said = await verdict(sink)
    assert isinstance(said, Retry)
    assert said.after == after


async def test_a_body_that_is_too_large_is_split(receiver: Receiver, sink: Sink) -> None:
    receiver.script.append(answer(413))
    assert isinstance(await verdict(sink), Split)


@pytest.mark.parametrize("status", [400, 422])
async def test_content_that_is_refused_is_rejected_with_the_receivers_words(receiver: Receiver, sink: Sink, status: int) -> None:
    receiver.script.append(answer(status, b"no such field"))
    said = await verdict(sink)
    assert isinstance(said, Reject)
    assert "no such field" in said.reason


@pytest.mark.parametrize("status", [401, 403, 404, 405, 407, 410, 415, 501])
async def test_what_only_a_person_can_mend_is_kept_and_said_loudly(receiver: Receiver, sink: Sink, status: int) -> None:
    receiver.script.append(answer(status))
    said = await verdict(sink)
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert said.after > 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_and_is_no_success(receiver: Receiver, sink: Sink, status: int) -> None:
    receiver.script.append(answer(status, Location=f"{receiver.url}/elsewhere"))
    said = await verdict(sink)
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert len(receiver.requests) == 1


def by_item(item_by_item: Callable[[Request, Mapping[int, int]], Reply], statuses: Mapping[int, int]) -> Step:
    async def step(exchange: scripted.Exchange) -> None:
        reply = item_by_item(await exchange.read_body(), statuses)
        await answer(reply.status, reply.body, pieces=3)(exchange)

    return step


@pytest.mark.parametrize("adapter", [adapter for adapter in ADAPTERS if adapter.item_by_item], indirect=True, ids=lambda a: a.name)
async def test_an_answer_for_each_event_is_kept_apart(adapter: HttpAdapter, receiver: Receiver, sink: Sink) -> None:
    assert adapter.item_by_item is not None
    receiver.script.append(by_item(adapter.item_by_item, {1: 429, 2: 400, 4: 503}))
    said = await verdict(sink, events(6))
    assert isinstance(said, Partial)
    assert said.retry == {1, 4}
    assert list(said.rejected) == [2]
    assert "because of 2" in said.rejected[2]
    assert "429" in said.reason
    assert not said.misconfigured


# What the network does


async def test_a_reset_in_the_request_body_is_repeated(receiver: Receiver, sink: Sink) -> None:
    receiver.script.append(scripted.reset_in_request)
    large = events(1, size=1_000_000)
    assert isinstance(await verdict(sink, large), Retry)
    assert await verdict(sink, large) == Delivered()


async def test_a_lost_answer_is_no_success_and_the_repeat_brings_the_same_events(
    adapter: HttpAdapter, receiver: Receiver, sink: Sink
) -> None:
    receiver.script.append(scripted.cut_without_answer)
    batch = events(1)
    assert isinstance(await verdict(sink, batch), Retry)
    assert await verdict(sink, batch) == Delivered()
    assert receiver.requests[0].body == receiver.requests[1].body


@pytest.mark.parametrize("step", [scripted.cut_in_answer(200, b"{"), scripted.trickle_body(200, b"{")], ids=["cut", "trickle"])
async def test_an_answer_without_end_counts_by_its_status_unless_its_body_is_needed(
    adapter: HttpAdapter, receiver: Receiver, hasty: Sink, step: Step
) -> None:
    receiver.script.append(step)
    said = await verdict(hasty)
    assert isinstance(said, Retry if adapter.needs_body else Delivered)
    await eventually(lambda: not receiver.open)
    assert await verdict(hasty) == Delivered()


async def test_an_error_whose_answer_is_cut_keeps_its_verdict(receiver: Receiver, sink: Sink) -> None:
    receiver.script.append(scripted.cut_in_answer(413, b"too la"))
    assert isinstance(await verdict(sink), Split)


@pytest.mark.parametrize("step", [scripted.trickle_head, scripted.stay_silent], ids=["trickle", "silence"])
async def test_a_receiver_that_never_answers_ends_within_the_time_out(receiver: Receiver, hasty: Sink, step: Step) -> None:
    receiver.script.append(step)
    said = await verdict(hasty)
    assert said == Retry("the receiver does not answer within 0.5 s")
    await eventually(lambda: not receiver.open)


async def test_a_huge_answer_is_not_read_to_its_end(adapter: HttpAdapter, receiver: Receiver, sink: Sink) -> None:
    sent: list[int] = []
    receiver.script.append(scripted.endless(200, sent))
    assert isinstance(await verdict(sink), Retry if adapter.needs_body else Delivered)
    await eventually(lambda: not receiver.open)
    assert sum(sent) < 64 * 1024 * 1024


async def test_a_receiver_that_is_down_is_repeated_and_found_when_it_is_back(receiver: Receiver, sink: Sink, pki: Pki) -> None:
    await receiver.stop()
    said = await verdict(sink)
    assert isinstance(said, Retry)
    assert not said.misconfigured
    assert said.reason.startswith(f"no connection to the receiver at localhost:{receiver.port} (")
    await receiver.start(pki.server_context("localhost"))
    assert await verdict(sink) == Delivered()


async def test_a_restart_of_the_receiver_costs_at_most_one_repeat(receiver: Receiver, sink: Sink, pki: Pki) -> None:
    assert await verdict(sink) == Delivered()
    await receiver.stop()
    await receiver.start(pki.server_context("localhost"))
    said = await verdict(sink)
    assert isinstance(said, Delivered | Retry)
    assert await verdict(sink) == Delivered()


# Connections


async def test_forty_batches_go_over_one_connection(adapter: HttpAdapter, receiver: Receiver, sink: Sink) -> None:
    for _ in range(40):
        assert await verdict(sink, events(1)) == Delivered()
    assert len(taken(adapter, receiver)) == 40
    assert receiver.connections == 1


async def test_answers_in_many_pieces_do_not_cost_connections(receiver: Receiver, sink: Sink) -> None:
    for _ in range(5):
        receiver.script.append(answer(503, b"x" * 40_000, pieces=8))
        assert isinstance(await verdict(sink, events(1)), Retry)
    assert receiver.connections == 1


async def test_an_idle_connection_is_closed_before_the_receiver_would(adapter: HttpAdapter, receiver: Receiver, pki: Pki) -> None:
    assert KEEPALIVE < 10.0
    sink = adapter.sink(receiver.url, pki.client_files(), keepalive=0.2)
    assert await verdict(sink) == Delivered()
    assert receiver.open == 1
    await eventually(lambda: not receiver.open, within=KEEPALIVE / 2)
    assert await verdict(sink) == Delivered()
    assert receiver.connections == 2
    await sink.close()


async def test_a_cancelled_delivery_leaves_nothing_behind_and_the_sink_goes_on(receiver: Receiver, sink: Sink) -> None:
    before = len(asyncio.all_tasks())
    receiver.script.append(scripted.stay_silent)
    sending = asyncio.create_task(sink.deliver(events(1)))
    await eventually(lambda: receiver.open == 1 and not receiver.script)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert await verdict(sink) == Delivered()
    await sink.close()
    await receiver.stop()
    await eventually(lambda: len(asyncio.all_tasks()) <= before)


async def test_after_close_nothing_is_open(receiver: Receiver, sink: Sink) -> None:
    assert await verdict(sink) == Delivered()
    await sink.close()
    await eventually(lambda: not receiver.open)


async def test_batches_sent_at_once_use_no_more_connections_than_allowed(adapter: HttpAdapter, receiver: Receiver, sink: Sink) -> None:
    said = await asyncio.gather(*(verdict(sink, events(1)) for _ in range(30)))
    assert said == [Delivered()] * 30
    assert receiver.connections <= sink.limits.requests


# TLS


async def test_a_client_certificate_that_is_refused_is_a_fault_to_mend(adapter: HttpAdapter, pki: Pki, other_pki: Pki) -> None:
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


async def test_a_certificate_for_another_name_is_not_accepted(adapter: HttpAdapter, receiver: Receiver, sink: Sink, pki: Pki) -> None:
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
def test_files_that_cannot_be_used_are_refused_at_the_start_by_name(adapter: HttpAdapter, pki: Pki, missing: str) -> None:
    files = pki.client_files()
    named = {"ca": files.ca, "cert": files.cert, "key": files.key, missing: "/nowhere/file.pem"}
    with pytest.raises(SinkError, match=r"/nowhere/file\.pem"):
        adapter.sink("https://localhost:1", TlsFiles(**named))


def test_a_certificate_without_its_key_is_refused_at_the_start(adapter: HttpAdapter, pki: Pki) -> None:
    with pytest.raises(SinkError, match=rf"{adapter.option}\.cert"):
        adapter.sink("https://localhost:1", TlsFiles(pki.client_files().ca, pki.client_files().cert, ""))


@pytest.mark.parametrize("url", ["", "localhost:8888", "ftp://localhost", "https://", "https://host:port"])
def test_a_url_that_is_none_is_refused_at_the_start(adapter: HttpAdapter, url: str) -> None:
    with pytest.raises(SinkError, match=rf"{adapter.option}\.url"):
        adapter.sink(url, TlsFiles())


# Sessions


async def test_an_odd_session_id_stays_inside_the_url_that_was_configured(
    adapter: HttpAdapter, receiver: Receiver, sink: Sink
) -> None:
    odd = "../../x?y=1#z% \r\nHost: evil"
    assert await verdict(sink, events(1, odd)) == Delivered()
    target = receiver.requests[0].target
    assert target.startswith("/")
    assert not any(bad in target for bad in ("/..", "x?y", "#", " "))
    assert receiver.requests[0].headers["host"] == f"localhost:{receiver.port}"
