"""Every sink on this machine writes whole lines in order and never blocks the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from event_handler.ports import Delivered, Sink
from event_handler.sinks.file import FileOptions, FileSink
from tests.contract.deliveries import events, verdict
from tests.contract.ndjson import read, uids
from tests.support.required_metrics import assert_told, delivering


@dataclass(frozen=True, slots=True)
class LocalAdapter:
    """How a local sink is opened that writes lines to a path: a new one joins the suite by one entry in ADAPTERS."""

    name: str
    open: Callable[[Path], contextlib.AbstractAsyncContextManager[Sink]]


@contextlib.asynccontextmanager
async def file(path: Path) -> AsyncIterator[Sink]:
    sink = FileSink(FileOptions(path=str(path), max_age=0))
    yield sink
    await sink.close()


@contextlib.asynccontextmanager
async def redirected(path: Path) -> AsyncIterator[Sink]:
    with path.open("ab") as output:
        sink = FileSink(FileOptions(path="-"), standard_output=output.fileno())
        yield sink
        await sink.close()


ADAPTERS = [LocalAdapter("file", file), LocalAdapter("redirected standard output", redirected)]


@pytest.fixture(params=ADAPTERS, ids=lambda adapter: adapter.name)
async def local(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Sink, Path]]:
    path = tmp_path / "events.ndjson"
    adapter: LocalAdapter = request.param
    async with adapter.open(path) as sink:
        yield sink, path


async def test_events_are_lines_in_order(local: tuple[Sink, Path]) -> None:
    sink, path = local
    assert await verdict(sink, events(3)) == Delivered()
    assert await verdict(sink, events(500, first=3, size=2000)) == Delivered()
    assert uids(path) == [f"e{number}" for number in range(503)]


async def test_events_of_recordings_name_their_session(local: tuple[Sink, Path]) -> None:
    sink, path = local
    assert await verdict(sink, events(1, session_id='odd "id"')) == Delivered()
    assert read(path) == [{"teleport_session_id": 'odd "id"', "uid": "e0", "pad": ""}]


async def test_batches_at_once_do_not_mix_their_lines(local: tuple[Sink, Path]) -> None:
    sink, path = local
    said = await asyncio.gather(*(verdict(sink, events(20, first=20 * number, size=5000)) for number in range(10)))
    assert said == [Delivered()] * 10
    assert sorted(uids(path)) == sorted(f"e{number}" for number in range(200))


async def test_a_cancelled_delivery_leaves_whole_lines_and_the_sink_goes_on(local: tuple[Sink, Path]) -> None:
    sink, path = local
    sending = asyncio.create_task(sink.deliver(events(200, size=20_000)))
    await asyncio.sleep(0)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert await verdict(sink, events(1, first=900)) == Delivered()
    assert uids(path)[-1] == "e900"


async def test_a_slow_disk_does_not_stop_the_event_loop(local: tuple[Sink, Path]) -> None:
    sink, _ = local
    loops = 0
    sending = asyncio.create_task(sink.deliver(events(200, size=20_000)))
    while not sending.done():
        await asyncio.sleep(0)
        loops += 1
    assert sending.result() == Delivered()
    assert loops > 1


async def test_what_it_did_is_in_the_metrics(local: tuple[Sink, Path]) -> None:
    sink, _ = local
    assert_told(await delivering(sink))
