"""What all tests of the pipeline use."""

from __future__ import annotations

import pytest

from event_handler.state.sqlite import SqliteStore


@pytest.fixture
def store() -> SqliteStore:
    return SqliteStore(None)
