"""Event handlers that run here are found without their configuration."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from event_handler.cli import running
from event_handler.errors import StateError


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists its local sockets")
def test_a_running_one_is_found_and_the_socket_of_another_program_is_not(tmp_path: Path) -> None:
    (tmp_path / "example.com").mkdir()
    with socket.socket(socket.AF_UNIX) as ours, socket.socket(socket.AF_UNIX) as another:
        for listening, name in ((ours, "example.com.sock"), (another, "docker.sock")):
            listening.bind(str(tmp_path / name))
            listening.listen()
        found = running.local_sockets()
    assert [path for path in found if path.is_relative_to(tmp_path)] == [tmp_path / "example.com.sock"]


def test_where_none_runs_or_none_can_be_found_it_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    listed = tmp_path / "unix"
    listed.write_text("Num RefCount Protocol Flags Type St Inode Path\n0: 2 0 0 1 1 2\n0: 2 0 0 1 1 2 /run/x.sock\n")
    monkeypatch.setattr(running, "LISTED", listed)
    with pytest.raises(StateError, match="no event handler of this user runs here"):
        running.local_sockets()
    monkeypatch.setattr(running, "LISTED", tmp_path / "absent")
    with pytest.raises(StateError, match="Name the storage with --storage"):
        running.local_sockets()
