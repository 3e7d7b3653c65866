"""Everything fails at once, and the real process is killed again and again: is every event delivered, and each repeat
explained?
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import shutil
import sqlite3
import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import orjson

from benchmarks import stage
from benchmarks.faulty_collector import Book, FaultyCollector, Memory

EVENTS = 200_000
RECORDINGS = 300
KILLS = 40
LATE = 15.0  # seconds until the late chunks and recordings exist
# seconds from the connection to the kill at most; it comes earlier when the run has brought its share of the events
ALIVE = 1.5
LOOK_EVERY = 0.005  # seconds between looks at what has arrived
STARTING = (0.0, 0.6)  # seconds from the start to a kill that comes before the connection
KILLED_WHILE_STARTING = 0.1  # share of the kills
PATIENCE = 600.0  # seconds that the last run, which is not killed, may take to bring the rest
CALM = 1.0  # seconds without anything new before the last run is ended: repeats would come in that time
FAULTS = {
    "bulk": ("--unavailable-every=9001", "--late-chunks=3", "--duplicates=0.02", "--cut-every=3"),
    "search": ("--invalid-every=50", "--cut-every=3"),
}


@dataclass(slots=True)
class Outcome:
    """What one mode came to. `peaks` are the largest resident memory of each run of the handler, in bytes."""

    mode: str
    events: int
    recorded: int
    lost_events: int = 0
    lost_recorded: int = 0
    kills: int = 0
    seconds: float = 0.0
    peaks: list[int] = field(default_factory=list)
    book: Book = field(default_factory=Book)

    @property
    def failed(self) -> bool:
        return bool(self.lost_events or self.lost_recorded or self.book.repeats["unexplained"])


@dataclass(frozen=True, slots=True)
class Expected:
    """What a perfect reader delivers."""

    events: frozenset[str]
    recordings: dict[str, int]

    def missing(self, book: Book) -> tuple[int, int]:
        """How many events of the log, and of recordings, have not arrived."""
        return len(self.events - book.events), sum(self.recordings.values()) - book.recorded


def expected(manifest: Path) -> Expected:
    content = orjson.loads(manifest.read_bytes())
    return Expected(frozenset(content["events"]), content["recordings"])


class Chaos:
    """One mode: a cluster with faults, a faulty collector in this process, and one run of the handler after the
    other.
    """

    def __init__(self, mode: str, options: argparse.Namespace, directory: Path) -> None:
        self._mode = mode
        self._options = options
        self._directory = directory
        self._dice = random.Random(options.seed)  # noqa: S311 - moments of kills, no secrets
        files = directory / "collector"
        files.mkdir()
        self._collector = FaultyCollector(files, options.seed)
        self._run = 0

    async def run(self) -> Outcome:
        faults = [
            *FAULTS[self._mode],
            f"--late-recordings={self._options.late}",
            f"--late-seconds={self._options.late}",
        ]
        sessions = (f"--sessions={self._options.recordings}", f"--seed={self._options.seed}")
        chunk = min(stage.CHUNK, self._options.events // 10)
        directory = self._directory / "cluster"
        async with stage.cluster(
            directory, self._mode, self._options.events, *sessions, *faults, chunk=chunk
        ) as cluster:
            wanted = expected(directory / "manifest.json")
            outcome = Outcome(
                self._mode, len(wanted.events), sum(wanted.recordings.values()), book=self._collector.book
            )
            await self._collector.start()
            restarting = asyncio.create_task(self._collector.restart_for_ever())
            begin, command = monotonic(), self._command(cluster)
            try:
                for _ in range(self._options.kills):
                    await self._until_killed(command, outcome)
                await self._until_complete(command, outcome, wanted)
            finally:
                restarting.cancel()
                await asyncio.gather(restarting, return_exceptions=True)
                await self._collector.stop()
            outcome.seconds = monotonic() - begin
            outcome.lost_events, outcome.lost_recorded = wanted.missing(self._collector.book)
        return outcome

    def _command(self, cluster: dict[str, Any]) -> list[str]:
        """The same for every run (a storage keeps its start time), but the run's number in the URLs."""
        options = stage.handler_options(self._directory, cluster, self._collector.url, "array", self._options.events)
        options.remove("--no-session-recordings")
        return ["event_handler", *options, "--skip-session-types=", "--poll-interval=300ms"]

    def _next_run(self, command: list[str]) -> list[str]:
        self._run += 1
        url = self._collector.url
        return [option.replace(url, f"{url}/{self._run}") for option in command]

    async def _until_killed(self, command: list[str], outcome: Outcome) -> None:
        async with stage.handler(self._next_run(command)) as handler:
            if self._dice.random() < KILLED_WHILE_STARTING:
                await asyncio.sleep(self._dice.uniform(*STARTING))
            else:
                await handler.until(asyncio.create_task(handler.connected.wait()))
                await self._brought(
                    self._dice.random() * 2 * (outcome.events + outcome.recorded) / (self._options.kills + 1)
                )
            if handler.process.returncode is not None:
                raise handler.failed()
            outcome.peaks.append(stage.look_at(handler.process.pid).peak)
            handler.process.kill()
            killed = monotonic()
            await handler.process.wait()
            self._collector.book.killed(self._run, killed, left_behind(self._directory / "storage"))
            outcome.kills += 1

    async def _brought(self, events: float) -> None:
        """Wait until so many events have come in this run, at most as long as it may live."""
        end, enough = monotonic() + ALIVE, len(self._collector.book.taken) + events
        while len(self._collector.book.taken) < enough and monotonic() < end:
            await asyncio.sleep(LOOK_EVERY)

    async def _until_complete(self, command: list[str], outcome: Outcome, wanted: Expected) -> None:
        """Let the handler bring the rest. What is missing after PATIENCE counts as lost."""
        async with stage.handler(self._next_run(command)) as handler:
            await handler.until(asyncio.create_task(handler.connected.wait()))
            end = monotonic() + PATIENCE
            while any(wanted.missing(self._collector.book)) and monotonic() < end:
                await asyncio.sleep(0.2)
                if handler.process.returncode is not None:
                    raise handler.failed()
            await asyncio.sleep(CALM)
            outcome.peaks.append(stage.look_at(handler.process.pid).peak)
            handler.process.terminate()
            if await handler.process.wait():
                raise handler.failed()


