"""A real redis-server on loopback; Debian has it as `redis-server`."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import redis

from tests.contract.ports import free_ports

PROGRAM = shutil.which("redis-server")
START = 20.0  # seconds that a server may take to start


@dataclass(slots=True)
class Server:
    port: int
    command: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        until = monotonic() + START
        while monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(redis.ConnectionError):
                self.ask("PING")
                return
            sleep(0.05)
        raise RuntimeError(f"redis-server did not start: {self.log.read_text(errors='replace')[-2000:]}")

    def ask(self, *words: Any, **options: Any) -> Any:
        with redis.Redis(port=self.port, **options) as client:
            return client.execute_command(*words)

    def entries(self, key: str) -> list[dict[bytes, bytes]]:
        with redis.Redis(port=self.port) as client:
            return [fields for _, fields in client.xrange(key)]

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def running(scratch: Path, *settings: str) -> Iterator[Server]:
    """`settings` are words of the command line, as `--maxmemory 10mb`."""
    assert PROGRAM is not None
    scratch.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    words = [word for setting in settings for word in setting.split()]
    command = [PROGRAM, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(scratch), "--save", "", *words]
    server = Server(port, command, scratch / "redis.log")
    try:
        server.start()
        yield server
    finally:
        server.kill()
