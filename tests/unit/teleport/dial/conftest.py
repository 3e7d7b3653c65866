"""Every test of the dialers starts without a proxy in the environment and ends without a task, warning or socket left over."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.teleport.dial.servers import PublicAuthority


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in list(os.environ):
        if setting.upper().endswith("_PROXY") or setting.startswith("TELEPORT_"):
            monkeypatch.delenv(setting)


@pytest.fixture
def public(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublicAuthority:
    return PublicAuthority(tmp_path, monkeypatch)


@pytest.fixture
async def nothing_left() -> AsyncIterator[None]:
    """Fails when a task of the test is still there two seconds after its end, or a descriptor."""
    before = _descriptors()
    yield
    for _ in range(100):
        if len(asyncio.all_tasks()) == 1 and _descriptors() <= before:
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"left over: {asyncio.all_tasks()} and {_descriptors() - before} descriptors")


def _descriptors() -> int:
    open_now = Path("/proc/self/fd")
    return len(list(open_now.iterdir())) if open_now.exists() else 0
