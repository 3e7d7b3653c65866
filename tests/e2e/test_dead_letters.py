"""A run to the last event with events that the collector refuses: it ends, they are kept, and the next run sends them
as asked.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Collector
from tests.e2e.processes import configuration, handler, simulated

EVENTS = 3000
EVERY = 20  # so many events of which one is refused


async def run_to_the_end(config: Path) -> None:
    process = await handler(config, "--exit-on-last-event")
    async with asyncio.timeout(60):
        _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()[-2000:]


async def dead_letter(config: Path, *words: str) -> str:
    command = (sys.executable, "-m", "event_handler", "dead-letter", *words, f"--config={config}")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


async def letters(config: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (await dead_letter(config, "list", "--json")).splitlines()]


@pytest.mark.parametrize("mode", ["bulk", "search"])
async def test_it_ends_with_letters_that_are_listed_and_the_next_run_delivers_those_that_were_asked_for(
    tmp_path: Path, collector: Collector, mode: str
) -> None:
    async with simulated(tmp_path / "sim", f"--mode={mode}", f"--events={EVENTS}", "--sessions=0") as ready:
        manifest = json.loads((tmp_path / "sim" / "manifest.json").read_text())
        collector.refused = frozenset(manifest["events"][::EVERY])
        config = configuration(tmp_path, ready, collector)
        await run_to_the_end(config)
        assert sorted(collector.ids().elements()) == sorted(set(manifest["events"]) - collector.refused)
        kept = await letters(config)
        assert {letter["event"]["uid"] for letter in kept} == collector.refused
        assert {letter["reason"] for letter in kept} == {"the receiver answered 400 scripted refusal"}
        assert len((await dead_letter(config, "list")).splitlines()) == len(kept)

        collector.refused = frozenset()
        assert await dead_letter(config, "retry", "--all") == f"{len(kept)} of sim.test/fluentd will be sent again\n"
        await run_to_the_end(config)
        assert sorted(collector.ids().elements()) == sorted(manifest["events"])
        assert await letters(config) == []
