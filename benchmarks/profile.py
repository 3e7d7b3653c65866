"""Where the handler's CPU goes: samples its stack while it delivers a log, and tells microseconds an event by part and
by function.

A sample is taken at every tick of the process's CPU clock, between two byte codes: time inside a C function counts for
the line that called it. Sampling makes a run some percent dearer, but does not slow Python code more than C code as a
tracing profiler would.
"""

from __future__ import annotations

import argparse
import asyncio
import linecache
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import process_time
from types import CodeType, FrameType
from typing import Any

from benchmarks import flame, stage

TICK = 0.004  # seconds of CPU between samples; the kernel's own tick is up to 10 ms
TOP = 15
EVENTS = 200_000

# The first entry that is part of a file's path names the part of the program; the innermost frame that has one decides.
PARTS = (
    ("/teleport/wire/", "select, decoding"),
    ("/teleport/", "cluster client"),
    ("/grpclib/", "reading: grpclib, h2"),
    ("/h2/", "reading: grpclib, h2"),
    ("/hpack/", "reading: grpclib, h2"),
    ("/hyperframe/", "reading: grpclib, h2"),
    ("/pipeline/dedup.py", "duplicate window"),
    ("/pipeline/select.py", "select, decoding"),
    ("/pipeline/", "batching, acknowledging"),
    ("/runtime/fan_out.py", "fan-out"),
    ("/sources/", "sources"),
    ("/state/", "SQLite"),
    ("/sinks/", "sending: HTTP"),
    ("/aiohappyeyeballs/", "sending: HTTP"),
)
# A line that calls into C belongs to what it calls, wherever it stands.
CALLS = (("orjson.", "orjson"), ("_selector.select(", "select, decoding"))
TLS = {"H2Protocol": "reading: TLS", "ResponseHandler": "sending: TLS"}  # by the protocol on top of the TLS session

Line = tuple[CodeType, int]  # where a frame was
Stack = tuple[Line, ...]  # innermost first


class Sampler:
    """Counts the stacks of the main thread; `parts` counts samples by part of the program."""

    def __init__(self) -> None:
        self.stacks: Counter[Stack] = Counter()
        self.parts: Counter[str] = Counter()

    def start(self) -> None:
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, TICK, TICK)

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0.0)

    def _sample(self, _: int, frame: FrameType | None) -> None:
        self.parts[part_of(frame)] += 1
        stack: list[Line] = []
        while frame is not None:
            stack.append((frame.f_code, frame.f_lineno or 0))
            frame = frame.f_back
        self.stacks[tuple(stack)] += 1


def part_of(frame: FrameType | None) -> str:
    """The part of the program that the innermost known frame belongs to."""
    if frame is not None:
        text = linecache.getline(frame.f_code.co_filename, frame.f_lineno or 0)  # byte code of no line has None
        for call, part in CALLS:
            if call in text:
                return part
    while frame is not None:
        path = frame.f_code.co_filename
        if path.endswith("/asyncio/sslproto.py"):
            session: Any = frame.f_locals.get("self")
            return TLS.get(type(getattr(session, "_app_protocol", None)).__name__, "TLS")
        for piece, part in PARTS:
            if piece in path:
                return part
        frame = frame.f_back
    return "event loop and start"


def label(code: CodeType) -> str:
    """`package/file.py:function`, without what differs between machines."""
    path = Path(code.co_filename)
    return f"{path.parent.name}/{path.name}:{code.co_qualname}"


def write_collapsed(stacks: Counter[Stack], path: Path) -> None:
    """One line a stack, outermost first, with its count: what speedscope.app and flamegraph.pl read."""
    lines: Counter[str] = Counter()
    for stack, count in stacks.items():
        lines[";".join(label(code) for code, _ in reversed(stack))] += count
    path.write_text("".join(f"{line} {count}\n" for line, count in lines.items()))


def own_time(stacks: Counter[Stack]) -> Counter[str]:
    """Samples by function, counted where the stack ends."""
    own: Counter[str] = Counter()
    for stack, count in stacks.items():
        own[label(stack[0][0])] += count
    return own


def sampled(output: Path, arguments: list[str]) -> None:
    """Run the event handler's command line in this process, sampled, and write stacks and parts into `output`."""
    from event_handler.cli import main

    sampler = Sampler()
    sys.argv = ["teleport-event-handler", *arguments]
    begin = process_time()
    sampler.start()
    try:
        main()
    finally:
        sampler.stop()
        (output / "cpu").write_text(str(process_time() - begin))
        write_collapsed(sampler.stacks, output / "profile.collapsed")
        for name, counts in (("parts", sampler.parts), ("functions", own_time(sampler.stacks))):
            (output / name).write_text("".join(f"{count} {what}\n" for what, count in counts.most_common()))


async def profile(mode: str, form: str, events: int, delay_ms: float, directory: Path) -> float:
    """Deliver `events`, sampled; return the CPU of all that was sampled, in microseconds an event."""
    async with (
        stage.cluster(directory / "cluster", mode, events) as cluster,
        stage.collector(directory / "collector", f"--expect={events}", f"--delay-ms={delay_ms}") as (collector, url),
    ):
        options = stage.handler_options(directory, cluster, url, form, events)
        command = ["benchmarks.profile", f"--sample-into={directory}", *options, "--exit-on-last-event"]
        async with stage.handler(command) as handler:
            await handler.until(asyncio.create_task(collector.line()))
            if await handler.process.wait():
                raise handler.failed()
    return float((directory / "cpu").read_text()) / events * 1e6


def report(title: str, counts: str, cost: float) -> None:
    found = [line.partition(" ") for line in counts.splitlines()]
    total = sum(int(count) for count, _, _ in found)
    rows = [[what, f"{int(count) / total:.1%}", f"{int(count) / total * cost:.1f}"] for count, _, what in found[:TOP]]
    stage.show(title, ["where", "share", "µs/event"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("--mode", choices=["bulk", "search"], default="bulk", help="how the log is read")
    parser.add_argument("--format", choices=["array", "single"], default="array", help="how it is delivered")
    parser.add_argument("--events", type=int, default=EVENTS, help="events to deliver; more is steadier")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="milliseconds before each answer of the collector")
    parser.add_argument(
        "--output", type=Path, default=Path("profile.collapsed"), help="file of stacks for speedscope.app"
    )
    parser.add_argument(
        "--flame", type=Path, default=Path("profile.svg"), help="file of the flame graph, for a browser"
    )
    parser.add_argument(
        "--sample-into", type=Path, help="run the event handler with the arguments that follow, sampled"
    )
    options, rest = parser.parse_known_args()
    if options.sample_into:
        sampled(options.sample_into, rest)
        return
    with tempfile.TemporaryDirectory() as directory:
        cost = asyncio.run(profile(options.mode, options.format, options.events, options.delay_ms, Path(directory)))
        report(
            f"By part, {options.mode}/{options.format}, {cost:.0f} µs/event",
            (Path(directory) / "parts").read_text(),
            cost,
        )
        report("By function, own time", (Path(directory) / "functions").read_text(), cost)
        stacks = (Path(directory) / "profile.collapsed").read_text()
    options.output.write_text(stacks)
    options.flame.write_text(flame.draw(stacks))
    stage.console.print(
        f"The flame graph is {options.flame}; the stacks are in {options.output}, for https://www.speedscope.app."
    )


if __name__ == "__main__":
    main()
