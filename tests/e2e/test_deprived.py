"""Every command, with each thing taken away that a machine may lack: a sentence and an exit code, never a traceback or
a hang.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from event_handler.ports import Commit, DeadLetter
from event_handler.simulator.credentials import write_cluster_files
from event_handler.state.directory import state_directory
from event_handler.state.sqlite import SqliteStore
from tests.e2e.deprived import CONDITIONS, TIME
from tests.support.checkpoints import places

CLUSTER = "sim.test"
CODES = {0, 1, 80, 255}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an identity and a state in it, readable for everybody and writable for its owner."""
    made = tmp_path_factory.mktemp("place")
    write_cluster_files(made, CLUSTER)
    (made / "identity").chmod(0o644)
    (made / "out").mkdir()
    store = SqliteStore(state_directory(made / "storage", CLUSTER, "fluentd"))
    letter = DeadLetter("fluentd", "refused", "user.login", "u", "", b"{}")
    asyncio.run(
        store.commit(
            Commit(
                places({"search": "1000.0"}),
                dead_letters=[letter],
                notes={"mode": "search", "cluster": CLUSTER},
                start=1000.0,
            )
        )
    )
    store.close()
    for path in (made, *made.parents):
        if path.owner() == Path.home().owner() and path.is_relative_to("/tmp"):
            path.chmod(path.stat().st_mode | 0o055)
    return made


def commands(place: Path) -> list[list[str]]:
    state, *fresh = (f"--storage={place}/{name}" for name in ("storage", "a", "b", "c"))
    start = ["start", "--teleport-addr=127.0.0.1:1", f"--teleport-identity={place}/identity", "--startup-timeout=1ms"]
    urls = ["--fluentd-url=http://127.0.0.1:1/x", "--fluentd-session-url=http://127.0.0.1:1/s"]
    return [
        ["version"],
        ["--help"],
        ["start", "--help"],
        ["nonsense"],
        ["configure", f"{place}/out", "--key-type=ecdsa"],
        ["configure", ".", "--key-type=ecdsa", "--force"],
        ["configure", "absent"],
        [*start, *urls, state],
        [*start, *urls, "--storage=relative", "--teleport-identity=identity"],
        [*start, fresh[0], "--file-path=-"],
        [*start, fresh[1], "--file-path=events.ndjson"],
        [*start, *urls, fresh[2], "--config=absent.toml"],
        [*start, *urls, fresh[2], "--config=~/absent.toml", "--teleport-identity=~/identity"],
        ["storage", "show", state],
        ["storage", "show", fresh[2]],
        ["storage", "export", state, f"--to={place}/plugin", "--force"],
        ["storage", "export", state, "--to=plugin", "--force"],
        ["dead-letter", "list", state],
        ["dead-letter", "list", "--json", state],
        ["dead-letter", "show", "1", state],
        ["dead-letter", "retry", "--all", state],
        ["dead-letter", "drop", "7", state],
    ]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_command_says_what_it_lacks(condition: str, place: Path) -> None:
    if condition.startswith("user") and os.geteuid():
        pytest.skip("only root may become somebody else")
    jobs = [{"command": command, "condition": condition, "directory": str(place)} for command in commands(place)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.deprived", json.dumps(jobs)],
        capture_output=True,
        text=True,
        timeout=TIME * 4,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for result in json.loads(done.stdout):
        _check(result)


def _check(result: dict[str, Any]) -> None:
    told = json.dumps(result, indent=1)
    assert "Traceback" not in result["out"] + result["err"], told
    assert "fault of the program" not in result["err"], told
    assert result["code"] in CODES, told
    if result["code"] and not result["condition"].startswith(("standard error", "standard output read")):
        assert "teleport-event-handler: error: " in result["err"], told
    if result["command"][0] == "version" and "output" not in result["condition"]:
        assert result["code"] == 0, told
