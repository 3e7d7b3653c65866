"""A collector that drops answers, fails, stalls and restarts, and keeps a book of what it took and why something
came twice.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import orjson
from aiohttp import web

from benchmarks.collector import tls
from event_handler.event import fingerprint

LARGEST_BODY = 32 * 1024 * 1024  # bytes
REMEMBERED_WITHIN = (
    0.5  # seconds from an answer; the handler commits at once (0.09 was measured), unless it does not get a core
)
STALL = (0.5, 2.0)  # seconds, from and to
DOWN = (0.2, 1.0)  # seconds that a restart takes, from and to
UP = (3.0, 8.0)  # seconds between two restarts, from and to
# What happens to so many of a hundred requests; the others are taken and answered.
FAULTS = {"answer dropped": 4, "taken, then 500": 2, "500": 3, "429": 2, "413": 2, "stalled": 2}


Place = str | tuple[str, int]


@dataclass(slots=True)
class Receipt:
    """One request whose events were taken: by which run of the handler, and when its answer had been sent (None:
    never).
    """

    run: int
    answered: float | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """What the state of a killed handler holds: fingerprints of delivered events, and of each recording the last index
    delivered.
    """

    marks: frozenset[bytes] = frozenset()
    indexes: dict[str, int] = field(default_factory=dict)

    def has(self, place: Place) -> bool:
        if isinstance(place, str):
            return fingerprint(place) in self.marks
        return place[1] <= self.indexes.get(place[0], -1)


@dataclass(slots=True)
class Book:
    """What arrived, by place: the id of an event of the log, session and index of one of a recording.

    `ends` holds when a run of the handler was killed, in seconds of the monotonic clock; `forgotten` what it had an
    answer for and did not remember, `slowest` the longest time in seconds from such an answer to the kill.
    """

    taken: dict[Place, Receipt] = field(default_factory=dict)
    ends: dict[int, float] = field(default_factory=dict)
    forgotten: set[Place] = field(default_factory=set)
    slowest: float = 0.0
    restarts: int = 0
    repeats: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    requests: int = 0

    @property
    def events(self) -> set[str]:
        """Ids of the events of the log that have arrived."""
        return {place for place in self.taken if isinstance(place, str)}

    @property
    def recorded(self) -> int:
        """How many events of recordings have arrived, each counted once."""
        return sum(not isinstance(place, str) for place in self.taken)

    def take(self, content: list[dict[str, object]], session: str, run: int) -> Receipt:
        """Note the events of one request; `session` is "" for events of the log."""
        receipt = Receipt(run)
        for event in content:
            place: Place = (session, int(str(event["ei"]))) if session else str(event["uid"])
            before = self.taken.get(place)
            if before is not None:
                self.repeats[self._why(place, before, run)] += 1
            if before is None or before.run <= run:
                self.taken[place] = receipt
        return receipt

    def killed(self, run: int, moment: float, memory: Memory) -> None:
        """Note which events of a run were answered for, and are not in the `memory` that it left."""
        self.ends[run] = moment
        for place, receipt in self.taken.items():
            if receipt.run == run and receipt.answered is not None and not memory.has(place):
                self.forgotten.add(place)
                self.slowest = max(self.slowest, moment - receipt.answered)

    def _why(self, place: Place, before: Receipt, run: int) -> str:
        """Why an event came again: only when the handler had no answer, or could not yet remember it, may it send the
        event twice.
        """
        if run in self.ends:
            return "in flight at a kill"  # the request of a killed run, read only now
        if before.answered is None:
            return "answer lost"
        end = self.ends.get(before.run)
        if end is None:
            return "unexplained"
        if before.answered >= end:
            return "in flight at a kill"  # nobody was there any more to read the answer
        if place in self.forgotten and end - before.answered < REMEMBERED_WITHIN:
            return "in flight at a kill"
        return "unexplained"


class FaultyCollector:
    """Listens on one port of loopback with mutual TLS.

    The first part of a request's path is the number of the handler's run.
    """

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
            self.book.restarts += 1
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
        answer = web.Response()
        with suppress(ConnectionResetError):  # the handler was killed meanwhile
            await answer.prepare(request)
            await answer.write_eof()
            receipt.answered = monotonic()
        return answer

    def _choose(self, events: int) -> str:
        roll = self._dice.uniform(0.0, 100.0)
        for fault, share in FAULTS.items():
            roll -= share
            if roll < 0.0:
                return (
                    "" if fault == "413" and events == 1 else fault
                )  # of a single event it would be a refusal for good
        return ""
