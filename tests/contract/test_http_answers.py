"""Every HTTP sink turns whatever its receiver answers into the right verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from event_handler import about
from event_handler.ports import Delivered, Denied, Partial, Reject, Retry, Sink, Split, Verdict
from tests.contract import receiver as scripted
from tests.contract.deliveries import BOUND, events, eventually, verdict
from tests.contract.http_adapter import HttpAdapter
from tests.contract.http_adapters import ADAPTERS
from tests.contract.receiver import Receiver, Reply, Request, Step, answer
from tests.support.required_metrics import assert_told, delivering


async def test_events_arrive_whole_and_in_order_and_count_as_delivered(
    adapter: HttpAdapter, receiver: Receiver, sink: Sink
) -> None:
    batch = events(min(sink.limits.events, 50))
    assert await verdict(sink, batch) == Delivered()
    assert adapter.taken(receiver) == [event.id for event in batch]


async def test_the_receiver_is_told_which_build_sends(receiver: Receiver, sink: Sink) -> None:
    await verdict(sink)
    assert {request.headers["user-agent"] for request in receiver.requests} == {about.user_agent()}


@pytest.mark.parametrize("status", [200, 202])
async def test_any_2xx_that_takes_the_events_is_success(
    adapter: HttpAdapter, receiver: Receiver, sink: Sink, status: int
) -> None:
    async def step(exchange: scripted.Exchange) -> None:
        await answer(status, adapter.success(await exchange.read_body()).body)(exchange)

    receiver.script.append(step)
    assert await verdict(sink) == Delivered()


async def test_204_is_success_unless_the_answer_must_name_the_events(
    adapter: HttpAdapter, receiver: Receiver, sink: Sink
) -> None:
    receiver.script.append(answer(204))
    said = await verdict(sink)
    if adapter.needs_body and not adapter.empty_is_success:
        assert isinstance(said, Retry)
        assert said.misconfigured
    else:
        assert said == Delivered()


@pytest.mark.parametrize("status", [429, 503])
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
    receiver.script.append(
        answer(429, Retry_After=format_datetime(datetime.now(UTC) + timedelta(seconds=120), usegmt=True))
    )
    said = await verdict(sink)
    assert isinstance(said, Retry)
    assert 120.0 - BOUND <= said.after <= 120.0


@pytest.mark.parametrize(
    ("value", "after"), [("soon", 0.0), ("-5", 0.0), ("9" * 400, 3600.0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0)]
)
async def test_an_odd_retry_after_does_no_harm(receiver: Receiver, sink: Sink, value: str, after: float) -> None:
    receiver.script.append(answer(429, Retry_After=value))
    said = await verdict(sink)
    assert isinstance(said, Retry)
    assert said.after == after


async def test_a_body_that_is_too_large_is_split(receiver: Receiver, sink: Sink) -> None:
    receiver.script.append(answer(413))
    assert isinstance(await verdict(sink), Split)


@pytest.mark.parametrize("status", [400])
async def test_content_that_is_refused_is_rejected_with_the_receivers_words(
    receiver: Receiver, sink: Sink, status: int
) -> None:
    receiver.script.extend([answer(status, b"no such field")] * 2)  # a packed body is tried plain too
    said = await verdict(sink)
    assert isinstance(said, Reject)
    assert "no such field" in said.reason


@pytest.mark.parametrize("status", [401, 403, 415])
async def test_a_denial_is_kept_and_said_loudly_and_may_be_about_one_event(
    receiver: Receiver, sink: Sink, status: int
) -> None:
    receiver.script.extend([answer(status)] * 2)  # a packed body that gets a 415 is tried plain too
    said = await verdict(sink)
    assert isinstance(said, Denied)
    assert str(status) in said.reason


@pytest.mark.parametrize("status", [307])
async def test_a_redirect_is_not_followed_and_is_no_success(receiver: Receiver, sink: Sink, status: int) -> None:
    receiver.script.append(answer(status, Location=f"{receiver.url}/elsewhere"))
    said = await verdict(sink)
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    "form",
    ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"],
    ids=["imf", "rfc850", "asctime"],
)
@pytest.mark.parametrize("adapter", ADAPTERS[:1], indirect=True, ids=lambda a: a.name)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/Los_Angeles"])
async def test_each_form_of_a_date_in_retry_after_is_gmt(
    receiver: Receiver, sink: Sink, form: str, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    until = (datetime.now(UTC) + timedelta(seconds=300)).strftime(form)
    receiver.script.append(answer(429, Retry_After=until))
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        said = await verdict(sink)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert isinstance(said, Retry)
    assert 299.0 - BOUND <= said.after <= 300.0


# The client is the same for all; what they do with an answer differs by whether its body counts.
ONE_OF_A_KIND = [next(adapter for adapter in ADAPTERS if adapter.needs_body is needs) for needs in (False, True)]
OK = b"HTTP/1.1 200 OK\r\n"
ODD = {
    "a header line of 9,000 bytes": (OK + b"X-Long: " + b"x" * 9000 + b"\r\nContent-Length: 2\r\n\r\n{}", False),
    "a head of 100,000 bytes": (OK + b"X: y\r\n" * 16_667 + b"Content-Length: 2\r\n\r\n{}", False),
    "500 headers": (OK + b"".join(b"X-%d: y\r\n" % n for n in range(500)) + b"Content-Length: 2\r\n\r\n{}", False),
    "204 with a body": (b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}", False),
    "brotli": (OK + b"Content-Encoding: br\r\nContent-Length: 2\r\n\r\n{}", False),
    "gzip that is none": (OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", False),
    "a bad chunk size": (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", False),
    "bytes after the answer": (OK + b"Content-Length: 2\r\n\r\n{}more than that", False),
    "another answer after the answer": ((OK + b"Content-Length: 2\r\n\r\n{}") * 2, False),
    "a bad length": (OK + b"Content-Length: two\r\n\r\n{}", True),
    "two lengths": (OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", True),
    "two framings": (OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\n{}", True),
    "HTTP/1.0 that stays open": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}", False),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}", False),
    "line feeds only": (b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}", False),
    "lower case": (b"http/1.1 200 ok\r\ncontent-length: 2\r\n\r\n{}", False),
    "an empty line before": (b"\r\n" + OK + b"Content-Length: 2\r\n\r\n{}", False),
    "no colon in a header": (OK + b"nonsense\r\nContent-Length: 2\r\n\r\n{}", False),
    "a null byte in a header": (OK + b"X: a\0b\r\nContent-Length: 2\r\n\r\n{}", False),
    "a header that is no text": (OK + b"X-\xff\xfe: \xff\r\nContent-Length: 2\r\n\r\n{}", False),
    "a blank before the colon": (OK + b"Content-Length : 2\r\n\r\n{}", True),
    "interim answers": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\n{}",
        False,
    ),
    "closed in the head": (OK + b"Content-Le", True),
    "closed in the body": (OK + b"Content-Length: 9\r\n\r\n{}", True),
    "closed in the status line": (b"HTTP/1.1 200 O", True),
}


@pytest.mark.parametrize("adapter", ONE_OF_A_KIND, indirect=True, ids=lambda a: a.name)
@pytest.mark.parametrize("name", ODD)
async def test_an_answer_that_breaks_the_rules_counts_by_its_status(
    adapter: HttpAdapter, receiver: Receiver, hasty: Sink, name: str
) -> None:
    data, close = ODD[name]
    receiver.script.append(scripted.raw(data, close=close))
    said = await verdict(hasty)
    assert isinstance(said, Retry if adapter.needs_body else Delivered)
    assert await verdict(hasty) == Delivered()
    assert len(receiver.requests) == 2


@pytest.mark.parametrize("adapter", ONE_OF_A_KIND[:1], indirect=True, ids=lambda a: a.name)
@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize(("status", "expected"), [(413, Split), (503, Retry)])
async def test_a_refusal_that_breaks_the_rules_is_judged_by_its_status(
    receiver: Receiver, hasty: Sink, name: str, status: int, expected: type[Verdict]
) -> None:
    data, close = ODD[name]
    broken = data.replace(b" 200", b" %d" % status).replace(b" 204", b" %d" % status)
    receiver.script.append(scripted.raw(broken, close=close))
    said = await verdict(hasty)
    assert isinstance(said, expected)
    if isinstance(said, Retry):
        assert f"answered {status}" in said.reason
    assert await verdict(hasty) == Delivered()


@pytest.mark.parametrize(
    "adapter", [adapter for adapter in ADAPTERS if not adapter.needs_body], indirect=True, ids=lambda a: a.name
)
async def test_a_2xx_without_a_length_on_an_open_connection_is_not_waited_for(receiver: Receiver, sink: Sink) -> None:
    receiver.script.append(scripted.raw(b"HTTP/1.1 200 OK\r\n\r\n"))
    assert await verdict(sink) == Delivered()
    await eventually(lambda: not receiver.open)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "SSH-2.0-OpenSSH"),
        (b"220 mail.example.com ESMTP\r\n", "220 mail"),
        (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + b"\0" * 18, "HTTP/2 only"),
    ],
    ids=["ssh", "smtp", "http2"],
)
async def test_what_is_no_http_answer_is_named(
    adapter: HttpAdapter, receiver: Receiver, sink: Sink, data: bytes, named: str
) -> None:
    receiver.script.append(scripted.raw(data))
    said = await verdict(sink)
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert f"localhost:{receiver.port}" in said.reason
    assert named in said.reason


def by_item(item_by_item: Callable[[Request, Mapping[int, int]], Reply], statuses: Mapping[int, int]) -> Step:
    async def step(exchange: scripted.Exchange) -> None:
        reply = item_by_item(await exchange.read_body(), statuses)
        await answer(reply.status, reply.body, pieces=3)(exchange)

    return step


@pytest.mark.parametrize(
    "adapter", [adapter for adapter in ADAPTERS if adapter.item_by_item], indirect=True, ids=lambda a: a.name
)
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


@pytest.mark.parametrize("status", [0, 503])
async def test_what_it_did_is_in_the_metrics(receiver: Receiver, sink: Sink, status: int) -> None:
    if status:
        receiver.script.append(answer(status))
    assert_told(await delivering(sink), failed="failed" if status else "")
