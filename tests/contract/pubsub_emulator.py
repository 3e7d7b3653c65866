"""Google's own emulator of Pub/Sub: Debian package google-cloud-cli-pubsub-emulator of packages.cloud.google.com.

EVENT_HANDLER_PUBSUB_EMULATOR names its jar where it is installed elsewhere.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

VARIABLE = "EVENT_HANDLER_PUBSUB_EMULATOR"
INSTALLED = Path("/usr/lib/google-cloud-sdk/platform/pubsub-emulator/lib")
START = 60.0  # seconds that it may take to start on a loaded machine
PROJECT = "project"


def emulator_jar() -> Path | None:
    """The jar to run, None where there is none or no Java."""
    named = os.environ.get(VARIABLE)
    found = [Path(named)] if named else sorted(INSTALLED.glob("cloud-pubsub-emulator-*.jar"))
    return found[-1] if found and shutil.which("java") else None


@dataclass(frozen=True, slots=True)
class Message:
    """What a subscriber gets."""

    body: dict[str, Any]
    attributes: dict[str, str]
    key: str


@dataclass(frozen=True, slots=True)
class Emulator:
    url: str

    def ask(self, method: str, path: str, body: object) -> dict[str, Any]:
        """Raises OSError for an answer that is an error."""
        data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/v1/projects/{PROJECT}/{path}", data, headers, method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - on loopback
            said: dict[str, Any] = json.loads(answer.read())
        return said

    def make(self, topic: str) -> None:
        """A topic with a subscription of the same name, which keeps the order."""
        self.ask("PUT", f"topics/{topic}", {})
        wanted = {
            "topic": f"projects/{PROJECT}/topics/{topic}",
            "enableMessageOrdering": True,
            "ackDeadlineSeconds": 600,
        }
        self.ask("PUT", f"subscriptions/{topic}", wanted)

    def pull(self, topic: str) -> list[Message]:
        """All messages that are there."""
        taken: list[Message] = []
        while True:
            wanted = {"maxMessages": 1000, "returnImmediately": True}
            got = self.ask("POST", f"subscriptions/{topic}:pull", wanted).get("receivedMessages", [])
            if not got:
                return taken
            self.ask("POST", f"subscriptions/{topic}:acknowledge", {"ackIds": [one["ackId"] for one in got]})
            for one in (each["message"] for each in got):
                body = json.loads(base64.b64decode(one["data"]))
                taken.append(Message(body, one.get("attributes", {}), one.get("orderingKey", "")))


@contextlib.contextmanager
def running_emulator(jar: Path, scratch: Path) -> Iterator[Emulator]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = scratch / "emulator.log"
    command = ["java", "-Xmx512m", "-jar", str(jar), "--host=127.0.0.1", f"--port={port}"]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        emulator = Emulator(f"http://127.0.0.1:{port}")
        try:
            _wait(emulator, process, log)
            yield emulator
        finally:
            process.kill()


def _wait(emulator: Emulator, process: subprocess.Popen[bytes], log: Path) -> None:
    until = monotonic() + START
    while process.poll() is None and monotonic() < until:
        with contextlib.suppress(OSError):
            emulator.make("is-it-there")
            return
        sleep(0.1)
    raise RuntimeError(f"the emulator did not start: {log.read_text(errors='replace')[-2000:]}")
