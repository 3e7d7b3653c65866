"""The benchmarks run: a small log through the real processes, so that they do not rot between measurements."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from benchmarks import flame

from event_handler.simulator.pace import BURST

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="CPU and memory of a process are read from /proc")


def parsed(picture: str) -> ElementTree.Element:
    return ElementTree.fromstring(picture)  # noqa: S314 - drawn by ourselves


async def run(module: str, *arguments: str) -> str:
    command = (sys.executable, "-m", f"benchmarks.{module}", *arguments)
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


@pytest.mark.soak
async def test_throughput_delivers_every_event_once_and_counts_what_it_cost(tmp_path: Path) -> None:
    table = await run(
        "throughput", "--events=1000", "--only=array-0ms", "--runs=2", f"--json={tmp_path / 'results.json'}"
    )
    results = json.loads((tmp_path / "results.json").read_text())
    assert [result["case"] for result in results] == ["bulk-array-0ms", "search-array-0ms"]
    for result in results:
        assert result["case"] in table
        assert result["events"] == result["delivered"] == 1000
        assert result["rate"] > 0
        assert result["peak"] > 10_000_000


@pytest.mark.soak
async def test_at_the_pace_of_a_real_cluster_not_even_bare_reading_is_faster(tmp_path: Path) -> None:
    table = await run(
        "throughput", "--events=3000", "--only=array-0ms", "--real-pace", f"--json={tmp_path / 'results.json'}"
    )
    assert "bulk 40,900, search 34,400" in table
    assert "of the pace" in table
    for result in json.loads((tmp_path / "results.json").read_text()):
        assert result["delivered"] == 3000
        assert result["reading"] < 3000 / (3000 / result["pace"] - BURST)


@pytest.mark.soak
async def test_the_profile_draws_what_it_sampled(tmp_path: Path) -> None:
    stacks, picture = tmp_path / "stacks", tmp_path / "flame.svg"
    table = await run("profile", "--events=5000", f"--output={stacks}", f"--flame={picture}")
    assert "sending: HTTP" in table
    samples = sum(int(line.rpartition(" ")[2]) for line in stacks.read_text().splitlines())
    assert flame.tree(stacks.read_text()).samples == samples > 0
    titles = [element.text for element in parsed(picture.read_text()).iter("{http://www.w3.org/2000/svg}title")]
    assert titles[0] == "all: 100.0%"
    assert any("event_handler/" in str(title) or "cli/" in str(title) for title in titles)


def test_a_flame_graph_has_a_box_for_each_caller_as_wide_as_its_share() -> None:
    picture = parsed(flame.draw("a;b 3\na;c 1\na;<d> 0\n"))
    boxes = [(group[0].text, group[1].get("width"), group[1].get("x")) for group in picture]
    assert boxes == [
        ("all: 100.0%", "1600.0", "0.0"),
        ("a: 100.0%", "1600.0", "0.0"),
        ("b: 75.0%", "1200.0", "0.0"),
        ("c: 25.0%", "400.0", "1200.0"),
    ]


@pytest.mark.soak
async def test_the_soak_loses_nothing_in_a_short_life_too() -> None:
    table = await run("soak", "--way=tunnel", "--seconds=6", "--events=5600")
    assert [cell.strip() for cell in table.strip().splitlines()[-1].split("|")][3:5] == ["0", "0"]
