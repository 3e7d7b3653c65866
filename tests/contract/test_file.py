"""The file sink keeps what it calls delivered, over rotation, a full disk, a crash and a directory that goes away."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Retry
from event_handler.sinks import lines
from event_handler.sinks.file import FileOptions, FileSink, session_file
from tests.contract.deliveries import events, verdict
from tests.contract.ndjson import read, uids


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.ndjson"


async def deliver(settings: FileOptions, *batches: list[Event]) -> None:
    sink = FileSink(settings)
    for batch in batches:
        assert await verdict(sink, batch) == Delivered()
    await sink.close()


async def test_a_file_is_for_its_owner_only_and_is_appended_to(path: Path) -> None:
    await deliver(FileOptions(path=str(path), max_age=0), events(1))
    await deliver(FileOptions(path=str(path), max_age=0), events(1, first=1))
    assert path.stat().st_mode & 0o777 == 0o600
    assert uids(path) == ["e0", "e1"]


@pytest.mark.parametrize("mask", [0o022, 0o077])
async def test_new_files_get_the_mode_that_was_asked_for_whatever_the_umask(
    path: Path, tmp_path: Path, mask: int
) -> None:
    before = os.umask(mask)
    try:
        settings = FileOptions(
            path=str(path), session_path=str(tmp_path / "{session_id}.ndjson"), max_bytes=1000, max_age=0, mode="0640"
        )
        await deliver(settings, events(1, size=600), events(1, first=1, size=600), events(1, first=2, session_id="s1"))
    finally:
        os.umask(before)
    found = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert found == {"events.ndjson": 0o640, "events.ndjson.1": 0o640, "s1.ndjson": 0o640}


async def test_the_mode_of_a_file_that_exists_is_left_alone(path: Path) -> None:
    path.touch(0o604)  # made by logrotate, or by a person
    await deliver(FileOptions(path=str(path), mode="0640"), events(1))
    assert path.stat().st_mode & 0o777 == 0o604


async def test_a_file_rotates_by_size_and_the_oldest_are_deleted(path: Path, tmp_path: Path) -> None:
    settings = FileOptions(path=str(path), max_bytes=1000, max_age=0, keep=2)
    await deliver(settings, *(events(1, first=number, size=600) for number in range(5)))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["events.ndjson", "events.ndjson.1", "events.ndjson.2"]
    assert uids(tmp_path / "events.ndjson.2", tmp_path / "events.ndjson.1", path) == ["e2", "e3", "e4"]
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}


async def test_a_file_of_an_earlier_day_is_renamed_also_after_a_restart(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noon = 20_000.5 * 86400
    monkeypatch.setattr(lines, "time", lambda: noon)
    await deliver(FileOptions(path=str(path)), events(1))
    os.utime(path, (0, noon - 86400))
    await deliver(FileOptions(path=str(path)), events(1, first=1), events(1, first=2))
    assert uids(tmp_path / "events.ndjson.1") == ["e0"]
    assert uids(path) == ["e1", "e2"]


async def test_an_open_file_is_renamed_at_midnight_by_our_own_clock(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    midnight = 20_000 * 86400.0  # long ago for the file system, which may also be a server with a clock of its own
    now = [midnight - 10]
    monkeypatch.setattr(lines, "time", lambda: now[0])
    sink = FileSink(FileOptions(path=str(path)))
    for number, at in enumerate((-10, -5, 0, 5)):
        now[0] = midnight + at
        assert await verdict(sink, events(1, first=number)) == Delivered()
    await sink.close()
    assert uids(tmp_path / "events.ndjson.1") == ["e0", "e1"]
    assert uids(path) == ["e2", "e3"]


async def test_without_limits_a_file_never_rotates(path: Path, tmp_path: Path) -> None:
    settings = FileOptions(path=str(path), max_bytes=0, max_age=0)
    await deliver(settings, events(1, size=9000))
    os.utime(path, (0, 0))
    await deliver(settings, events(1, first=1))
    assert list(tmp_path.iterdir()) == [path]


async def test_a_file_that_logrotate_moved_away_is_made_again(path: Path, tmp_path: Path) -> None:
    sink = FileSink(FileOptions(path=str(path), max_age=0))
    assert await verdict(sink, events(1)) == Delivered()
    path.rename(tmp_path / "moved")
    assert await verdict(sink, events(1, first=1)) == Delivered()
    path.unlink()
    assert await verdict(sink, events(1, first=2)) == Delivered()
    await sink.close()
    assert uids(tmp_path / "moved") == ["e0"]
    assert uids(path) == ["e2"]


async def test_a_file_that_was_truncated_in_place_goes_on_without_a_hole(path: Path) -> None:
    sink = FileSink(FileOptions(path=str(path), max_age=0))
    assert await verdict(sink, events(1)) == Delivered()
    os.truncate(path, 0)
    assert await verdict(sink, events(1, first=1)) == Delivered()
    await sink.close()
    assert uids(path) == ["e1"]


async def test_reopen_lets_go_of_the_file(path: Path) -> None:
    sink = FileSink(FileOptions(path=str(path), max_age=0))
    before = len(list(Path("/proc/self/fd").iterdir()))
    await sink.reopen()
    assert len(list(Path("/proc/self/fd").iterdir())) == before - 1
    assert await verdict(sink, events(1)) == Delivered()
    await sink.close()
    assert uids(path) == ["e0"]


@pytest.mark.parametrize(
    ("left", "kept"),
    [
        (b'{"uid":"a"}\n{"uid":"tor', ["a"]),
        (b'{"uid":"tor', []),
        (b'{"uid":"a"}\n{"uid":"whole"}', ["a", "whole"]),
        (b'{"uid":"a"}\n' + b'{"uid":"' + b"x" * 200_000, ["a"]),
        (b'{"uid":"a"}\n' + b"\0" * 4096, ["a"]),
        (b'{"uid":"a"}\n', ["a"]),
    ],
    ids=["torn", "torn first", "complete", "torn and long", "zeros", "whole"],
)
async def test_a_line_torn_by_a_crash_is_mended_before_the_next(path: Path, left: bytes, kept: list[str]) -> None:
    path.write_bytes(left)
    await deliver(FileOptions(path=str(path), max_age=0), events(1))
    assert uids(path) == [*kept, "e0"]


async def test_a_last_line_that_is_not_ours_is_kept(path: Path) -> None:
    path.write_bytes(b"header of someone else")
    await deliver(FileOptions(path=str(path), max_age=0), events(1))
    assert path.read_bytes().splitlines()[0] == b"header of someone else"


@pytest.mark.parametrize(
    ("first", "last", "left"),
    [(b"x", b"x", 1), (b"{", b"x", 0), (b"{", b"}", 1), (b"{", b"\0", 0), (b"\0", b"\0", 0)],
    ids=["of someone else", "torn", "perhaps whole", "torn by zeros", "zeros"],
)
async def test_a_large_file_without_a_line_break_is_read_once_and_little_of_it_is_kept_in_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch, first: bytes, last: bytes, left: int
) -> None:
    size = 64 * 1024 * 1024
    with path.open("wb") as file:
        file.write(first)
        file.seek(size - 1)
        file.write(last)
    counts: list[int] = []
    pread = os.pread

    def counting(descriptor: int, count: int, offset: int) -> bytes:
        data = pread(descriptor, count, offset)
        counts.append(len(data))
        return data

    monkeypatch.setattr(os, "pread", counting)
    await deliver(FileOptions(path=str(path), max_bytes=0, max_age=0), events(1))
    assert sum(counts) <= size + 2
    assert max(counts) <= 1024 * 1024
    assert path.stat().st_size > size if left else uids(path) == ["e0"]


async def test_a_full_disk_is_repeated_with_the_reason() -> None:
    sink = FileSink(FileOptions(path="/dev/full"))
    said = await verdict(sink, events(1))
    await sink.close()
    assert said == Retry("/dev/full cannot be written: No space left on device; make room", misconfigured=True)


LIMITED = """
import asyncio, resource, sys
from event_handler.event import Event
from event_handler.sinks.file import FileOptions, FileSink

