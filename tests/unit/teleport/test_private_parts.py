"""Canaries for the private parts of libraries that the cluster client uses: each breaks when its part moves."""

from __future__ import annotations

import inspect
from importlib.metadata import version

import asyncssh
from asyncssh.stream import SSHTCPStreamSession
from grpclib import client
from grpclib.client import Channel, Stream
from grpclib.config import Configuration
from grpclib.protocol import Buffer, H2Protocol

from event_handler.teleport.rpc.connection import take_arrived
from event_handler.teleport.transport.frames import PREFIX


def test_the_buffer_of_a_stream_can_be_emptied_at_once() -> None:
    """`take_arrived` (teleport/rpc/connection.py) takes what grpclib's own reader would take piece by piece."""
    acknowledged: list[int] = []
    buffer = Buffer(acknowledged.append)
    message = b"\0" + (3).to_bytes(PREFIX - 1, "big") + b"abc"
    buffer.add(message + message[:4], 11)
    buffer.add(message[4:], 9)
    advice = (
        f"grpclib {version('grpclib')} keeps received data otherwise than 0.4.9: read grpclib.protocol.Buffer, adapt "
        "take_arrived, and run benchmarks.throughput; or read single messages with Stream.recv_message, at 30 µs each"
    )
    assert take_arrived(buffer) == [b"abc", b"abc"], advice
    assert acknowledged == [11, 9], advice


def test_a_stream_has_its_protocol_stream_and_its_wrapper_where_they_are_looked_for() -> None:
    advice = (
        "grpclib's client.Stream has moved `_stream` or `_wrapper`, which connection.py reads large messages through"
    )
    source = inspect.getsource(Stream)
    assert "self._stream = " in source, advice
    assert "_wrapper" in source, advice


def test_a_channel_makes_its_connection_by_a_method_of_its_own() -> None:
    advice = (
        "grpclib's Channel has changed: connection.py dials in `_create_connection` with the protocol of "
        "`_protocol_factory`, looks at `_connected` and sets `_scheme`"
    )
    source = inspect.getsource(Channel)
    for part in (
        "async def _create_connection(self)",
        "def _protocol_factory(self)",
        "self._connected",
        "self._scheme",
    ):
        assert part in source, f"{advice}; {part} is missing"
    assert {"handler", "config", "h2_config"} <= set(inspect.signature(H2Protocol).parameters), advice


def test_keepalive_can_be_set() -> None:
    advice = "grpclib's Configuration has renamed its keepalive options: perhaps they are public now, use those"
    wanted = {
        "_keepalive_time",
        "_keepalive_timeout",
        "_keepalive_permit_without_calls",
        "_http2_max_pings_without_data",
    }
    assert wanted <= set(inspect.signature(Configuration).parameters), advice


def test_the_user_agent_is_a_global_of_the_client_module() -> None:
    advice = "grpclib's client module has no USER_AGENT any more: see whether a call can have one, as metadata"
    assert isinstance(getattr(client, "USER_AGENT", None), str), advice
    assert "USER_AGENT" in inspect.getsource(Stream), advice


def test_an_ssh_channel_of_a_type_of_our_own_can_be_opened() -> None:
    advice = (
        f"asyncssh {version('asyncssh')} opens channels otherwise than 2.24: see ssh_channel.py, which needs a channel "
        "of Teleport's type, a request on it, and its stderr"
    )
    channel = asyncssh.SSHTCPChannel
    assert "session_factory" in inspect.signature(channel._open_forward).parameters, advice
    assert "chantype" in inspect.signature(channel._open_forward).parameters, advice
    assert "request" in inspect.signature(channel._make_request).parameters, advice
    assert hasattr(channel, "_read_datatypes"), advice
    assert issubclass(SSHTCPStreamSession, asyncssh.SSHTCPSession), advice
