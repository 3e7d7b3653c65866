"""`status`, `tail`, `replay` and `verify` beside, before and after a real process that delivers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Collector
from tests.e2e.processes import Started, configuration, handler, simulated

SPAN = ("--from=240h", "--to=0s")
SHORT_TYPE = "user.login"


@dataclass(frozen=True, slots=True)
class Answer:
    code: int
    out: str
    err: str


async def ask(*arguments: str) -> Answer:
    """Run a command to its end."""
    own = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "event_handler",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=own,
    )
    out, err = await process.communicate()
    return Answer(process.returncode or 0, out.decode(), err.decode())


@dataclass(frozen=True, slots=True)
class Set:
    """A cluster with events, and a configuration for it."""

    config: Path
    events: list[str]


@pytest.fixture(params=["bulk", "search"])
async def ready(request: pytest.FixtureRequest, tmp_path: Path, collector: Collector) -> AsyncIterator[Set]:
    async with simulated(tmp_path / "sim", "--events=300", "--sessions=0", f"--mode={request.param}") as cluster:
        manifest = json.loads((tmp_path / "sim" / "manifest.json").read_text())
        yield Set(configuration(tmp_path, cluster, collector), list(manifest["events"]))


async def delivered(config: Path, *more: str) -> None:
    process = await handler(config, "--exit-on-last-event", *more)
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()[-2000:]


async def test_verify_finds_nothing_missing_when_all_is_delivered(ready: Set, collector: Collector) -> None:
    await delivered(ready.config)
    answer = await ask("verify", f"--config={ready.config}", *SPAN)
    assert answer.code == 0, answer
    totals = [line.split()[2:] for line in answer.out.splitlines()[1:]]
    assert sum(int(counts[0].replace(",", "")) for counts in totals) == len(ready.events)
    assert sum(int(counts[1].replace(",", "")) for counts in totals) == len(ready.events)


async def test_verify_names_what_was_filtered_before_and_replay_delivers_just_that(
    ready: Set, collector: Collector
) -> None:
    await delivered(ready.config, f"--skip-event-types={SHORT_TYPE}")
    before = collector.ids()
    skipped = set(ready.events) - set(before)
    assert skipped
    answer = await ask("verify", f"--config={ready.config}", *SPAN)
    assert answer.code == 1
    assert f"{len(skipped)} events of the cluster were not delivered" in answer.err
    named = {line.split()[-1] for line in answer.out.splitlines() if line.startswith("missing: ")}
    assert named <= skipped
    assert len(named) == min(20, len(skipped))
    counted = await ask("replay", f"--config={ready.config}", *SPAN, f"--types={SHORT_TYPE}", "--dry-run")
    assert f"{len(skipped):,} events would be delivered" in counted.out
    assert collector.ids() == before
    answer = await ask("replay", f"--config={ready.config}", *SPAN, f"--types={SHORT_TYPE}")
    assert answer.code == 0, answer
    assert collector.ids() == Counter(ready.events)
    assert not list(ready.config.parent.glob("storage/replay-*"))


async def test_a_replay_that_is_killed_goes_on_and_the_position_stays(
    ready: Set, collector: Collector, tmp_path: Path
) -> None:
    await delivered(ready.config)
    show = ("storage", "show", f"--config={ready.config}")
    position = (await ask(*show)).out
    collector.slow, collector.fail_every = 0.2, 3
    arguments = ("replay", f"--config={ready.config}", "--from=2020-01-01T00:00:00Z", "--to=2100-01-01T00:00:00Z")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "event_handler", *arguments, stderr=asyncio.subprocess.DEVNULL
    )
    requests = collector.requests
    async with asyncio.timeout(60):
        while collector.requests <= requests and process.returncode is None:
            await asyncio.sleep(0.01)
    if process.returncode is None:
        process.kill()
    await process.wait()
    collector.slow = 0.0
    answer = await ask(*arguments)
    assert answer.code == 0, answer
    assert min(collector.ids()[uid] for uid in ready.events) >= 2
    assert (await ask(*show)).out == position


async def test_tail_prints_every_event_once_and_touches_no_position(ready: Set, tmp_path: Path) -> None:
    common = (f"--config={ready.config}", "--since=2020-01-01T00:00:00Z", "--no-follow")
    answer = await ask("tail", *common, "--json")
    assert answer.code == 0, answer
    assert Counter(json.loads(line)["uid"] for line in answer.out.splitlines()) == Counter(ready.events)
    some = await ask("tail", *common, f"--types={SHORT_TYPE}")
    assert some.out
    assert all(f" {SHORT_TYPE} " in line for line in some.out.splitlines())
    assert not (tmp_path / "storage").exists()


def interruptible() -> None:
    """A shell lets what it starts in the background ignore SIGINT: these tests, perhaps, and then whom they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


async def test_tail_follows_until_it_is_interrupted(ready: Set) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "event_handler",
        "tail",
        f"--config={ready.config}",
        "--since=2020-01-01T00:00:00Z",
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=interruptible,
    )
    assert process.stdout is not None
    for _ in ready.events:
        assert await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    await process.wait()
    assert process.returncode == 130


async def test_status_tells_what_the_running_process_does(ready: Set, collector: Collector) -> None:
    alone = await ask("status", f"--config={ready.config}")
    assert (alone.code, "no event handler runs" in alone.err) == (1, True)
    running = Started(await handler(ready.config))
    try:
        async with asyncio.timeout(60):
            while set(collector.ids()) != set(ready.events):
                await asyncio.sleep(0.05)
            report: dict[str, Any] = {"sinks": [{"lag": None}]}
            while report["sinks"][0]["lag"] != 0.0:
                report = json.loads((await ask("status", f"--config={ready.config}", "--json")).out)
        answer = await ask("status", f"--config={ready.config}")
        assert answer.code == 0
        assert "fluentd (fluentd)  works" in answer.out
        assert f"delivered      {len(ready.events)} events" in answer.out
        assert "which is all that there is" in answer.out
    finally:
        await running.stop()
    assert (await ask("status", f"--config={ready.config}")).code == 1


async def test_status_of_a_process_that_was_killed_says_so(ready: Set) -> None:
    running = await handler(ready.config, stderr=asyncio.subprocess.DEVNULL)
    async with asyncio.timeout(60):
        while not list(ready.config.parent.glob("storage/*.sock")):
            await asyncio.sleep(0.05)
    running.kill()
    await running.wait()
    answer = await ask("status", f"--config={ready.config}")
    assert answer.code == 1
    assert "It has ended without a word" in answer.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["verify", "--from=1h", "--to=2h"], "--from is not before --to"),
        (["replay", "--from=soon", "--to=0s"], "expected a time as"),
        (["replay", "--from=1h", "--to=0s", "--sink=siem"], "there is no sink siem"),
        (["replay", "--from=1h", "--to=0s", "--types=user.loginn"], "user.login"),
    ],
)
async def test_what_cannot_be_is_refused_with_a_sentence(
    tmp_path: Path, collector: Collector, arguments: list[str], words: str
) -> None:
    (tmp_path / "identity").write_text("")
    config = configuration(tmp_path, {"address": "localhost:1", "identity": tmp_path / "identity"}, collector)
    answer = await ask(*arguments, f"--config={config}")
    assert answer.code in (1, 80)
    assert words in answer.err + answer.out
    assert "Traceback" not in answer.err