def events(count, first):
    pad = b"p" * 100
    return [
        Event("e", f"e{n}", 0.0, 0, b'{"uid":"e%d","pad":"%b"}' % (n, pad), "") for n in range(first, first + count)
    ]

async def main():
    sink = FileSink(FileOptions(path=sys.argv[1], max_age=0))
    print(await sink.deliver(events(5, 0)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    print(await sink.deliver(events(10, 5)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(await sink.deliver(events(10, 5)))
    await sink.close()

asyncio.run(main())
"""


def test_a_disk_that_fills_up_in_the_middle_of_a_batch_leaves_no_torn_line_and_no_double(path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, timeout=60, check=True
    )
    first, second, third = said.stdout.splitlines()
    assert (first, third) == ("Delivered()", "Delivered()")
    assert "File too large; make room" in second
    assert uids(path) == [f"e{number}" for number in range(15)]


ENDLESS = """
import asyncio, sys
from event_handler.event import Event
from event_handler.sinks.file import FileOptions, FileSink

async def main():
    sink = FileSink(FileOptions(path=sys.argv[1], max_bytes=200_000, max_age=0, keep=1000))
    number = 0
    while True:
        pad = b"p" * 3000
        batch = [
            Event("e", "", 0.0, 0, b'{"uid":"e%d","pad":"%b"}' % (n, pad), "") for n in range(number, number + 20)
        ]
        await sink.deliver(batch)
        number += 20
        print(number, flush=True)

asyncio.run(main())
"""


def test_after_a_kill_everything_delivered_is_in_the_files(path: Path, tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ENDLESS, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 400:
            break
    process.kill()
    delivered = int(([line, *process.stdout.readlines()])[-1])
    process.stdout.close()
    process.wait()
    asyncio.run(deliver(FileOptions(path=str(path), max_bytes=0, max_age=0), events(1, first=10**6)))
    files = sorted(tmp_path.glob("events.ndjson.*"), key=lambda file: -int(file.suffix[1:]))
    found = uids(*files, path)
    assert found[-1] == "e1000000"
    assert found[:delivered] == [f"e{number}" for number in range(delivered)]
    assert len(set(found)) == len(found)


async def test_a_directory_that_vanishes_is_a_fault_to_mend_and_is_found_again(tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    path = directory / "events.ndjson"
    sink = FileSink(FileOptions(path=str(path), max_age=0))
    path.unlink()
    directory.rmdir()
    said = await verdict(sink, events(1))
    assert said == Retry(f"{path} cannot be written: No such file or directory", misconfigured=True)
    directory.mkdir()
    assert await verdict(sink, events(1)) == Delivered()
    await sink.close()
    assert uids(path) == ["e0"]


async def test_each_session_can_have_a_file_of_its_own(path: Path, tmp_path: Path) -> None:
    settings = FileOptions(path=str(path), session_path=str(tmp_path / "session.{session_id}.ndjson"), max_age=0)
    await deliver(settings, events(1), events(2, first=1, session_id="s1"), events(1, first=3, session_id="s1"))
    assert uids(path) == ["e0"]
    assert read(tmp_path / "session.s1.ndjson")[0] == {"uid": "e1", "pad": ""}
    assert uids(tmp_path / "session.s1.ndjson") == ["e1", "e2", "e3"]
    assert (tmp_path / "session.s1.ndjson").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("odd", ["../../etc/x", "..", ".", "a/b", "a\0b", "{session_id}"])
def test_an_odd_session_id_stays_in_the_directory(odd: str) -> None:
    assert str(session_file("/var/log/{session_id}", odd).resolve().parent) == "/var/log"


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (FileOptions(path=""), "path is empty"),
        (FileOptions(path="/nowhere/x"), "/nowhere/x cannot be opened"),
        (FileOptions(path="/"), "cannot be opened"),
        (FileOptions(path="-", session_path="/tmp/session.ndjson"), "session_id"),
        (FileOptions(path="-", session_path="/tmp/{session_id}/x"), "session_id"),
        (FileOptions(path="-", session_path="/nowhere/{session_id}"), "/nowhere"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_the_start(settings: FileOptions, match: str) -> None:
    with pytest.raises(SinkError, match=match):
        FileSink(settings)


def test_a_named_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SinkError, match="it is a pipe"):
        FileSink(FileOptions(path=str(tmp_path / "pipe")))
