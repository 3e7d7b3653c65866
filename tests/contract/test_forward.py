"""What is the forward protocol's own: tags, times, chunks without an answer, and the handshake."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_handler.errors import SinkError
from event_handler.ports import Delivered, Retry
from event_handler.sinks.forward import LARGEST_TIME, ForwardOptions, ForwardSink, event_time
from tests.contract.deliveries import events, verdict
from tests.contract.forward_receiver import KEY, PASSWORD, forwarding


async def test_tags_and_times_are_those_of_the_events(tmp_path: Path) -> None:
    async with forwarding(tmp_path, tag="audit", session_tag="session") as receiver:
        sink = receiver.sink()
        await verdict(sink, events(1))
        await verdict(sink, events(1, first=1, session_id="5f0c/../x"))
        await sink.close()
    assert [(tag, time) for tag, time, _ in receiver.entries] == [
        ("audit", 1_790_000_000.5),
        ("session.5f0c%2F..%2Fx", 1_790_000_000.5),
    ]


@given(st.floats(allow_nan=False))
def test_every_time_has_eight_bytes_and_keeps_its_microsecond(moment: float) -> None:
    packed = event_time(moment)
    assert len(packed) == 8
    seconds, nanoseconds = int.from_bytes(packed[:4]), int.from_bytes(packed[4:])
    assert nanoseconds < 10**9
    if 0 <= moment <= LARGEST_TIME:
        assert abs(seconds + nanoseconds / 1e9 - moment) < 2e-6


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [("close", "closed the connection"), ("forget", "closed the connection"), ("other", "something else than")],
)
async def test_a_chunk_without_its_acknowledgement_is_not_delivered(tmp_path: Path, behaviour: str, words: str) -> None:
    async with forwarding(tmp_path) as receiver:
        first = itertools.chain([behaviour], itertools.repeat("acknowledge"))
        receiver.behave = lambda: next(first)
        sink = receiver.sink()
        said = await verdict(sink)
        assert isinstance(said, Retry)
        assert words in said.reason
        assert not said.misconfigured
        assert await verdict(sink) == Delivered()
        await sink.close()


async def test_a_connection_that_was_closed_while_idle_is_replaced_without_a_word(tmp_path: Path) -> None:
    async with forwarding(tmp_path) as receiver:
        sink = receiver.sink()
        assert await verdict(sink) == Delivered()
        await receiver.stop()
        await receiver.start()
        assert await verdict(sink) == Delivered()
        await sink.close()
    assert receiver.connections == 2


async def test_a_wrong_key_is_for_a_person_to_correct_and_no_secret_is_told(tmp_path: Path) -> None:
    async with forwarding(tmp_path, key=KEY) as receiver:
        (tmp_path / "key").write_text("another key")
        sink = receiver.sink(shared_key="", shared_key_file=str(tmp_path / "key"))
        said = await verdict(sink)
        assert isinstance(said, Retry)
        assert said.misconfigured
        assert "sinks.fluent.shared-key" in said.reason
        assert "another key" not in said.reason
        (tmp_path / "key").write_text(KEY)
        assert await verdict(sink) == Delivered()
        await sink.close()
    assert len(receiver.entries) == 3


async def test_a_receiver_that_does_not_know_the_key_gets_no_event(tmp_path: Path) -> None:
    async with forwarding(tmp_path, key=KEY) as receiver:
        sink = receiver.sink()
        receiver._key = "what an impostor knows"
        said = await verdict(sink)
        await sink.close()
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert receiver.entries == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "http://host"}, "sinks.fluent.url is not an address"),
        ({"url": "tcp://host", "username": "u", "password": "p"}, "without sinks.fluent.shared-key"),
        ({"url": "tcp://host", "ca": "/etc/ca.pem"}, "in the clear"),
    ],
)
def test_options_that_cannot_be_used_are_refused_at_the_start(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SinkError, match=words):
        ForwardSink(ForwardOptions(**options), "fluent", "sinks.fluent")


def test_a_secret_is_in_no_repr() -> None:
    options = ForwardOptions(url="tcp://h", shared_key=KEY, username="u", password=PASSWORD)
    assert KEY not in repr(options)
    assert PASSWORD not in repr(options)
