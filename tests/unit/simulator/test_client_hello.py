"""The router's reading of ClientHello messages, against those that OpenSSL writes."""

from __future__ import annotations

import ssl
import string
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_handler.simulator.fronts.client_hello import LARGEST, ClientHello, NotClientHelloError, parse

LABELS = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=63)
HOSTS = st.lists(LABELS, min_size=2, max_size=3).map(lambda labels: ".".join([*labels, "test"]))
PROTOCOLS = st.lists(st.text(string.ascii_letters + string.digits + "@./-", min_size=1, max_size=255), max_size=5)
ANY = ("teleport.cluster.local", ["teleport-auth@73696d.teleport.cluster.local", "h2"])


def written_by_openssl(host: str, protocols: list[str]) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if protocols:
        context.set_alpn_protocols(protocols)
    outgoing = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=host).do_handshake()
    return outgoing.read()


def in_records(data: bytes, sizes: list[int]) -> bytes:
    """The same message, cut over several records."""
    message, out = data[5:], b""
    for size in [*sizes, len(message)]:
        piece, message = message[:size], message[size:]
        if piece:
            out += b"\x16\x03\x01" + len(piece).to_bytes(2) + piece
    return out


@given(HOSTS, PROTOCOLS)
def test_name_and_protocols_are_those_that_openssl_was_told(host: str, protocols: list[str]) -> None:
    assert parse(written_by_openssl(host, protocols)) == ClientHello(host, tuple(protocols))


@given(st.lists(st.integers(1, 200), max_size=30), st.binary(max_size=20))
def test_it_may_come_in_many_records_and_with_bytes_behind_it(sizes: list[int], behind: bytes) -> None:
    whole = in_records(written_by_openssl(*ANY), sizes)
    assert parse(whole + behind) == ClientHello(ANY[0], tuple(ANY[1]))


@given(st.lists(st.integers(1, 200), max_size=3), st.data())
def test_of_an_incomplete_one_more_is_wanted(sizes: list[int], data: st.DataObject) -> None:
    whole = in_records(written_by_openssl(*ANY), sizes)
    assert parse(whole[: data.draw(st.integers(0, len(whole) - 1))]) is None


def reads(data: bytes) -> bool:
    """Whether `data` is read without a complaint; anything but the complaint foreseen fails the test."""
    try:
        parse(data)
    except NotClientHelloError:
        return False
    return True


@given(st.binary(max_size=300))
def test_random_bytes_do_no_harm(data: bytes) -> None:
    assert not reads(data) or data[:1] in (b"", b"\x16")
    reads(b"\x16\x03\x01" + len(data).to_bytes(2) + data)
    reads(b"\x16\x03\x01" + (len(data) + 4).to_bytes(2) + b"\x01" + len(data).to_bytes(3) + data)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_byte_does_no_harm(place: int, value: int) -> None:
    whole = bytearray(written_by_openssl(*ANY))
    whole[place % len(whole)] = value
    reads(bytes(whole))


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-Teleport\r\n",
        b"GET / HTTP/1.1\r\n",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01" + (LARGEST + 1).to_bytes(2),
        b"\x16\x03\x01\x00\x04\x01" + (LARGEST + 1).to_bytes(3),
    ],
    ids=["ssh", "http", "alert", "server hello", "empty record", "record too large", "message too large"],
)
def test_what_is_no_client_hello_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(NotClientHelloError):
        parse(data)
