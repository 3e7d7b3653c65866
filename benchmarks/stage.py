"""Sets a benchmark's stage: the simulated cluster, the collector and the event handler as processes, and what the OS
says of them.
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import orjson
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

CHUNK = 5000  # events of a chunk
DISTINCT = 2000  # events that the simulator makes one by one; the others are copies with ids and times of their own
EVENTS_A_DAY = 50_000  # so that a search of one day never covers a whole long log
CONNECTED = b"connected to Teleport"  # the handler's log line at which the measured time begins
RENEWED = b"credentials renewed"
LAST_LINES = 20  # of the handler's log, shown when it fails
LONGEST_LINE = 64 * 1024 * 1024  # bytes; the collector's last line holds a number for each event
PATIENCE = 1800.0  # seconds after which a run counts as hung

console = Console(width=160, highlight=False)


@dataclass(slots=True)
class Running:
    """A process of the stage and the lines that it prints."""

    process: asyncio.subprocess.Process

    async def line(self) -> dict[str, Any]:
        """The next line of its output, which must be JSON. Raises SystemExit when the process ends instead."""
        if self.process.stdout is None:
            raise SystemExit("a benchmark process has no output")
        read = await self.process.stdout.readline()
        if not read:
            raise SystemExit(
                f"a benchmark process ended with exit code {await self.process.wait()}; its errors are above"
            )
        parsed: dict[str, Any] = orjson.loads(read)
        return parsed

    async def rest(self) -> dict[str, Any]:
        """What it printed at its end, {} when that was nothing."""
        last: dict[str, Any] = orjson.loads(await self.process.stdout.read() or b"{}") if self.process.stdout else {}
        return last

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.terminate()
        await self.process.wait()


@dataclass(slots=True)
class Handler:
    """The event handler's process, the last lines of its log, and how often it told what is counted."""

    process: asyncio.subprocess.Process
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    lines: deque[bytes] = field(default_factory=lambda: deque(maxlen=LAST_LINES))
    told: Counter[bytes] = field(default_factory=Counter)

    async def follow_log(self) -> None:
        if self.process.stderr is None:
            raise SystemExit("the event handler has no log")
        async for line in self.process.stderr:
            self.lines.append(line)
            self.told.update(text for text in (CONNECTED, RENEWED) if text in line)
            if CONNECTED in line:
                self.connected.set()

    def failed(self) -> SystemExit:
        log = b"".join(self.lines).decode(errors="replace")
        return SystemExit(
            f"the event handler ended with exit code {self.process.returncode} before all was delivered:\n{log}"
        )

    async def until(self, what: asyncio.Task[Any]) -> Any:
        """The result of `what`, which must come before the handler ends. Raises SystemExit otherwise."""
        ended = asyncio.create_task(self.process.wait())
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.wait([what, ended], return_when=asyncio.FIRST_COMPLETED)
                if not what.done():
                    await asyncio.wait([what], timeout=1.0)  # its line may be on the way
            if not what.done():
                raise self.failed()
            return what.result()
        finally:
            what.cancel()
            ended.cancel()


@dataclass(frozen=True, slots=True)
class Moment:
    """What the OS says of a process at one moment: wall clock and CPU in seconds, the largest resident memory so far in
    bytes.
    """

    wall: float
    cpu: float
    peak: int


def look_at(pid: int) -> Moment:
    """Read /proc, so Linux only. CPU is user and system time of all threads, in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    status = Path(f"/proc/{pid}/status").read_text()
    peak = next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)
    return Moment(monotonic(), cpu, peak)


async def spawn(module: str, *arguments: str) -> Running:
    command = (sys.executable, "-m", module, *arguments)
    return Running(await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, limit=LONGEST_LINE))


async def result_of(module: str, *arguments: str) -> dict[str, Any]:
    """Run a module that prints one JSON line and ends."""
    running = await spawn(module, *arguments)
    try:
        return await running.line()
    finally:
        await running.process.wait()


def days(events: int) -> int:
    return max(2, -(-events // EVENTS_A_DAY))


@asynccontextmanager
async def cluster(
    directory: Path, mode: str, events: int, *more: str, chunk: int = CHUNK
) -> AsyncIterator[dict[str, Any]]:
    """A simulated cluster with a log of `events`.

    Yields its `address`, `identity` and `directory`, later also what it counted.
    """
    options = [
        f"--directory={directory}",
        f"--mode={mode}",
        f"--events={events}",
        f"--distinct={DISTINCT}",
        "--sessions=0",
    ]
    running = await spawn("event_handler.simulator", *options, f"--chunk={chunk}", f"--days={days(events)}", *more)
    facts = await running.line() | {"directory": str(directory)}
    try:
        yield facts
    finally:
        await running.stop()
        facts |= await running.rest()


@asynccontextmanager
async def collector(directory: Path, *options: str) -> AsyncIterator[tuple[Running, str]]:
    """A collector process and its URL; the client's certificate is in `directory`."""
    running = await spawn("benchmarks.collector", f"--directory={directory}", *options)
    try:
        yield running, str((await running.line())["url"])
    finally:
        await running.stop()


def handler_options(directory: Path, cluster: dict[str, Any], url: str, form: str, events: int) -> list[str]:
    """The command line of `start`: everything from before the oldest event on, without recordings."""
    begin = datetime.now(UTC) - timedelta(days=days(events) + 1)
    files = directory / "collector"
    options = [f"--teleport-addr={cluster['address']}", f"--teleport-identity={cluster['identity']}"]
    options += [
        f"--storage={directory / 'storage'}",
        f"--fluentd-format={form}",
        "--no-session-recordings",
        "--timeout=500ms",
    ]
    options += [f"--fluentd-url={url}/test.log", f"--fluentd-session-url={url}/session"]
    options += [
        f"--fluentd-ca={files / 'ca.crt'}",
        f"--fluentd-cert={files / 'client.crt'}",
        f"--fluentd-key={files / 'client.key'}",
    ]
    return ["start", *options, f"--start-time={begin:%Y-%m-%dT%H:%M:%SZ}"]


@asynccontextmanager
async def handler(command: Sequence[str], **environment: str) -> AsyncIterator[Handler]:
    """The event handler as `python -m <command>`; it is terminated at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *command, stderr=asyncio.subprocess.PIPE, limit=LONGEST_LINE, env=os.environ | environment
    )
    running = Handler(process)
    following = asyncio.create_task(running.follow_log())
    try:
        yield running
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        await following


def machine() -> str:
    """Date, cores and Python: what stands above every table."""
    now = datetime.now(UTC)
    return f"{now:%Y-%m-%d}, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table that can be put into a Markdown file as it is; columns after the first are numbers."""
    table = Table(box=MARKDOWN)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(f"\n{title} ({machine()})", table, sep="\n")
