"""The URL of a recording is the Go plugin's, and an odd session id or query cannot change where it leads."""

from __future__ import annotations

import pytest
from yarl import URL

from event_handler.errors import SinkError
from event_handler.sinks.fluentd import FluentdOptions, FluentdSink, session_url


@pytest.mark.parametrize(
    ("base", "session_id", "expected"),
    [
        ("https://h:8888/session", "f0cd9816-f5d3", "https://h:8888/session.f0cd9816-f5d3.log"),
        ("https://h/a/session?token=t&x=%26", "s", "https://h/a/session.s.log?token=t&x=%26"),
        ("https://h/a%2Fb", "s", "https://h/a%2Fb.s.log"),
        ("https://h", "s", "https://h/.s.log"),
        ("https://h/session", "../../x", "https://h/session...%2F..%2Fx.log"),
        ("https://h/session", "a?b#c %\r\n", "https://h/session.a%3Fb%23c%20%25%0D%0A.log"),
        ("https://h/session", "ключ", "https://h/session.%D0%BA%D0%BB%D1%8E%D1%87.log"),
    ],
)
def test_a_session_id_is_one_suffix_of_the_path(base: str, session_id: str, expected: str) -> None:
    assert str(session_url(URL(base), session_id)) == expected


def test_a_password_in_a_url_that_is_none_is_not_shown() -> None:
    with pytest.raises(SinkError) as caught:
        FluentdSink(FluentdOptions(url="https://user:hunter2@host:port/", session_url="https://h/session"))
    assert "hunter2" not in str(caught.value)
