"""Every HTTP sink comes through resets, silence and restarts in bounded time, and uses its connections again."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

from event_handler.ports import Delivered, Retry, Sink, Split
from event_handler.sinks.http import KEEPALIVE, PACK_ASIDE, TlsFiles
from tests.contract import receiver as scripted
from tests.contract.deliveries import events, eventually, verdict
from tests.contract.http_adapter import HttpAdapter
from tests.contract.pki import Pki
from tests.contract.receiver import Receiver, Step, answer


async def test_a_reset_in_the_request_body_is_repeated(receiver: Receiver, sink: Sink) -> None:
    receiver.script.append(scripted.reset_in_request)
    large = events(1, size=900_000)
    assert isinstance(await verdict(sink, large), Retry)
    assert await verdict(sink, large) == Delivered()


async def test_a_lost_answer_is_no_success_and_the_repeat_brings_the_same_events(
    adapter: HttpAdapter, receiver: Receiver, sink: Sink
) -> None:
    receiver.script.append(scripted.cut_without_answer)
    batch = events(1)
    assert isinstance(await verdict(sink, batch), Retry)
    assert await verdict(sink, batch) == Delivered()
    assert adapter.ids(receiver.requests[0]) == adapter.ids(receiver.requests[1]) == [event.id for event in batch]


@pytest.mark.parametrize(
    "step", [scripted.cut_in_answer(200, b"{"), scripted.trickle_body(200, b"{")], ids=["cut", "trickle"]
)
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
async def test_a_receiver_that_never_answers_ends_within_the_time_out(
    receiver: Receiver, hasty: Sink, step: Step
) -> None:
    receiver.script.append(step)
    said = await verdict(hasty)
    assert said == Retry("the receiver does not answer within 0.5 s", unanswered=True)
    await eventually(lambda: not receiver.open)


async def test_a_huge_answer_is_not_read_to_its_end(adapter: HttpAdapter, receiver: Receiver, sink: Sink) -> None:
    sent: list[int] = []
    receiver.script.append(scripted.endless(200, sent))
    assert isinstance(await verdict(sink), Retry if adapter.needs_body else Delivered)
    await eventually(lambda: not receiver.open)
    assert sum(sent) < 64 * 1024 * 1024


async def test_a_receiver_that_is_down_is_repeated_and_found_when_it_is_back(
    receiver: Receiver, sink: Sink, pki: Pki
) -> None:
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


async def test_forty_batches_go_over_one_connection(adapter: HttpAdapter, receiver: Receiver, sink: Sink) -> None:
    for _ in range(40):
        assert await verdict(sink, events(1)) == Delivered()
    assert len(adapter.taken(receiver)) == 40
    assert receiver.connections == 1


async def test_answers_in_many_pieces_do_not_cost_connections(receiver: Receiver, sink: Sink) -> None:
    for _ in range(5):
        receiver.script.append(answer(503, b"x" * 40_000, pieces=8))
        assert isinstance(await verdict(sink, events(1)), Retry)
    assert receiver.connections == 1


async def test_an_idle_connection_is_closed_before_the_receiver_would(
    adapter: HttpAdapter, receiver: Receiver, pki: Pki
) -> None:
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


async def test_a_sink_that_is_closed_leaves_no_delivery_waiting(receiver: Receiver, sink: Sink) -> None:
    receiver.script.append(scripted.stay_silent)
    sending = asyncio.create_task(verdict(sink))
    await eventually(lambda: receiver.open == 1 and not receiver.script)
    await sink.close()
    said = await sending
    assert isinstance(said, Retry)
    assert said.unanswered


async def test_batches_sent_at_once_use_no_more_connections_than_allowed(
    adapter: HttpAdapter, receiver: Receiver, sink: Sink
) -> None:
    said = await asyncio.gather(*(verdict(sink, events(1)) for _ in range(30)))
    assert said == [Delivered()] * 30
    assert receiver.connections <= sink.limits.requests


async def test_a_name_server_that_hangs_for_one_sink_holds_up_no_other_and_no_end(
    adapter: HttpAdapter, receiver: Receiver, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, released = socket.getaddrinfo, threading.Event()

    def getaddrinfo(host: str, *rest: Any, **more: Any) -> Any:
        if host == "hung.example":
            if more.get("flags", 0) & socket.AI_NUMERICHOST:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            released.wait()
        return real(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    hung = adapter.sink("http://hung.example:8888", TlsFiles(), timeout=20.0)
    waiting = [asyncio.create_task(hung.deliver(events(1))) for _ in range(100)]
    try:
        for _ in range(3):
            assert await verdict(sink, events(1, size=PACK_ASIDE)) == Delivered()
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        async with asyncio.timeout(10):
            await asyncio.wait(waiting)
            await hung.close()
    finally:
        released.set()


async def test_a_lookup_that_hangs_ends_within_the_time_out(
    adapter: HttpAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def getaddrinfo(host: str, *_: Any, flags: int = 0, **__: Any) -> Any:
        if not flags & socket.AI_NUMERICHOST:
            released.wait()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    sink = adapter.sink("http://hung.example:8888", TlsFiles(), timeout=0.3)
    said = await verdict(sink)
    released.set()
    await sink.close()
    assert said == Retry(
        "the name of the receiver at hung.example:8888 does not resolve (no answer in time); "
        f"check {adapter.option}.url and the name server"
    )
