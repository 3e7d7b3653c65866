"""Runs a simulated cluster as a process of its own, so that either side can be killed."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
from pathlib import Path
from time import time

from event_handler.simulator.certificates import write_cluster_files
from event_handler.simulator.events import Generator
from event_handler.simulator.log import AuditLog, day_of
from event_handler.simulator.server import AuthServer, Faults

DAY = 86_400.0
QUIET = 30.0  # seconds before now in which no event of the past is placed, so that history and live events do not mix
LIVE_CHUNK_EVERY = 1.0  # seconds; a real cluster closes a chunk after a minute


def build(options: argparse.Namespace) -> tuple[AuditLog, Generator]:
    """Make the log: `events` over `days`, some of them in sessions with a recording, cut into chunks."""
    generator = Generator(options.cluster, options.seed)
    log = AuditLog(seed=options.seed)
    begin = time() - options.days * DAY
    span = options.days * DAY - QUIET
    for number in range(options.sessions):
        sid, announced, recording = generator.session(begin + span * number / options.sessions * 0.99, uploaded=number % 4 != 3)
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
    log.cut_chunks(options.chunk, late=options.late_chunks, late_seconds=options.late_seconds, duplicates=options.duplicates)
    return log, generator


def manifest(log: AuditLog) -> dict[str, object]:
    """What a perfect reader delivers: ids of all events, and per session the number of events of its recording."""
    return {
        "events": [event.id for event in log.events],
        "recordings": {sid: len(events) for sid, (_, events) in log.recordings.items()},
    }


async def live(log: AuditLog, generator: Generator, options: argparse.Namespace) -> None:
    """Add events as time passes, for `live_seconds` (0 = for ever), and append their ids to the file `live.ids`."""
    rate, bulk = options.live, options.mode == "bulk"
    end = time() + options.live_seconds if options.live_seconds else float("inf")
    with (options.directory / "live.ids").open("a") as file:
        while time() < end:
            await asyncio.sleep(LIVE_CHUNK_EVERY)
            count = int(rate * LIVE_CHUNK_EVERY) or int(random.random() < rate * LIVE_CHUNK_EVERY)
            moment = time()
            events = [generator.event(moment + number * 1e-3) for number in range(count)]
            for event in events:
                log.add(event)
            if bulk and events:
                log.add_chunk(day_of(moment), events)
            file.write("".join(f"{event.id}\n" for event in events))
            file.flush()


async def serve(options: argparse.Namespace) -> None:
    directory: Path = options.directory
    if not (directory / "identity").exists():
        write_cluster_files(directory, options.cluster)
    log, generator = build(options)
    temporary = directory / "manifest.json.new"
    temporary.write_text(json.dumps(manifest(log)))
    temporary.replace(directory / "manifest.json")
    bulk = options.mode == "bulk"
    auth = AuthServer(log, cluster=options.cluster, bulk=bulk, faults=Faults(options.unavailable_every))
    server, port = await auth.start(directory, "127.0.0.1", options.port)
    ready = {"address": f"127.0.0.1:{port}", "identity": str(directory / "identity"), "cluster": options.cluster}
    print(json.dumps(ready | {"events": len(log.events), "recordings": len(log.recordings)}), flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    adding = asyncio.create_task(live(log, generator, options)) if options.live else None
    await stop.wait()
    if adding is not None:
        adding.cancel()
    server.close()
    await server.wait_closed()


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m event_handler.simulator", description=__doc__)
    made.add_argument("--directory", type=Path, required=True, help="where credentials and the manifest are written")
    made.add_argument("--port", type=int, default=0, help="port on loopback, 0 takes a free one")
    made.add_argument("--cluster", default="sim.test", help="name of the cluster")
    made.add_argument("--mode", choices=["bulk", "search"], default="bulk", help="which back end to be")
    made.add_argument("--events", type=int, default=5000, help="events of the past")
    made.add_argument("--distinct", type=int, default=0, help="events made one by one, the rest are copies with own ids (0 = all)")
    made.add_argument("--sessions", type=int, default=10, help="sessions among them, each with a recording")
    made.add_argument("--days", type=float, default=2.0, help="days that the past events are spread over")
    made.add_argument("--chunk", type=int, default=500, help="events of a chunk")
    made.add_argument("--seed", type=int, default=1, help="the same seed makes the same events")
    made.add_argument("--live", type=float, default=0.0, help="new events a second")
    made.add_argument("--live-seconds", type=float, default=0.0, help="how long new events come, 0 = for ever")
    made.add_argument("--late-chunks", type=int, default=0, help="chunks of past days that appear later")
    made.add_argument("--late-seconds", type=float, default=3.0, help="how much later")
    made.add_argument("--late-recordings", type=float, default=0.0, help="seconds until every third recording exists")
    made.add_argument("--duplicates", type=float, default=0.0, help="share of the events that stand in two chunks")
    made.add_argument("--unavailable-every", type=int, default=0, help="exported events between two outages in mid-stream")
    made.add_argument("--large-event", type=int, default=0, help="bytes of one event that is larger than all others (bulk only)")
    return made


def main() -> None:
    made = parser()
    options = made.parse_args()
    if options.large_event and options.mode != "bulk":
        made.error("--large-event needs --mode bulk: a search page holds 1 MiB")
    asyncio.run(serve(options))


if __name__ == "__main__":
    main()
