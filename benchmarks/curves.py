"""Draws how the knobs matter: one SVG for each, events/s (or memory) over the values of an option, a line for each
collector.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pygal

from benchmarks import stage
from benchmarks.throughput import Case, Result, measure

SCRIPT = re.compile(
    rb"<script.*?</script>", re.DOTALL
)  # for tooltips, which a page that shows the file as a picture never runs
SECONDS = 2.0  # of a run, about


@dataclass(frozen=True, slots=True)
class Curve:
    """An option and its `values`; `events` a run, a line for each delay in ms."""

    name: str
    title: str
    option: str
    values: tuple[int, ...]
    mode: str
    form: str
    delays: tuple[int, ...]
    events: int
    memory: bool = False

    def enough(self, value: int, delay: int) -> int:
        """Events for a run of some seconds, where the collector's answers set the pace."""
        if self.memory or not delay:
            return self.events
        a_request = 1 if self.form == "single" else 500
        return min(self.events, max(50, round(a_request * value * 1000 * SECONDS / delay)))


CURVES = [
    Curve(
        "requests-single",
        "one event a request",
        "fluentd-max-connections",
        (1, 4, 8, 16, 32, 64, 128),
        "bulk",
        "single",
        (5, 25, 100),
        2_000,
    ),
    Curve(
        "requests-array",
        "500 events a request",
        "fluentd-max-connections",
        (1, 2, 4, 8, 16, 32),
        "bulk",
        "array",
        (25, 100, 400),
        60_000,
    ),
    Curve("page", "events of a search page", "batch", (20, 100, 500, 2_000, 10_000), "search", "array", (0,), 30_000),
    Curve(
        "memory",
        "bytes in flight and peak memory",
        "max-in-flight-bytes",
        (1, 2, 4, 8, 16, 32, 64),
        "bulk",
        "array",
        (25, 400),
        60_000,
        memory=True,
    ),
]


async def point(curve: Curve, value: int, delay: int) -> Result:
    given = value * 1024 * 1024 if curve.memory else value
    with tempfile.TemporaryDirectory() as directory:
        case = Case(curve.mode, curve.form, delay, 1.0)
        return await measure(case, curve.enough(value, delay), 1.0, Path(directory), f"--{curve.option}={given}")


async def draw(curve: Curve, directory: Path) -> None:
    chart = pygal.Line(
        title=f"--{curve.option}: {curve.title}",
        x_title="MiB" if curve.memory else "",
        y_title="peak memory, MB" if curve.memory else "events/s",
        width=760,
        height=420,
        include_x_axis=True,
        truncate_legend=-1,
        legend_at_bottom=True,
    )
    chart.config.css.append("inline:svg { font-family: sans-serif }")
    chart.config.js = []
    chart.x_labels = [f"{value:,}" for value in curve.values]
    for delay in curve.delays:
        results = [await point(curve, value, delay) for value in curve.values]
        heights = [result.peak / 1e6 if curve.memory else result.rate for result in results]
        chart.add(f"answer after {delay} ms", [round(height) for height in heights])
        stage.console.print(
            f"{curve.name}, {delay} ms: "
            + ", ".join(f"{v}: {h:,.0f}" for v, h in zip(curve.values, heights, strict=True))
        )
    (directory / f"{curve.name}.svg").write_bytes(SCRIPT.sub(b"", chart.render()) + b"\n")


async def run(options: argparse.Namespace) -> None:
    options.output.mkdir(parents=True, exist_ok=True)
    for curve in CURVES:
        if options.only in curve.name:
            await draw(curve, options.output)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curves", description=__doc__)
    parser.add_argument("--only", default="", help="draw only the curves whose name contains this")
    parser.add_argument("--output", type=Path, default=Path("docs/pictures"), help="directory of the SVG files")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
