"""The clients of message buses are extras: loaded when a sink is made, and asked for when they are missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from event_handler.errors import SinkError
from event_handler.sinks.registry import sink_type

CLIENTS = {
    "kafka": ("confluent_kafka", "kafka", {"brokers": "localhost:1", "topic": "t"}),
    "nats": ("nats.aio.client", "nats", {"url": "nats://localhost"}),
    "redis-streams": ("redis.asyncio.connection", "redis", {"url": "redis://localhost"}),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_that_is_missing_is_named_with_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, extra, options = CLIENTS[name]
    monkeypatch.setitem(sys.modules, module, None)
    kind = sink_type(name)
    with pytest.raises(SinkError, match=r"is not installed") as raised:
        kind.make(kind.options(**options), "bus", "sinks.bus")
    assert f"pip install 'teleport-event-handler[{extra}]'" in raised.value.hint


def test_describing_a_type_loads_no_client() -> None:
    names = {module.partition(".")[0] for module, _, _ in CLIENTS.values()}
    script = (
        "import sys; from event_handler.sinks.registry import sink_type\n"
        f"for name in {list(CLIENTS)}: sink_type(name)\nprint({names} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"
