"""The benchmarks run: a small log through the real processes, so that they do not rot between measurements."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="CPU and memory of a process are read from /proc")


async def run(module: str, *arguments: str) -> str:
    command = (sys.executable, "-m", f"benchmarks.{module}", *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2])
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


async def test_throughput_delivers_every_event_once_and_counts_what_it_cost(tmp_path: Path) -> None:
    table = await run("throughput", "--events=1000", "--only=array-0ms", f"--json={tmp_path / 'results.json'}")
    results = json.loads((tmp_path / "results.json").read_text())
    assert [result["case"] for result in results] == ["bulk-array-0ms", "search-array-0ms"]
    for result in results:
        assert result["case"] in table
        assert result["events"] == result["delivered"] == 1000
        assert result["rate"] > 0
        assert result["peak"] > 10_000_000


async def test_the_soak_loses_nothing_in_a_short_life_too() -> None:
    table = await run("soak", "--way=tunnel", "--seconds=6", "--events=5600")
    assert [cell.strip() for cell in table.strip().splitlines()[-1].split("|")][3:5] == ["0", "0"]
