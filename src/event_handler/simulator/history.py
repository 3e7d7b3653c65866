"""Fills the simulated audit log: events of the past at the start, new ones as time passes."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from pathlib import Path
from time import monotonic, time

from event_handler.simulator.back_ends import BACK_ENDS
from event_handler.simulator.events import Generator
from event_handler.simulator.log import AuditLog, day_of

DAY = 86_400.0
QUIET = 30.0  # seconds before now in which no event of the past is placed, so that history and live events do not mix
LIVE_CHUNK_EVERY = 1.0  # seconds; a real cluster closes a chunk after a minute
QUICK = 100  # live events a second from which they come in small portions, as copies of a few
QUICK_TICK = 0.1  # seconds between two such portions
MODELS = 200  # events that they are copies of, where `distinct` allows copies


def build(options: argparse.Namespace) -> tuple[AuditLog, Generator]:
    """Make the log: `events` over `days`, some of them in sessions with a recording, cut into chunks."""
    generator = Generator(options.cluster, options.seed)
    log = AuditLog(seed=options.seed, back_end=BACK_ENDS[options.back_end]())
    begin = time() - options.days * DAY
    span = options.days * DAY - QUIET
    for number in range(options.sessions):
        sid, announced, recording = generator.session(
            begin + span * number / options.sessions * 0.99, uploaded=number % 4 != 3
        )
        log.events += announced
        late = options.late_recordings if number % 3 == 0 else 0.0
        log.recordings[sid] = (time() + late if late else 0.0, recording)
    rest = options.events - len(log.events)
    distinct = min(options.distinct or rest, rest)
    times = [begin + span * number / max(1, rest) for number in range(rest)]
    models = [generator.event(time) for time in times[:distinct]]
    log.events += models
    log.events += [generator.again(models[number % distinct], times[number]) for number in range(distinct, rest)]
    if options.large_event:
        log.events.append(generator.large_event(begin + span / 2, options.large_event))
    log.events.sort(key=lambda event: (event.time, event.id))
    log.cut_chunks(
        options.chunk, late=options.late_chunks, late_seconds=options.late_seconds, duplicates=options.duplicates
    )
    return log, generator


def write_manifest(log: AuditLog, directory: Path) -> None:
    """Write `manifest.json`, what a perfect reader delivers: ids of all events, and per session how many its recording
    has.
    """
    facts = {
        "events": [event.id for event in log.events],
        "recordings": {sid: len(events) for sid, (_, events) in log.recordings.items()},
    }
    temporary = directory / "manifest.json.new"
    temporary.write_text(json.dumps(facts))
    temporary.replace(directory / "manifest.json")


async def live(log: AuditLog, generator: Generator, options: argparse.Namespace) -> None:
    """Add events as time passes, for `live_seconds` (0 = for ever), and append their ids to the file `live.ids`."""
    rate, bulk = options.live, options.mode == "bulk"
    tick = LIVE_CHUNK_EVERY if bulk or rate < QUICK else QUICK_TICK
    models = [generator.event(time()) for _ in range(min(options.distinct, MODELS))] if rate >= QUICK else []
    end = time() + options.live_seconds if options.live_seconds else float("inf")
    due, made = monotonic(), 0
    with (options.directory / "live.ids").open("a") as file:
        while time() < end:
            due += tick
            await asyncio.sleep(max(0.0, due - monotonic()))
            made += rate * tick
            count = int(made) if rate >= 1.0 else int(random.random() < rate * tick)
            made -= count
            moment, step = time(), min(1e-3, tick / max(count, 1))
            times = [moment + number * step for number in range(count)]
            if models:
                events = [generator.again(models[number % len(models)], at) for number, at in enumerate(times)]
            else:
                events = [generator.event(at) for at in times]
            for event in events:
                log.add(event)
            if bulk and events:
                log.add_chunk(day_of(moment), events)
            file.write("".join(f"{event.id}\n" for event in events))
            file.flush()
