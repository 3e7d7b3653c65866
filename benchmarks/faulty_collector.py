"""A collector that drops answers, fails, stalls and restarts, and keeps a book of what it took and why something came twice."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import orjson
from aiohttp import web

from benchmarks.collector import tls

LARGEST_BODY = 32 * 1024 * 1024  # bytes
UNREMEMBERED = 1.0  # seconds from an answer until the handler has surely read and remembered it, on a busy machine too
STALL = (0.5, 2.0)  # seconds, from and to
DOWN = (0.2, 1.0)  # seconds that a restart takes, from and to
UP = (3.0, 8.0)  # seconds between two restarts, from and to
# What happens to so many of a hundred requests; the others are taken and answered.
FAULTS = {"answer dropped": 4, "taken, then 500": 2, "500": 3, "429": 2, "413": 2, "stalled": 2}


@dataclass(slots=True)
class Receipt:
    """One request whose events were taken: by which run of the handler, and when it was answered (None: not, or with an error)."""

    run: int
    answered: float | None = None


@dataclass(slots=True)
class Book:
    """What arrived. Events of the log are known by their id, those of a recording by session and index.

    `ends` holds when a run of the handler was killed, `restarts` when the collector was; both in seconds of the monotonic clock.
    """

    events: dict[str, Receipt] = field(default_factory=dict)
    recorded: dict[tuple[str, int], Receipt] = field(default_factory=dict)
    ends: dict[int, float] = field(default_factory=dict)
    restarts: list[float] = field(default_factory=list)
    repeats: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    requests: int = 0

    @property
    def different(self) -> int:
        """How many events have arrived, each counted once."""
        return len(self.events) + len(self.recorded)

    def take(self, content: list[dict[str, object]], session: str, run: int) -> Receipt:
        """Note the events of one request; `session` is "" for events of the log."""
        receipt = Receipt(run)
        for event in content:
            if session:
                place = (session, int(str(event["ei"])))
                self._repeated(self.recorded.get(place), run)
                self.recorded[place] = receipt
            else:
                uid = str(event["uid"])
                self._repeated(self.events.get(uid), run)
                self.events[uid] = receipt
        return receipt

    def _repeated(self, before: Receipt | None, run: int) -> None:
        if before is not None:
            self.repeats[self._why(before, run)] += 1

    def _why(self, before: Receipt, run: int) -> str:
        """Why an event came again: only a lost answer, or an end before the answer was remembered, may be the cause."""
        if before.answered is None:
            return "answer lost"
        if before.run != run and self.ends.get(before.run, 0.0) - before.answered < UNREMEMBERED:
            return "in flight at a kill"
        if any(0.0 <= moment - before.answered < UNREMEMBERED for moment in self.restarts):
            return "answer lost"
        return "unexplained"


class FaultyCollector:
    """Listens on one port of loopback with mutual TLS. The first part of a request's path is the number of the handler's run."""

    def __init__(self, directory: Path, seed: int) -> None:
        self._context: ssl.SSLContext = tls(directory)
        self._dice = random.Random(seed)  # noqa: S311 - faults, no secrets
        self._port = 0
        self._runner: web.AppRunner | None = None
        self.book = Book()

    @property
    def url(self) -> str:
        return f"https://localhost:{self._port}"

    async def start(self) -> None:
        app = web.Application(client_max_size=LARGEST_BODY)
        app.router.add_post("/{run}/{path}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.05)
        await self._runner.setup()
        await web.TCPSite(self._runner, "localhost", self._port, ssl_context=self._context, reuse_address=True).start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def restart_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._dice.uniform(*UP))
            self.book.restarts.append(monotonic())
            await self.stop()
            await asyncio.sleep(self._dice.uniform(*DOWN))
            await self.start()

    async def _handle(self, request: web.Request) -> web.Response:
        content = orjson.loads(await request.read())
        self.book.requests += 1
        fault = self._choose(len(content))
        if fault:
            self.book.faults[fault] += 1
        if fault == "stalled":
            await asyncio.sleep(self._dice.uniform(*STALL))
        if fault in ("500", "429", "413"):
            headers = {"Retry-After": "1"} if fault == "429" else None
            return web.Response(status=int(fault), headers=headers, text="scripted refusal")
        _, _, session = request.match_info["path"].removesuffix(".log").partition("session.")
        receipt = self.book.take(content, session, int(request.match_info["run"]))
        if fault == "answer dropped" and request.transport is not None:
            request.transport.abort()
            return web.Response()
        if fault == "taken, then 500":
            return web.Response(status=500, text="scripted failure after taking")
        receipt.answered = monotonic()
        return web.Response()

    def _choose(self, events: int) -> str:
        roll = self._dice.uniform(0.0, 100.0)
        for fault, share in FAULTS.items():
            roll -= share
            if roll < 0.0:
                return "" if fault == "413" and events == 1 else fault  # of a single event it would be a refusal for good
        return ""
