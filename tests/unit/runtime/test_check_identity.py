"""Who else may read a private key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from event_handler.config.model import StartSettings
from event_handler.runtime.check.identity import check_identity

ROOT, MINE, ANOTHER = 0, 65532, 1000


@pytest.mark.parametrize(
    ("mode", "user", "owner", "warned"),
    [
        (0o400, MINE, MINE, False),
        (0o440, MINE, MINE, True),  # whom our group has in it may read it
        (0o440, MINE, ANOTHER, False),  # we read it by the group ourselves: a Secret that Kubernetes mounts
        (0o444, MINE, ANOTHER, True),
        (0o460, MINE, ANOTHER, True),
        (0o440, ROOT, ANOTHER, True),  # root needs no group
    ],
)
def test_a_key_that_others_may_read_is_told(
    mode: int, user: int, owner: int, warned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = tmp_path / "identity"
    identity.write_text("x")
    identity.chmod(mode)
    status = list(identity.stat())
    status[4] = owner
    monkeypatch.setattr(Path, "stat", lambda path, **_: os.stat_result(status))
    monkeypatch.setattr(os, "geteuid", lambda: user)
    first, _ = next(iter(check_identity(StartSettings(teleport_identity=str(identity)))))
    assert ("may be read by other users" in first.what) is warned
