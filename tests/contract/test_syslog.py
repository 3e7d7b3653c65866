"""What is syslog's own: the header, CEF and LEEF, messages that are too large, and the tail that is sent again."""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Partial, Retry
from event_handler.sinks.syslog.formats import FORMATS, Format, Header, for_header, messages_of, parsed, severity
from event_handler.sinks.syslog.sink import SyslogOptions, SyslogSink
from tests.contract.deliveries import events, verdict
from tests.contract.pki import make_pki
from tests.contract.syslog_receiver import server, split

LOGIN = {
    "addr.remote": "[2001:db8::7]:53122",
    "cluster_name": "example.com",
    "code": "T1000W",
    "error": "wrong | pass=word",
    "event": "user.login",
    "success": False,
    "uid": "u1",
    "user": "alice",
}


def event(content: dict[str, Any], session_id: str = "", moment: float = 1_790_000_000.1239) -> Event:
    kind, uid = str(content.get("event", "print")), str(content.get("uid", "e1"))
    return Event(kind, uid, moment, 0, orjson.dumps(content), session_id)


async def test_the_header_has_priority_time_names_and_structured_data(tmp_path: Path) -> None:
    async with server("tcp", tmp_path) as receiver:
        sink = receiver.sink(facility="local0", hostname="host 1", app_name="teleport", enterprise=32473)
        assert await verdict(sink, [event(LOGIN)]) == Delivered()
        await sink.close()
    priority, moment, host, application, _, kind, data, text = split(receiver.messages[0])
    assert (priority, moment) == (b"132", b"2026-09-21T14:13:20.123Z")
    assert (host, application, kind) == (b"host_1", b"teleport", b"user.login")
    assert data == b'[teleport@32473 uid="u1" event="user.login" code="T1000W"]'
    assert orjson.loads(text) == LOGIN


HEADER_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "code": st.text() | st.none() | st.integers(0, 9),
        "success": st.booleans() | st.text(),
        "inner": st.dictionaries(st.sampled_from(["code", "success"]), st.booleans() | st.text()),
    },
)


@given(HEADER_FIELDS)
def test_a_header_is_the_same_whether_all_of_the_event_is_read_for_it_or_not(content: dict[str, Any]) -> None:
    made = event(content)
    header = Header(13, "host", "teleport", "1", 1)
    assert header.before(made, for_header(made)) == header.before(made, parsed(made))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"code": "T1000I"}, 6),
        ({"code": "T1000W"}, 4),
        ({"code": "T1000E"}, 3),
        ({"code": "T1000E", "success": False}, 3),
        ({"code": "T1000I", "success": False}, 4),
        ({"code": 7}, 6),
        ({}, 6),
    ],
)
def test_severity_follows_the_code_and_a_failure_is_a_warning(content: dict[str, Any], expected: int) -> None:
    assert severity(content) == expected


def test_cef_has_the_fields_that_arcsight_knows() -> None:
    made = event(LOGIN)
    text = FORMATS["cef"](made, parsed(made)).decode()
    assert text.startswith("CEF:0|Gravitational|Teleport|1|T1000W|user.login|6|rt=1790000000124 externalId=u1 ")
    assert " suser=alice src=2001:db8::7 spt=53122 outcome=failure reason=wrong | pass\\=word " in text
    assert " cs2=example.com cs2Label=cluster " in text


def test_leef_has_the_fields_that_qradar_knows() -> None:
    made = event(LOGIN, "5f0c")
    head, _, attributes = FORMATS["leef"](made, parsed(made)).decode().partition("|x09|")
    assert head == "LEEF:2.0|Gravitational|Teleport|1|T1000W"
    named = dict(one.split("=", 1) for one in attributes.split("\t"))
    assert named["usrName"] == "alice"
    assert named["src"] == "2001:db8::7"
    assert named["sev"] == "6"
    assert named["sessionId"] == "5f0c"
    assert orjson.loads(named["teleportEvent"]) == LOGIN


