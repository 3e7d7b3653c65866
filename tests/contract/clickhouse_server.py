"""ClickHouse's engine for a test, from an environment of its own with `chdb-core`.

`make receivers` makes it; EVENT_HANDLER_CHDB names its directory where it is elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from event_handler.sinks.clickhouse import ClickhouseOptions, ClickhouseSink
from tests.support.receiver_cache import place

PYTHON = place("chdb", "EVENT_HANDLER_CHDB") / "bin" / "python"
USER, PASSWORD = "teleport", "a-clickhouse-password"
ENGINE = Path(__file__).with_name("clickhouse_engine.py")


def no_clickhouse() -> str:
    """Why there is no ClickHouse, "" where there is."""
    return "" if PYTHON.is_file() else f"there is no {PYTHON}: make receivers fetches ClickHouse's engine"


@dataclass(frozen=True, slots=True)
class Clickhouse:
    """A running engine."""

    url: str

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The rows of an answer."""
        login = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        address = f"{self.url}/?{urllib.parse.urlencode({'query': query})}"
        request = urllib.request.Request(address, b"", {"Authorization": f"Basic {login}"})  # noqa: S310 - on loopback
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - on loopback
            return [json.loads(line) for line in answer.read().splitlines()]

    def sink(self, **options: Any) -> ClickhouseSink:
        given = {"url": self.url, "username": USER, "password": PASSWORD, "create_table": True, **options}
        return ClickhouseSink(ClickhouseOptions(**given), "click", "sinks.click")


@contextlib.contextmanager
def engine(directory: Path) -> Iterator[Clickhouse]:
    """An engine whose data is in `directory`."""
    command = [str(PYTHON), str(ENGINE), str(directory), f"{USER}:{PASSWORD}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield Clickhouse(f"http://127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.kill()
