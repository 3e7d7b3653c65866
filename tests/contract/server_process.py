"""A server as a process of its own, from when it answers until the end of a block."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep


@contextmanager
def serving(
    command: Sequence[str],
    log: Path,
    ready: Callable[[], bool],
    within: float = 60.0,
    environment: Mapping[str, str] = os.environ,
) -> Iterator[None]:
    """Start it, and wait until it is `ready`, for so many seconds at most; an OSError means not yet.

    Raises RuntimeError, with the end of its log, when it does not become so.
    """
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=dict(environment)) as process,
    ):
        try:
            until = monotonic() + within
            while not _is(ready):
                if process.poll() is not None or monotonic() > until:
                    raise RuntimeError(f"{command[0]} did not start: {log.read_text(errors='replace')[-2000:]}")
                sleep(0.05)
            yield
        finally:
            process.kill()


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


def _is(ready: Callable[[], bool]) -> bool:
    try:
        return ready()
    except OSError:
        return False
