"""What a receiver's URL may hold: user names and passwords of any characters, blanks around it; what it may not is
refused.
"""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest

from event_handler.errors import SinkError
from event_handler.ports import Delivered
from event_handler.sinks.elasticsearch import ElasticsearchOptions, ElasticsearchSink
from event_handler.sinks.fluentd import FluentdOptions, FluentdSink
from event_handler.sinks.http import TlsFiles
from tests.contract.deliveries import events, verdict
from tests.contract.http_adapter import HttpAdapter
from tests.contract.receiver import Receiver, Reply, receiving


async def posted(url: str) -> Receiver:
    """A receiver that has had an event, and one of a session; `PORT` in `url` becomes its port."""
    async with receiving(lambda _: Reply(200), None) as receiver:
        named = url.replace("PORT", str(receiver.port))
        sink = FluentdSink(FluentdOptions(url=named, session_url=named.replace("/a", "/s")))
        assert await verdict(sink) == Delivered()
        assert await verdict(sink, events(1, session_id="s1")) == Delivered()
        await sink.close()
        return receiver


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("user", "p€ss"),
        ("Jürgen", "ключ"),
        ("user", "a:b@c/d?e#f%"),
        ("user", "a+b c"),
        ("user", ""),
        ("", "password"),
        ("日本", "🔑"),
    ],
)
@pytest.mark.parametrize("encoded", [True, False])
async def test_a_user_name_and_password_are_sent_as_utf8(user: str, password: str, encoded: bool) -> None:
    reserved = {":", "@", "/", "?", "#", "%", " "}
    if not encoded and (reserved & set(user + password)):
        return
    shown = f"{quote(user, safe='')}:{quote(password, safe='')}" if encoded else f"{user}:{password}"
    receiver = await posted(f"http://{shown}@127.0.0.1:PORT/a")
    expected = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
    assert [request.headers["authorization"] for request in receiver.requests] == [expected] * 2
    assert {request.headers["host"] for request in receiver.requests} == {f"127.0.0.1:{receiver.port}"}


async def test_bytes_that_are_no_utf8_are_sent_as_they_are() -> None:
    receiver = await posted("http://user:p%FFss@127.0.0.1:PORT/a")
    assert (
        receiver.requests[0].headers["authorization"]
        == f"Basic {base64.b64encode(b'user:p' + bytes([255]) + b'ss').decode()}"
    )


async def test_each_url_has_its_own_credentials() -> None:
    async with receiving(lambda _: Reply(200), None) as receiver:
        place = f"127.0.0.1:{receiver.port}"
        sink = FluentdSink(FluentdOptions(url=f"http://one:1@{place}/a", session_url=f"http://two:2@{place}/s"))
        await verdict(sink)
        await verdict(sink, events(1, session_id="s1"))
        await sink.close()
    sent = [base64.b64decode(request.headers["authorization"].split()[1]).decode() for request in receiver.requests]
    assert sent == ["one:1", "two:2"]


async def test_a_header_that_is_configured_wins_over_the_url() -> None:
    async with receiving(lambda _: Reply(200), None) as receiver:
        sink = ElasticsearchSink(
            ElasticsearchOptions(url=f"http://user:password@127.0.0.1:{receiver.port}", api_key="a2V5")
        )
        await verdict(sink)
        await sink.close()
    assert receiver.requests[0].headers["authorization"] == "ApiKey a2V5"


@pytest.mark.parametrize("around", [("", " "), (" ", ""), ("", "\r"), ("\t", "\n"), ("", "\u00a0")])
async def test_blanks_around_a_url_are_no_part_of_it(around: tuple[str, str]) -> None:
    receiver = await posted(f"{around[0]}http://127.0.0.1:PORT/a{around[1]}")
    assert [request.target for request in receiver.requests] == ["/a", "/s.s1.log"]


@pytest.mark.parametrize(
    "url",
    [
        "http://user:secret@host\r\n/x",
        "http://user:secret@host/a\nb",
        "http://user:secret@host/a\0",
        "http://user:secret@",
        "http://user:secret@host:0/",
        "http://user:secret@host:99999/",
        "http://user:secret@[::1/",
        "//user:secret@host/",
        "http:/user:secret",
        "\u200bhttp://user:secret@host/",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_being_shown(adapter: HttpAdapter, url: str) -> None:
    with pytest.raises(SinkError, match=rf"{adapter.option}\.url") as caught:
        adapter.sink(url, TlsFiles())
    assert "secret" not in str(caught.value)
