"""A message is written as the NATS client itself writes it, and a bad answer ends nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from event_handler.sinks.nats.connection import NatsConnection
from event_handler.sinks.nats.messages import Publication

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1)


async def as_the_client_does(subject: str, reply: str, body: bytes, headers: dict[str, str]) -> bytes:
    client: Any = Client()
    written: list[bytes] = []

    async def keep(command: bytes, **_: object) -> None:
        written.append(command)

    client._send_command = keep
    client._flush_queue = None
    await client._send_publish(subject, reply, body, len(body), headers)
    return b"".join(written)


@given(TEXTS | st.uuids().map(str), st.just("") | st.just("AUDIT"), st.binary())
def test_any_message(id: str, stream: str, body: bytes) -> None:
    headers = {"Nats-Msg-Id": id} | ({"Nats-Expected-Stream": stream} if stream else {})
    said = asyncio.run(as_the_client_does("a.b", "_INBOX.x.1.2", body, headers))
    assert Publication(stream).of(b"a.b", b"_INBOX.x.1.2", id, body) == said


@pytest.mark.parametrize(
    "subject", [b"", b"x", b"_INBOX.x", b"_INBOX.x.", b"_INBOX.x.0", b"_INBOX.x.0.-1", b"_INBOX.y.0.0"]
)
async def test_a_subject_that_is_none_of_ours(subject: bytes) -> None:
    connection = NatsConnection("sinks.bus")
    connection._inbox = b"_INBOX.x."
    batch, name = connection.batch(1)
    assert name == b"0"
    assert not connection._taken(subject, b'{"stream":"AUDIT","seq":1}')
    assert batch.has_none
    assert connection._taken(b"_INBOX.x.0.0", b'{"stream":"AUDIT","seq":1}')
    assert batch.settled.done()
