"""Signing in at the start: a file that is just being written is waited for, a broken one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from event_handler.cli import access
from event_handler.cli.access import keep_credentials
from event_handler.errors import CredentialsError
from event_handler.settings.model import StartSettings
from event_handler.simulator.credentials import write_cluster_files


def test_an_identity_that_is_being_written_is_waited_for_and_a_torn_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cluster_files(tmp_path / "cluster", "sim.test")
    whole = (tmp_path / "cluster" / "identity").read_bytes()
    path = tmp_path / "identity"
    path.write_bytes(whole[:100])
    settings = StartSettings(teleport_identity=str(path))
    monkeypatch.setattr(access, "BETWEEN_TRIES", 0.001)
    with pytest.raises(CredentialsError, match="ends inside a PEM block"):
        keep_credentials(settings)
    monkeypatch.setattr(access, "BETWEEN_TRIES", 5.0)
    monkeypatch.setattr(access, "sleep", lambda _: path.write_bytes(whole))
    assert keep_credentials(settings).current.cluster == "sim.test"
