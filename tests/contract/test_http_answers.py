"""Every HTTP sink turns whatever its receiver answers into the right verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from event_handler import about
from event_handler.sinks.base import Delivered, Partial, Reject, Retry, Sink, Split
from tests.contract import receiver as scripted
from tests.contract.deliveries import BOUND, events, verdict
from tests.contract.http_adapters import ADAPTERS, HttpAdapter
from tests.contract.receiver import Receiver, Reply, Request, Step, answer


async def test_events_arrive_whole_and_in_order_and_count_as_delivered(adapter: HttpAdapter, receiver: Receiver, sink: Sink) -> None:
    batch = events(min(sink.limits.events, 50))
    assert await verdict(sink, batch) == Delivered()
    assert adapter.taken(receiver) == [event.id for event in batch]


async def test_the_receiver_is_told_which_build_sends(receiver: Receiver, sink: Sink) -> None:
    await verdict(sink)
    assert {request.headers["user-agent"] for request in receiver.requests} == {about.user_agent()}


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
    receiver.script.extend([answer(status, b"no such field")] * 2)  # a packed body is tried plain too
    said = await verdict(sink)
    assert isinstance(said, Reject)
    assert "no such field" in said.reason


@pytest.mark.parametrize("status", [401, 403, 404, 405, 407, 410, 415, 501])
async def test_what_only_a_person_can_mend_is_kept_and_said_loudly(receiver: Receiver, sink: Sink, status: int) -> None:
    receiver.script.extend([answer(status)] * 2)  # a packed body that gets a 415 is tried plain too
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


async def test_an_odd_session_id_stays_inside_the_url_that_was_configured(
    adapter: HttpAdapter, receiver: Receiver, sink: Sink
) -> None:
    odd = "../../x?y=1#z% \r\nHost: evil"
    assert await verdict(sink, events(1, session_id=odd)) == Delivered()
    target = receiver.requests[0].target
    assert target.startswith("/")
    assert not any(bad in target for bad in ("/..", "x?y", "#", " "))
    assert receiver.requests[0].headers["host"] == f"localhost:{receiver.port}"
