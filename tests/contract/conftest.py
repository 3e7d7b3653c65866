"""One authority for all contract tests, and the receiver and sink of the adapter that a test runs for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from event_handler.ports import Sink
from tests.contract.http_adapter import HttpAdapter
from tests.contract.http_adapters import ADAPTERS
from tests.contract.pki import Pki, make_pki
from tests.contract.receiver import Receiver, receiving


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"), "receiver")


@pytest.fixture(params=ADAPTERS, ids=lambda adapter: adapter.name)
def adapter(request: pytest.FixtureRequest) -> HttpAdapter:
    chosen: HttpAdapter = request.param
    return chosen


@pytest.fixture
async def receiver(adapter: HttpAdapter, pki: Pki) -> AsyncIterator[Receiver]:
    async with receiving(adapter.success, pki.server_context("localhost")) as running:
        yield running


@pytest.fixture
async def sink(adapter: HttpAdapter, receiver: Receiver, pki: Pki) -> AsyncIterator[Sink]:
    made = adapter.sink(receiver.url, pki.client_files())
    yield made
    await made.close()


@pytest.fixture
async def hasty(adapter: HttpAdapter, receiver: Receiver, pki: Pki) -> AsyncIterator[Sink]:
    """A sink with a short request time-out, for receivers that never come to an end."""
    made = adapter.sink(receiver.url, pki.client_files(), timeout=0.5)
    yield made
    await made.close()


@pytest.fixture
def other_pki(tmp_path: Path) -> Pki:
    return make_pki(tmp_path, "other")
