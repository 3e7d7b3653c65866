"""A file that takes nothing, as a network file system whose server is away: it holds up neither another sink nor the
end.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from event_handler.ports import Delivered
from event_handler.sinks.file import FileOptions, FileSink
from tests.contract.deliveries import BOUND, events, verdict
from tests.contract.ndjson import uids

MORE_SINKS = 40  # than the threads that asyncio shares on any machine that runs this


@pytest.fixture
def terminal() -> Iterator[str]:
    """The path of a terminal that nobody reads: it takes some kilobytes, then a write blocks."""
    ours, theirs = os.openpty()
    yield os.ttyname(theirs)
    os.close(ours)  # lets the write that hangs end
    os.close(theirs)


async def test_sinks_whose_writes_hang_hold_up_no_other_and_can_be_closed(terminal: str, tmp_path: Path) -> None:
    hanging = [FileSink(FileOptions(path=terminal)) for _ in range(MORE_SINKS)]
    sending = [asyncio.create_task(sink.deliver(events(100, size=3000))) for sink in hanging]
    path = tmp_path / "events.ndjson"
    other = FileSink(FileOptions(path=str(path), max_age=0))
    async with asyncio.timeout(BOUND):
        assert await verdict(other, events(3)) == Delivered()
        await other.close()
        assert not any(task.done() for task in sending)
        await asyncio.gather(*(sink.reopen() for sink in hanging))
        await asyncio.gather(*(sink.close() for sink in hanging))
    for task in sending:
        task.cancel()
    await asyncio.gather(*sending, return_exceptions=True)
    assert uids(path) == ["e0", "e1", "e2"]


HANGING = """
import asyncio, os
from event_handler.sinks.file import FileOptions, FileSink
from tests.contract.deliveries import events

async def main():
    ours, theirs = os.openpty()
    sink = FileSink(FileOptions(path=os.ttyname(theirs)))
    sending = asyncio.create_task(sink.deliver(events(100, size=3000)))
    await asyncio.sleep(0)
    sending.cancel()
    await sink.close()
    print("closed", flush=True)

asyncio.run(main())
print("ended", flush=True)
"""


def test_the_process_ends_although_a_write_hangs() -> None:
    done = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=BOUND, check=False)
    assert (done.returncode, done.stdout) == (0, "closed\nended\n"), done.stderr
