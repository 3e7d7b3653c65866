"""A packed body arrives as it was, and a receiver that takes no packed bodies gets plain ones: nothing is lost for a
wrong setting.
"""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from event_handler.ports import Delivered, Reject, Sink
from event_handler.sinks.fluentd import FluentdOptions, FluentdSink
from event_handler.sinks.http import LARGE, PACK_ASIDE
from event_handler.sinks.webhook import WebhookOptions, WebhookSink
from tests.contract.deliveries import events, verdict
from tests.contract.http_adapter import HttpAdapter
from tests.contract.http_adapters import ADAPTERS
from tests.contract.pki import Pki
from tests.contract.receiver import Receiver, Reply, answer, receiving

PACKING = pytest.mark.parametrize(
    "adapter", [adapter for adapter in ADAPTERS if adapter.packs], indirect=True, ids=lambda a: a.name
)


def encodings(receiver: Receiver) -> list[str]:
    return [request.headers.get("content-encoding", "") for request in receiver.requests]


@PACKING
async def test_a_packed_body_says_so_and_has_all_events(adapter: HttpAdapter, receiver: Receiver, sink: Sink) -> None:
    batch = events(6)
    assert await verdict(sink, batch) == Delivered()
    assert encodings(receiver) == ["gzip"]
    assert adapter.taken(receiver) == [event.id for event in batch]


@PACKING
@pytest.mark.parametrize("status", [400, 415, 422])
async def test_a_receiver_that_takes_no_packed_bodies_gets_plain_ones_from_then_on(
    adapter: HttpAdapter, receiver: Receiver, sink: Sink, status: int
) -> None:
    receiver.script.append(answer(status))
    with capture_logs() as lines:
        assert await verdict(sink) == Delivered()
        assert await verdict(sink) == Delivered()
    assert encodings(receiver) == ["gzip", "", ""]
    assert [line["next_step"] for line in lines if line["log_level"] == "warning"] == [
        f"Set {adapter.option}.compression to none, or have the receiver unpack bodies."
    ]


@PACKING
async def test_content_that_is_refused_packed_and_plain_is_bad_and_the_next_is_packed_again(
    receiver: Receiver, sink: Sink
) -> None:
    receiver.script.extend([answer(400, b"no such field")] * 2)
    said = await verdict(sink)
    assert isinstance(said, Reject)
    assert await verdict(sink) == Delivered()
    assert encodings(receiver) == ["gzip", "", "gzip"]


@pytest.mark.parametrize(
    "adapter", [adapter for adapter in ADAPTERS if adapter.name == "fluentd-single"], indirect=True
)
@pytest.mark.parametrize("size", [10, PACK_ASIDE, LARGE - 1, LARGE, 3 * LARGE])
@pytest.mark.parametrize("packs", [True, False])
async def test_a_body_of_any_size_arrives_whole(receiver: Receiver, pki: Pki, size: int, packs: bool) -> None:
    url, files = f"{receiver.url}/test.log", pki.client_files()
    sink = FluentdSink(
        FluentdOptions(
            url=url,
            session_url=url,
            ca=files.ca,
            cert=files.cert,
            key=files.key,
            compression="gzip" if packs else "none",
        )
    )
    (event,) = events(1)
    event.body = b'{"text":"%b"}' % (b"x" * size)
    try:
        assert await sink.deliver([event]) == Delivered()
    finally:
        await sink.close()
    assert [request.body for request in receiver.requests] == [event.body]


async def test_zstd_is_packed_and_said() -> None:
    batch = events(2, size=PACK_ASIDE)
    async with receiving(lambda _: Reply(200), None) as receiver:
        sink = WebhookSink(WebhookOptions(url=receiver.url, body="ndjson", compression="zstd"), "hook", "sinks.hook")
        assert await verdict(sink, batch) == Delivered()
        await sink.close()
    assert encodings(receiver) == ["zstd"]
    assert receiver.requests[0].body.splitlines() == [event.body for event in batch]
