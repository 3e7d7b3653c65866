"""The real process at its most talkative, with secrets wherever they may be given: none of them is ever logged, nor is
an event.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import Collector
from tests.e2e.processes import configuration, handler, simulated

PASSWORD, TOKEN, QUERY = "hunter2-of-the-url", "bearer-4711-of-elastic", "token-0815-of-the-query"
PAYLOAD = ("user_roles", "server_labels", "addr.remote", "björn", "resource-", "0001-01-01T00:00:00Z")  # in every event


async def read_into(written: bytearray, process: asyncio.subprocess.Process) -> None:
    assert process.stderr is not None
    while some := await process.stderr.read(65536):
        written += some


@pytest.mark.parametrize("fmt", ["console", "json"])
async def test_no_secret_and_no_event_is_logged(
    tmp_path: Path, collector: Collector, fmt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector.fail_every, collector.quotes = 2, True
    monkeypatch.setenv("FDFWD_ELASTICSEARCH_BEARER", TOKEN)
    secret_url = collector.settings.url.replace("https://", f"https://someone:{PASSWORD}@")
    closed = f"https://someone:{PASSWORD}@localhost:1?token={QUERY}"
    async with simulated(tmp_path / "sim", "--events=600", "--sessions=1", "--unavailable-every=400") as ready:
        config = configuration(tmp_path, ready, collector)
        sinks = (f"--fluentd-url={secret_url}", f"--elasticsearch-url={closed}", "--shutdown-timeout=100ms")
        process = await handler(config, *sinks, f"--log-format={fmt}", "--debug")
        written = bytearray()
        reading = asyncio.create_task(read_into(written, process))
        async with asyncio.timeout(60):
            while len(collector.ids()) < 600 or b"delivery fails" not in written or b"elasticsearch" not in written:
                await asyncio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        await reading
        await process.wait()
        identity = Path(ready["identity"]).read_text()
    text = written.decode()
    assert process.returncode == 0, text[-2000:]
    assert "cannot take (an event was here)" in text
    keys = identity + Path(collector.settings.key).read_text()
    key_lines = [line for line in keys.splitlines() if len(line) == 64]
    assert key_lines
    for secret in (PASSWORD, TOKEN, QUERY, *PAYLOAD, *key_lines):
        assert secret not in text


async def test_an_error_at_the_start_shows_no_secret_either(tmp_path: Path, collector: Collector) -> None:
    ready = {"address": "127.0.0.1:1", "identity": os.devnull}
    process = await handler(
        configuration(tmp_path, ready, collector), f"--fluentd-url=https://someone:{PASSWORD}@[broken/"
    )
    _, errors = await process.communicate()
    assert process.returncode not in (0, None)
    assert PASSWORD.encode() not in errors
    assert b"Traceback" not in errors
