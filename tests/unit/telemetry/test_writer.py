"""Log lines are written in order by a thread of their own; what nobody reads is dropped, counted and told."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from event_handler.telemetry.logs.writer import FLUSH, Writer

LIMIT = 20.0  # seconds in which anything here has ended on a busy machine
BIG = "x" * 1000


def tell(lines: int) -> str:
    return f"lost {lines}\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        try:
            os.close(descriptor)
        except OSError:
            continue


def drain(reading: int, until: str) -> list[str]:
    """What comes out of the pipe, up to a line with that text."""
    data = b""
    while until.encode() not in data or not data.endswith(b"\n"):
        assert select.select([reading], [], [], LIMIT)[0], data[-200:]
        data += os.read(reading, 65536)
    return data.decode().splitlines()


def whole(reading: int, lines: int) -> list[str]:
    """What comes out of the pipe until so many lines are accounted for, each by its number or among those that are
    told as lost.
    """
    got: list[str] = []
    next_number = 0
    while next_number < lines:
        for line in drain(reading, "\n"):
            got.append(line)
            word, rest = line.split(maxsplit=1)
            if word == "lost":
                next_number += int(rest)
            else:
                assert int(word) == next_number
                next_number += 1
    return got


def test_lines_of_many_threads_arrive_whole_and_each_thread_in_its_order(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    writer = Writer(writing, tell)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.extend(drain(reading, "the end")))
    reader.start()

    def log(name: int) -> None:
        for number in range(200):
            writer.write(f"{name} {number} {BIG}\n")

    threads = [threading.Thread(target=log, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.write("the end\n")
    reader.join()
    for name in range(4):
        assert [line.split()[1] for line in got if line.startswith(f"{name} ")] == [
            str(number) for number in range(200)
        ]
    assert len(got) == 801


def test_a_pipe_that_nobody_reads_takes_the_first_lines_and_the_number_of_the_others(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    writer = Writer(writing, tell, most_bytes=100_000)
    for number in range(2000):
        writer.write(f"{number} {BIG}\n")
    got = whole(reading, 2000)
    assert any(line.startswith("lost") for line in got)
    assert len(got) < 400
    writer.write("again\n")
    assert drain(reading, "again") == ["again"]


def test_the_number_stands_where_the_lines_are_missing(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    writer = Writer(writing, tell, most_bytes=10_000)
    for number in range(200):
        writer.write(f"{number} {BIG}\n")
    got = whole(reading, 200)
    assert any(line.startswith("lost") for line in got)
    for number in range(5):
        writer.write(f"{number} later\n")
    assert whole(reading, 5) == [f"{number} later" for number in range(5)]


def test_a_file_gets_every_line_however_fast_they_come(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        writer = Writer(file.fileno(), tell, most_bytes=5000)
        for number in range(5000):
            writer.write(f"{number} {BIG}\n")
        writer.finish(LIMIT)
        assert [int(line.split()[0]) for line in path.read_text().splitlines()] == list(range(5000))


def test_a_reader_that_has_ended_stops_nobody_and_costs_no_time_at_the_end(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.close(reading)
    writer = Writer(writing, tell)
    for _ in range(1000):
        writer.write("a line\n")
    done = threading.Event()

    def finish() -> None:
        writer.finish(10 * LIMIT)
        done.set()

    threading.Thread(target=finish, daemon=True).start()
    assert done.wait(LIMIT)


def test_a_descriptor_that_somebody_made_non_blocking_tears_no_line(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.set_blocking(writing, False)
    writer = Writer(writing, tell)
    for number in range(500):
        writer.write(f"{number} {BIG}\n")
    writer.write("the end\n")
    got = drain(reading, "the end")
    assert [int(line.split()[0]) for line in got[:-1]] == list(range(500))


LIMITED = """
import os, resource, signal, sys
from event_handler.telemetry.logs.writer import Writer

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
writer = Writer(file, lambda lines: f"lost {lines}\\n")
def log(text):
    writer.write(text)
    writer.finish(20)
log("before\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
for _ in range(3):
    log("a line that has no room\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log("after\\n")
"""


def test_a_disk_that_was_full_for_a_while_is_told_and_tears_no_later_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    subprocess.run([sys.executable, "-c", LIMITED, str(path)], check=True, timeout=60)
    lines = path.read_text().splitlines()
    assert (lines[0], lines[-2:]) == ("before", ["lost 3", "after"])


STANDING_STILL = """
import json, os, structlog, sys, time
from event_handler.telemetry import logs
from event_handler.telemetry.logs.writer import Writer
logs.Writer = lambda descriptor, tell: Writer(descriptor, tell, 100_000)
logs.configure(False, sys.argv[1])
for number in range(1000):
    structlog.get_logger().info("a line", number=number, text="x" * 1000, odd=str(number))
os.write(3, b"logged")
"""


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_a_process_whose_log_nobody_reads_goes_on_and_ends_within_its_time(fmt: str, pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    ours, theirs = os.pipe()
    script = STANDING_STILL.replace("os.write(3", f"os.write({theirs}")
    process = subprocess.Popen([sys.executable, "-c", script, fmt], stderr=writing, pass_fds=(theirs,))
    try:
        assert select.select([ours], [], [], 2 * LIMIT)[0]
        assert process.wait(LIMIT + FLUSH) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)
    assert b"a line" in os.read(reading, 65536)


def test_the_line_that_tells_looks_like_the_others(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    ours, theirs = os.pipe()
    script = STANDING_STILL.replace("os.write(3", f"os.write({theirs}")
    process = subprocess.Popen([sys.executable, "-c", script, "json"], stderr=writing, pass_fds=(theirs,))
    os.close(writing)
    assert select.select([ours], [], [], 2 * LIMIT)[0]
    data = []
    while part := os.read(reading, 65536):
        data.append(part)
    assert process.wait(LIMIT) == 0
    os.close(ours)
    os.close(theirs)
    lines = [json.loads(line) for line in b"".join(data).splitlines()]
    missing = [line for line in lines if line["event"].startswith("log lines are missing")]
    assert {line["level"] for line in missing} == {"warning"}
    assert sum(line["lines"] for line in missing) == 1000 - (len(lines) - len(missing))
    assert {tuple(line)[:3] for line in lines} == {("timestamp", "level", "event")}
