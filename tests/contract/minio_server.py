"""A real MinIO, where `make receivers` has built it."""

from __future__ import annotations

import contextlib
import os
import re
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
from yarl import URL

from event_handler.sinks.aws_signing import AwsCredentials, signed
from tests.contract.ports import free_ports
from tests.contract.s3_bucket import unpacked
from tests.contract.server_process import serving
from tests.support.receiver_cache import absent, place

PROGRAM = "bin/minio"
ROOT = AwsCredentials("minio-of-tests", "a-secret-of-minio")
REGION = "us-east-1"
BUCKET = "audit"


def no_minio() -> str:
    """Why there is none, "" where there is one."""
    return absent(PROGRAM)


@dataclass(frozen=True, slots=True)
class Minio:
    url: str

    def options(self) -> dict[str, Any]:
        keys = {"access_key_id": ROOT.access_key, "secret_access_key": ROOT.secret_key}
        return {"url": self.url, "bucket": BUCKET, "region": REGION, **keys}

    def ask(self, method: str, path: str) -> bytes:
        url = URL(f"{self.url}{path}", encoded=True)
        headers = signed(ROOT, REGION, "s3", datetime.now(UTC), method, url, b"", {})
        request = urllib.request.Request(str(url), None, headers, method=method)  # noqa: S310 - on loopback
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - on loopback
            content: bytes = answer.read()
        return content

    def has_made_a_bucket(self) -> bool:
        """Raises OSError while it does not answer."""
        self.ask("PUT", f"/{BUCKET}")
        return True

    def names(self) -> list[str]:
        """The names of all objects."""
        found: list[str] = []
        more = ""
        while True:
            page = self.ask("GET", f"/{BUCKET}?list-type=2{more}").decode()
            found += [unescape(name) for name in re.findall(r"<Key>([^<]+)</Key>", page)]
            token = re.search(r"<NextContinuationToken>([^<]+)<", page)
            if token is None:
                return found
            more = f"&continuation-token={quote(unescape(token[1]), safe='')}"

    def ids(self) -> list[str]:
        """The ids of the events in all objects."""
        bodies = (self.ask("GET", f"/{BUCKET}/{quote(name)}") for name in self.names())
        return [orjson.loads(line)["uid"] for body in bodies for line in unpacked(body)]


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Minio]:
    """A server with an empty bucket."""
    (port,) = free_ports(1)
    command = [str(place(PROGRAM)), "server", str(directory / "data"), "--address", f"127.0.0.1:{port}", "--quiet"]
    environment = os.environ | {"MINIO_ROOT_USER": ROOT.access_key, "MINIO_ROOT_PASSWORD": ROOT.secret_key}
    minio = Minio(f"http://127.0.0.1:{port}")
    with serving(command, directory / "minio.log", minio.has_made_a_bucket, environment=environment):
        yield minio
