"""Every test of the dialers starts without a proxy in the environment, and has an authority that counts as a public
one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.teleport.transport.servers import PublicAuthority


@pytest.fixture(autouse=True)
def _alone(no_settings_from_outside: None) -> None:
    return


@pytest.fixture
def public(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublicAuthority:
    return PublicAuthority(tmp_path, monkeypatch)
