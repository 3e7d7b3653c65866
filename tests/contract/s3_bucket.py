"""A bucket of our own: keeps objects by name, tells what it has, and can lose answers."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import orjson

from tests.contract.receiver import Exchange, Reply, Request, answer

NO_KEY = b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code><Message>There is none.</Message></Error>'
SLOW_DOWN = b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your rate.</Message></Error>'


@dataclass
class Bucket:
    """Its `objects` by name; `puts` counts what was sent, also what was refused."""

    objects: dict[str, bytes] = field(default_factory=dict)
    puts: int = 0

    def __call__(self, request: Request) -> Reply:
        name = unquote(urlsplit(request.target).path)
        if request.method == "GET":
            return Reply(206, b"x") if name in self.objects else Reply(404, NO_KEY)
        self.puts += 1
        self.objects[name] = request.body
        return Reply(200)

    async def stored_and_lost(self, exchange: Exchange) -> None:
        """A step that keeps the object and gives no answer."""
        self(await exchange.read_body())
        exchange.writer.close()

    async def stored_and_refused(self, exchange: Exchange) -> None:
        """A step that keeps the object and says that it did not."""
        self(await exchange.read_body())
        await answer(500)(exchange)

    async def busy(self, exchange: Exchange) -> None:
        """A step that refuses it."""
        self.puts += 1
        await answer(503, SLOW_DOWN)(exchange)

    def ids(self) -> list[str]:
        """The ids of the events in all objects."""
        return [orjson.loads(line)["uid"] for body in self.objects.values() for line in unpacked(body)]


def unpacked(body: bytes) -> list[bytes]:
    return (gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body).splitlines()
