"""The file sink tears no line of standard output, whatever its reader does."""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import dataclass

import orjson
import pytest

from event_handler.errors import SinkError
from event_handler.ports import Delivered, Retry
from event_handler.sinks.file import FileOptions, FileSink
from tests.contract.deliveries import BOUND, events, verdict


@dataclass(slots=True)
class Pipe:
    reading: int
    writing: int


@pytest.fixture
def pipe() -> Pipe:
    return Pipe(*os.pipe())


async def test_a_reader_of_standard_output_gets_every_line(pipe: Pipe) -> None:
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.extend(iter(lambda: os.read(pipe.reading, 65536), b"")))
    reader.start()
    sink = FileSink(FileOptions(path="-"), standard_output=pipe.writing)
    assert await verdict(sink, events(300, size=3000)) == Delivered()
    await sink.close()
    os.close(pipe.writing)
    reader.join()
    os.close(pipe.reading)
    assert [orjson.loads(line)["uid"] for line in b"".join(received).splitlines()] == [
        f"e{number}" for number in range(300)
    ]


async def test_a_reader_that_has_ended_is_said_plainly(pipe: Pipe) -> None:
    os.close(pipe.reading)
    sink = FileSink(FileOptions(path="-"), standard_output=pipe.writing)
    said = await verdict(sink, events(1))
    await sink.close()
    os.close(pipe.writing)
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert said.reason.startswith("standard output is closed")


async def test_a_reader_that_stands_still_is_waited_for_and_no_line_is_torn(pipe: Pipe) -> None:
    sink = FileSink(FileOptions(path="-"), standard_output=pipe.writing, patience=0.2)
    batch = events(100, size=3000)
    said = await verdict(sink, batch)
    assert said == Retry("standard output cannot be written: the reader takes nothing")
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.extend(iter(lambda: os.read(pipe.reading, 65536), b"")))
    reader.start()
    assert await verdict(sink, batch) == Delivered()
    await sink.close()
    os.close(pipe.writing)
    reader.join()
    os.close(pipe.reading)
    lines = [orjson.loads(line)["uid"] for line in b"".join(received).splitlines()]
    assert lines[-100:] == [event.id for event in batch]
    assert set(lines[:-100]) <= set(lines[-100:])


async def test_close_does_not_wait_for_a_reader_that_stands_still(pipe: Pipe) -> None:
    sink = FileSink(FileOptions(path="-"), standard_output=pipe.writing)
    sending = asyncio.create_task(sink.deliver(events(100, size=3000)))
    await asyncio.sleep(0.05)
    assert not sending.done()
    await sink.close()
    async with asyncio.timeout(BOUND):
        assert isinstance(await sending, Retry)
    os.close(pipe.writing)
    os.close(pipe.reading)


def test_a_standard_output_that_is_not_open_is_refused_at_the_start() -> None:
    with pytest.raises(SinkError, match="cannot be opened"):
        FileSink(FileOptions(path="-"), standard_output=1_000_000)
