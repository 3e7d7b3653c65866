"""The elasticsearch sink against the `elasticsearch` input of a real Fluent Bit, whose program
EVENT_HANDLER_FLUENT_BIT names.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import orjson
import pytest

from event_handler.ports import Delivered, Reject
from event_handler.sinks.elasticsearch import ElasticsearchOptions, ElasticsearchSink
from tests.contract.deliveries import events, eventually

VARIABLE = "EVENT_HANDLER_FLUENT_BIT"
START = 60.0  # seconds that it may take to listen on a loaded machine
pytestmark = pytest.mark.skipif(
    not os.environ.get(VARIABLE), reason=f"{VARIABLE} does not name the program of Fluent Bit"
)
CONFIG = """
[SERVICE]
    flush 0.2
[INPUT]
    name elasticsearch
    listen 127.0.0.1
    port {port}
[OUTPUT]
    name file
    match *
    path {directory}
    file taken
    format plain
"""


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    (tmp_path / "fluent-bit.conf").write_text(CONFIG.format(port=port, directory=tmp_path))
    process = await asyncio.create_subprocess_exec(
        os.environ[VARIABLE],
        "-c",
        str(tmp_path / "fluent-bit.conf"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await eventually(lambda: listens(port), START)
        yield port
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_every_event_arrives(port: int, tmp_path: Path, compression: Literal["none", "gzip"]) -> None:
    sink = ElasticsearchSink(
        ElasticsearchOptions(url=f"http://127.0.0.1:{port}", document="plain", compression=compression)
    )
    first, *rest = events(1000), events(1000, 1000)
    refused = await sink.deliver(first)
    assert isinstance(refused, Reject)
    assert "invalid HTTP endpoint" in refused.reason
    assert [await sink.deliver(batch) for batch in (first, *rest)] == [Delivered()] * 2
    await sink.close()
    taken = tmp_path / "taken"
    await eventually(lambda: taken.exists() and len(taken.read_bytes().splitlines()) >= 2000)
    uids = [orjson.loads(line)["uid"] for line in taken.read_bytes().splitlines()]
    assert sorted(uids) == sorted(f"e{number}" for number in range(2000))
