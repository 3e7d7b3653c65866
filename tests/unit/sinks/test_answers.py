"""The status of an HTTP answer decides the verdict: every status, once. Each sink is then held to one status a kind."""

from __future__ import annotations

import pytest

from event_handler.ports import Delivered, Denied, Reject, Retry, Split
from event_handler.sinks.answers import judge
from event_handler.sinks.http import Answer

PASSING = {408, 425, 429, *range(500, 600)} - {501, 505}


@pytest.mark.parametrize("hundred", [200, 300, 400, 500])
def test_every_status_has_its_verdict(hundred: int) -> None:
    for status in range(hundred, hundred + 100):
        has_its_verdict(status)


def has_its_verdict(status: int) -> None:
    said = judge(Answer(status, "", b"busy  \n now", True))
    if status < 300:
        assert said == Delivered()
    elif status == 413:
        assert said == Split("the receiver answered 413 busy now")
    elif status in (400, 422):
        assert said == Reject(f"the receiver answered {status} busy now")
    elif status in PASSING:
        assert said == Retry(f"the receiver answered {status} busy now")
    else:
        assert isinstance(said, Denied)
        assert said.reason.startswith(f"the receiver answered {status} busy now; check the URL")


@pytest.mark.parametrize("status", [401, 429, 503])
def test_a_pause_that_is_asked_for_is_kept(status: int) -> None:
    said = judge(Answer(status, "17", b"", True))
    assert isinstance(said, Retry)
    assert said.after == 17.0
