"""A bucket with conditional writes, in a thread: keeps objects with their versions, can lose answers and be away."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import sleep
from typing import Any
from urllib.parse import unquote, urlsplit

BUCKET = "states"


@dataclass
class StateBucket:
    """`objects` by name, each with its version. While it is `away` it answers 503, while it is `closed` 403.

    The next `lost` answers to writes get lost after the object was kept. `deaf` ignores conditions.
    """

    port: int = 0
    objects: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    refused: int = 0
    writes: int = 0
    lost: int = 0
    away: bool = False
    closed: bool = False
    deaf: bool = False
    slow: float = 0.0
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def url(self, prefix: str = "", **more: str) -> str:
        """What `storage` is set to."""
        parameters = {"endpoint": f"http://127.0.0.1:{self.port}", "region": "us-east-1", **more}
        return f"s3://{BUCKET}/{prefix}?{'&'.join(f'{name}={value}' for name, value in parameters.items())}"

    def answer(self, method: str, name: str, body: bytes, headers: Any) -> tuple[int, bytes, str] | None:
        """Status, body and version; None for no answer."""
        sleep(self.slow)
        if "AWS4-HMAC-SHA256" not in headers.get("Authorization", "") or self.closed:
            return 403, _error("AccessDenied"), ""
        if self.away:
            return 503, _error("SlowDown"), ""
        if not name.startswith(f"/{BUCKET}/"):
            return 404, _error("NoSuchBucket"), ""
        with self._turn:
            found = self.objects.get(name)
            if method == "GET":
                return (200, *found) if found else (404, _error("NoSuchKey"), "")
            wanted, absent = headers.get("If-Match"), headers.get("If-None-Match")
            if not self.deaf and wanted and found is None:
                return 404, _error("NoSuchKey"), ""
            if not self.deaf and ((wanted and found and found[1] != wanted) or (absent and found)):
                self.refused += 1
                return 412, _error("PreconditionFailed"), ""
            self.writes += 1
            self.objects[name] = body, f'"{self.writes:032x}"'
            if self.lost:
                self.lost -= 1
                return None
            return 200, b"", self.objects[name][1]


def _error(code: str) -> bytes:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>Said by the test.</Message></Error>'.encode()


@contextmanager
def state_bucket() -> Iterator[StateBucket]:
    bucket = StateBucket()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            said = bucket.answer(self.command, unquote(urlsplit(self.path).path), body, self.headers)
            if said is None:
                self.close_connection = True
                return
            status, content, version = said
            self.send_response(status)
            if version:
                self.send_header("ETag", version)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_PUT = do_GET

        def log_message(self, *_: object) -> None:
            """Not on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    bucket.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield bucket
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
