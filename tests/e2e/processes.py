"""The real processes: a simulated cluster, and the handler with its configuration file and its log."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Collector

DAYS = 5  # from how long ago on events are read, more than any log here is old: each day costs a request


@asynccontextmanager
async def simulated(directory: Path, *options: str) -> AsyncIterator[dict[str, Any]]:
    """The simulated cluster as a process; yields the line it prints when it is ready."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "event_handler.simulator",
        f"--directory={directory}",
        *options,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield json.loads(await process.stdout.readline())
    finally:
        process.terminate()
        await process.wait()


def configuration(
    directory: Path,
    cluster: dict[str, Any],
    collector: Collector,
    *,
    teleport: str = "",
    path: str = "/test.log",
    start: str = "",
) -> Path:
    """Write a configuration file: the table `teleport` (by default address and identity of `cluster`), events to that
    path.
    """
    settings = collector.settings
    start = start or f"{datetime.now(UTC) - timedelta(days=DAYS):%Y-%m-%dT%H:%M:%SZ}"
    file = directory / "teleport-event-handler.toml"
    file.write_text(
        f"""
storage = "{directory}/storage"
timeout = "200ms"
start-time = "{start}"
window-size = "8760h"

[forward.fluentd]
url = "{settings.url.replace("/test.log", path)}"
session-url = "{settings.session_url}"
ca = "{settings.ca}"
cert = "{settings.cert}"
key = "{settings.key}"
format = "array"

[teleport]
"""
        + (teleport or f'addr = "{cluster["address"]}"\nidentity = "{cluster["identity"]}"\n')
    )
    return file


async def handler(
    config: Path, *more: str, stderr: int = asyncio.subprocess.PIPE, **environment: str
) -> asyncio.subprocess.Process:
    """`start` with that configuration; proxies of this machine are left out of its environment."""
    command = (sys.executable, "-m", "event_handler", "start", "-c", str(config), *more)
    own = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}
    return await asyncio.create_subprocess_exec(*command, stderr=stderr, env=own | environment)


@dataclass(slots=True)
class Started:
    """A running handler, the lines of its log so far, and the error with which it ended."""

    process: asyncio.subprocess.Process
    lines: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""

    async def until(self, event: str) -> None:
        """Read the log on, up to the next line with that text."""
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.lines.append(json.loads(line))
            if event in self.lines[-1]["event"]:
                return
        raise AssertionError(self.lines)

    async def stop(self) -> None:
        """End it by a signal and read the rest of its log."""
        self.process.terminate()
        await self.rest()

    async def rest(self) -> None:
        """Wait for its end and read the rest of its log."""
        _, log = await self.process.communicate()
        for line in log.splitlines():
            if line.startswith(b"{"):
                self.lines.append(json.loads(line))
            else:
                self.error += line.decode() + "\n"

    def told(self, event: str) -> int:
        """How many lines have that text."""
        return sum(event in line["event"] for line in self.lines)
