"""Fixtures for tests that open connections: nothing from outside steers them, and nothing of them is left over."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

LINGER = 5.0  # seconds after its end in which what a test has opened must be gone; a busy machine takes its time


@pytest.fixture
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy and no setting of Teleport in the environment."""
    for setting in list(os.environ):
        if setting.upper().endswith("_PROXY") or setting.startswith("TELEPORT_"):
            monkeypatch.delenv(setting)


@pytest.fixture
async def nothing_left() -> AsyncIterator[None]:
    """Fails when a task of the test, or a descriptor, outlives it."""
    before = _descriptors()
    yield
    for _ in range(int(LINGER / 0.02)):
        if len(asyncio.all_tasks()) == 1 and _descriptors() <= before:
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"left over: {asyncio.all_tasks()} and {_descriptors() - before} descriptors")


def _descriptors() -> int:
    open_now = Path("/proc/self/fd")
    return len(list(open_now.iterdir())) if open_now.exists() else 0
