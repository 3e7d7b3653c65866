"""Nothing from outside steers a test, and nothing of it is left over."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog

# A busy machine makes no property false, and CI must not find by chance what a change did not bring.
hypothesis.settings.register_profile("here", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("here")
LINGER = 5.0  # seconds after its end in which what a test has opened must be gone; a busy machine takes its time


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A test that runs the command line sets up logging, to a stream that is closed after it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy and no setting of Teleport in the environment, and no word of a container around the tests."""
    for setting in list(os.environ):
        if setting.upper().endswith("_PROXY") or setting.startswith("TELEPORT_") or setting == "container":
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
