"""What the options of a sink say is what the sink does."""

from __future__ import annotations

import socket

import pytest

from event_handler.config.load import load
from event_handler.event import Event
from event_handler.ports import Retry
from event_handler.runtime.sinks import planned_sinks


@pytest.mark.parametrize("sink", ["fluentd", "elasticsearch"])
@pytest.mark.usefixtures("no_settings_from_outside")
async def test_the_request_time_out_is_an_option(sink: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:  # accepts and never answers
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/a"
        urls = {"fluentd_url": url, "fluentd_session_url": url} if sink == "fluentd" else {"elasticsearch_url": url}
        (planned,) = planned_sinks(load({"storage": "s", f"{sink}_timeout": "200ms", **urls}, {}, "").settings)
        said = await planned.sink.deliver([Event("print", "e1", 0.0, 0, b"{}")])
        await planned.sink.close()
    assert said == Retry("the receiver does not answer within 0.2 s", unanswered=True)