def left_behind(storage: Path) -> Memory:
    """Read the state of a killed handler, from a copy: opening it would change what the next run finds."""
    states = list(storage.glob("*/fluentd/state.db"))
    if not states:
        return Memory()  # killed before it had one
    with tempfile.TemporaryDirectory() as directory:
        for file in states[0].parent.glob("state.db*"):
            shutil.copy(file, directory)
        with closing(sqlite3.connect(Path(directory) / "state.db")) as state:
            groups = [row[0] for row in state.execute("SELECT ids FROM delivered")]
            indexes = dict(state.execute("SELECT session_id, next_index FROM recordings WHERE next_index OR done"))
    return Memory(frozenset(group[at : at + 8] for group in groups for at in range(0, len(group), 8)), indexes)


def report(outcomes: list[Outcome]) -> None:
    columns = ["", *(outcome.mode for outcome in outcomes)]
    lines = {
        "events": [f"{o.events:,}" for o in outcomes],
        "of recordings": [f"{o.recorded:,}" for o in outcomes],
        "**lost**": [f"{o.lost_events + o.lost_recorded:,}" for o in outcomes],
        "kills": [str(o.kills) for o in outcomes],
        "collector restarts": [str(o.book.restarts) for o in outcomes],
        "requests": [f"{o.book.requests:,}" for o in outcomes],
    }
    for fault in sorted({fault for o in outcomes for fault in o.book.faults}):
        lines[f"requests: {fault}"] = [str(o.book.faults[fault]) for o in outcomes]
    for why in ("answer lost", "in flight at a kill", "unexplained"):
        lines[f"repeated: {why}"] = [f"{o.book.repeats[why]:,}" for o in outcomes]
    lines["longest from an answer to a kill, unremembered, ms"] = [f"{o.book.slowest * 1e3:.0f}" for o in outcomes]
    lines["peak MB, median run"] = [f"{sorted(o.peaks)[len(o.peaks) // 2] / 1e6:.0f}" for o in outcomes]
    lines["peak MB, largest run"] = [f"{max(o.peaks) / 1e6:.0f}" for o in outcomes]
    lines["seconds"] = [f"{o.seconds:.0f}" for o in outcomes]
    stage.show("Chaos", columns, [[name, *values] for name, values in lines.items()])


async def run(options: argparse.Namespace) -> list[Outcome]:
    outcomes = []
    for mode in [options.mode] if options.mode else list(FAULTS):
        with tempfile.TemporaryDirectory() as directory:
            outcomes.append(await Chaos(mode, options, Path(directory)).run())
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS, help="events of the log")
    parser.add_argument("--recordings", type=int, default=RECORDINGS, help="sessions with a recording")
    parser.add_argument("--kills", type=int, default=KILLS, help="how often the handler is killed")
    parser.add_argument("--late", type=float, default=LATE, help="seconds until late chunks and recordings exist")
    parser.add_argument(
        "--mode", choices=list(FAULTS), help="how the log is read; both ways, one after the other, without it"
    )
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(10**6), help="of the events, the faults and the kills"
    )
    options = parser.parse_args()
    stage.console.print(f"--seed {options.seed}")
    outcomes = asyncio.run(run(options))
    report(outcomes)
    if any(outcome.failed for outcome in outcomes):
        sys.exit("events were lost, or came again without a reason; run it again with the same --seed")


if __name__ == "__main__":
    main()