TEXT = st.text(max_size=40)
CONTENTS = st.dictionaries(
    st.sampled_from(["user", "login", "error", "message", "code", "addr.remote", "sid", "cluster_name", "other"]),
    st.one_of(TEXT, st.integers(0, 2**40), st.booleans(), st.none()),
)


@given(CONTENTS, TEXT, TEXT, st.floats(allow_nan=False), st.sampled_from(["", "5f0c-1"]))
def test_whatever_an_event_holds_its_message_is_one_line_of_the_right_form(
    content: dict[str, Any], kind: str, uid: str, moment: float, session_id: str
) -> None:
    made = Event(kind, uid, moment, 0, orjson.dumps(content), session_id)
    header = Header(13, "host", "teleport", "1", 49345)
    formats: tuple[Format, ...] = ("json", "cef", "leef")
    for name in formats:
        (message,) = messages_of([made], header, name)
        assert b"\n" not in message
        assert b"\r" not in message
        *_, text = split(message)
        if name == "json":
            assert orjson.loads(text) == parsed(made)
        elif name == "cef":
            assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", text.decode().partition("rt=")[0])) == 7
        else:
            assert all("=" in one for one in text.decode().split("|x09|", 1)[1].split("\t"))


async def test_a_message_that_escaping_makes_too_large_is_refused_and_the_others_arrive(tmp_path: Path) -> None:
    large = event({"uid": "large", "message": "=" * 1500, "error": "=" * 1500})
    async with server("tcp", tmp_path) as receiver:
        sink = receiver.sink(format="cef", max_message_bytes=4096)
        said = await verdict(sink, [event({"uid": "a"}), large, event({"uid": "b"})])
        await sink.close()
    assert isinstance(said, Partial)
    assert list(said.rejected) == [1]
    assert len(receiver.messages) == 2


async def test_a_connection_that_breaks_before_all_was_read_repeats_the_tail_and_loses_nothing(tmp_path: Path) -> None:
    resets = itertools.chain([30, 70, 10], itertools.repeat(0))
    async with server("tls", tmp_path, secure=True) as receiver:
        receiver.reset_after = lambda: next(resets)
        sink = receiver.sink(confirm_after=0.2)
        for number in range(5):
            batch = events(40, first=40 * number, size=300)
            async with asyncio.timeout(30):
                while (said := await verdict(sink, batch)) != Delivered():
                    assert isinstance(said, Retry)
                    assert said.unanswered
        await sink.close()
        taken = [body["uid"] for body in await receiver.taken()]
    assert receiver.connections == 4
    assert set(taken) == {f"e{number}" for number in range(200)}
    assert len(taken) <= 200 + 30 + 70 + 10


async def test_a_certificate_of_an_unknown_authority_is_for_a_person_to_correct(tmp_path: Path) -> None:
    other = make_pki(tmp_path, "other").client_files()
    async with server("tls", tmp_path, secure=True) as receiver:
        sink = receiver.sink(ca=other.ca)
        said = await verdict(sink)
        await sink.close()
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert "sinks.log.ca" in said.reason
    assert receiver.messages == []


async def test_a_receiver_that_does_not_read_ends_in_a_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:  # accepts and never reads
        url = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        sink = SyslogSink(SyslogOptions(url=url, timeout=0.3), "log", "sinks.log")
        said = await verdict(sink, events(500, size=60_000))
        await sink.close()
    assert isinstance(said, Retry)
    assert "does not answer within 0.3 s" in said.reason


@pytest.mark.parametrize(
    "url", ["", "https://host", "tcp://", "tls://host/path", "udp://user:pw@host", "unix://relative", "tcp://host:x"]
)
def test_an_address_that_is_none_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(SinkError, match=r"sinks\.log\.url is not an address"):
        SyslogSink(SyslogOptions(url=url), "log", "sinks.log")


def test_tls_files_for_a_plain_connection_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="in the clear"):
        SyslogSink(SyslogOptions(url="tcp://host:514", ca=str(tmp_path)), "log", "sinks.log")
