"""A state that belongs to another user is told as that by every command, with the way out, and without a traceback."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from event_handler.ports import Commit, DeadLetter
from event_handler.state.sqlite import SqliteStore

pytestmark = pytest.mark.proof

STRANGER = 54321  # a user id without a name and without rights
# The program is loaded before it changes the user, who may perhaps not read this checkout.
PROGRAM = """
import os, sys
from pathlib import Path
from event_handler import cli
from event_handler.cli import dead_letters, start_command, storage
from event_handler.errors import EventHandlerError
from event_handler.state.directory import migrate_layout, state_directory
from event_handler.state.sqlite import SqliteStore

def start(storage):
    directory = state_directory(storage, "example.test", "fluentd")
    try:
        migrate_layout(storage, directory, [("auth.test", 3025)])
        SqliteStore(directory)
    except EventHandlerError as error:
        sys.stderr.write(f"error: {error}")
        sys.exit(error.exit_code)

user = int(sys.argv.pop(1))
if user:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
start(Path(sys.argv[2])) if sys.argv[1] == "start" else cli.main()
"""
COMMANDS = {
    "start": ["start"],
    "show": ["storage", "show", "--storage"],
    "export": ["storage", "export", "--teleport-addr=a:1", "--storage"],
    "list": ["dead-letter", "list", "--storage"],
    "retry": ["dead-letter", "retry", "--all", "--storage"],
    "drop": ["dead-letter", "drop", "--all", "--storage"],
}


@pytest.fixture
def storage() -> Iterator[Path]:
    """A storage with a state, owned by this user, in a place that others may enter."""
    if os.geteuid():
        pytest.skip("only root may run a command as another user")
    place = Path(mkdtemp(prefix="state-of-another-"))
    place.chmod(0o755)
    store = SqliteStore(place / "storage" / "example.test" / "fluentd")
    asyncio.run(store.begin(5.0))
    asyncio.run(store.commit(Commit(dead_letters=[DeadLetter("fluentd", "no", "t", "u", "", b"{}")])))
    store.close()
    yield place / "storage"
    shutil.rmtree(place)


def run(command: str, storage: Path, user: int = STRANGER) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", PROGRAM, str(user), *COMMANDS[command], str(storage)]
    return subprocess.run(words, cwd=storage.parent, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("closed", ["storage", "storage/example.test", "storage/example.test/fluentd", "the files"])
@pytest.mark.parametrize("command", COMMANDS)
def test_the_state_of_another_user_is_told_as_that(storage: Path, command: str, closed: str) -> None:
    sink = storage / "example.test" / "fluentd"
    for directory in (storage, sink.parent, sink):
        directory.chmod(0o755)
    if closed != "the files":
        (storage.parent / closed).chmod(0o700)
    result = run(command, storage)
    assert result.returncode == 80, result.stderr
    assert "Traceback" not in result.stderr
    assert "belongs to the user root, and this process runs as the user id 54321" in result.stderr
    assert str(storage) in result.stderr
    assert "Run this as the user root, or give the whole storage to the user id 54321 with chown -R." in result.stderr


def test_a_storage_in_a_directory_that_this_user_may_not_write_is_told_as_that(storage: Path) -> None:
    shutil.rmtree(storage)
    result = run("start", storage)
    assert result.returncode == 80
    assert f"{storage.parent} belongs to the user root" in result.stderr


def test_what_root_looks_at_can_still_be_used_by_its_owner(storage: Path) -> None:
    subprocess.run(["chown", "-R", str(STRANGER), storage], check=True)
    for command in ("show", "list", "retry"):
        assert run(command, storage, user=0).returncode == 0
    assert run("start", storage).returncode == 0
