"""The real process answers for its state over HTTP: metrics, health, readiness, the page, and the tail of events."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.contract.pki import make_pki
from tests.e2e.conftest import Collector
from tests.e2e.processes import Started, configuration, handler, simulated

TOKEN = "a-bearer-token-of-the-listener"


@asynccontextmanager
async def started(tmp_path: Path, collector: Collector, *more: str) -> AsyncIterator[tuple[Started, str]]:
    """A handler that listens, and the URL by which."""
    async with simulated(tmp_path / "sim", "--events=50", "--sessions=1") as ready:
        config = configuration(tmp_path, ready, collector)
        running = Started(await handler(config, "--listen=127.0.0.1:0", "--shutdown-timeout=0", *more))
        await running.until("listening")
        yield running, f"{running.lines[-1]['url']}/"
        if running.process.returncode is None:
            await running.stop()


async def until_ready(session: aiohttp.ClientSession, url: str, ready: bool = True) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            async with session.get(f"{url}readyz") as answer:
                body: dict[str, Any] = await answer.json()
                if body["ready"] is ready:
                    assert answer.status == (200 if ready else 503)
                    return body
            await asyncio.sleep(0.05)


async def metrics(session: aiohttp.ClientSession, url: str) -> dict[str, float]:
    """Values by name, added up over all labels."""
    async with session.get(f"{url}metrics") as answer:
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(await answer.text()):
            for one in family.samples:
                name = one.name.removeprefix("teleport_event_handler_")
                found[name] = found.get(name, 0.0) + one.value
        return found


async def test_metrics_tell_what_was_delivered_and_lag_ends_at_zero(tmp_path: Path, collector: Collector) -> None:
    async with started(tmp_path, collector) as (_, url), aiohttp.ClientSession() as session:
        manifest = json.loads((tmp_path / "sim" / "manifest.json").read_text())
        expected = len(manifest["events"]) + sum(manifest["recordings"].values())
        async with asyncio.timeout(60):
            while (found := await metrics(session, url)).get("events_read_total") != expected or found.get(
                "lag_seconds"
            ) != 0.0:
                await asyncio.sleep(0.05)
        taken = found["events_delivered_total"] + found["events_filtered_total"]  # `print` is filtered by default
        assert taken == expected
        assert found["sink_up"] == 1.0
        assert found["events_dead_lettered_total"] == 0.0
        assert found["request_duration_seconds_count"] >= 1
        assert found["reading_connected"] == found["reading_caught_up"] == 1.0
        async with session.get(f"{url}healthz") as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "ok"})
        assert (await until_ready(session, url))["parts"]["teleport"] == {"ready": True, "reason": ""}


async def test_a_sink_that_fails_makes_it_unready_and_says_why(tmp_path: Path, collector: Collector) -> None:
    collector.fail_every = 1
    async with started(tmp_path, collector) as (_, url), aiohttp.ClientSession() as session:
        body = await until_ready(session, url, ready=False)
        while "503" not in body["parts"]["sink fluentd"]["reason"]:
            body = await until_ready(session, url, ready=False)
        collector.fail_every = 0
        await until_ready(session, url)


async def test_the_tail_shows_events_and_reports_come_as_they_change(tmp_path: Path, collector: Collector) -> None:
    collector.slow = 0.2
    async with started(tmp_path, collector) as (_, url), aiohttp.ClientSession() as session:
        async with session.get(f"{url}api/tail?type=user.") as tail, asyncio.timeout(60):
            async for line in tail.content:
                if line.startswith(b"data: {"):
                    assert json.loads(line.removeprefix(b"data: "))["event"].startswith("user.")
                    break
        async with session.get(f"{url}api/reports") as reports, asyncio.timeout(60):
            line = await reports.content.readline()
            assert json.loads(line.removeprefix(b"data: "))["sinks"][0]["name"] == "fluentd"


async def test_without_the_token_only_health_is_told(tmp_path: Path, collector: Collector) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    async with (
        started(tmp_path, collector, f"--listen-token-file={tmp_path / 'token'}") as (running, url),
        aiohttp.ClientSession() as session,
    ):
        for path, status in (("", 401), ("metrics", 401), ("api/report", 401), ("api/tail", 401), ("healthz", 200)):
            async with session.get(url + path, headers={"Authorization": "Bearer wrong"}) as answer:
                assert answer.status == status, path
        body = await until_ready(session, url)
        assert body == {"ready": True}
        async with session.get(f"{url}metrics", headers={"Authorization": f"Bearer {TOKEN}"}) as answer:
            assert answer.status == 200
        await running.stop()
    assert TOKEN not in json.dumps(running.lines)


async def test_it_speaks_tls_and_may_want_a_client_certificate(tmp_path: Path, collector: Collector) -> None:
    pki = make_pki(tmp_path, "page")
    key, cert = pki.issue("localhost")
    (tmp_path / "server.crt").write_bytes(cert)
    (tmp_path / "server.key").write_bytes(key)
    files = pki.client_files()
    options = (
        f"--listen-cert={tmp_path / 'server.crt'}",
        f"--listen-key={tmp_path / 'server.key'}",
        f"--listen-client-ca={files.ca}",
    )
    context = ssl.create_default_context(cafile=files.ca)
    async with started(tmp_path, collector, *options) as (_, url), aiohttp.ClientSession() as session:
        url = url.replace("127.0.0.1", "localhost")
        with pytest.raises(aiohttp.ClientError):
            async with session.get(f"{url}healthz", ssl=context):
                pass
        context.load_cert_chain(files.cert, files.key)
        async with session.get(f"{url}healthz", ssl=context) as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--listen=0.0.0.0:0"], "can be reached from elsewhere"),
        (["--listen=3000"], "expected host:port"),
        (["--listen=127.0.0.1:0", "--listen-user=me"], "only one of listen-user and listen-password"),
        (["--listen=127.0.0.1:0", "--listen-cert=/dev/null"], "only one of listen-cert and listen-key"),
    ],
)
async def test_a_listener_that_cannot_be_is_refused_at_the_start(
    tmp_path: Path, collector: Collector, options: list[str], words: str
) -> None:
    async with simulated(tmp_path / "sim", "--events=1", "--sessions=0") as ready:
        process = await handler(configuration(tmp_path, ready, collector), *options)
        _, errors = await process.communicate()
    assert process.returncode != 0
    assert words in errors.decode()


async def test_a_port_that_is_taken_is_named(tmp_path: Path, collector: Collector) -> None:
    async with started(tmp_path, collector) as (_, url):
        other = tmp_path / "other"
        other.mkdir()
        async with simulated(other / "sim", "--events=1", "--sessions=0") as ready:
            address = url.removeprefix("http://").rstrip("/")
            process = await handler(configuration(other, ready, collector), f"--listen={address}")
            _, errors = await process.communicate()
    assert process.returncode != 0
    assert f"cannot listen on {address}" in errors.decode()


async def asked_whether_alive(*options: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "event_handler", "status", "--alive", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_a_health_check_needs_no_configuration_and_fails_when_it_has_ended(
    tmp_path: Path, collector: Collector
) -> None:
    storage = tmp_path / "storage"
    alive = f"sim.test on the storage {storage}: alive\n"
    async with started(tmp_path, collector) as (running, url), aiohttp.ClientSession() as session:
        await until_ready(session, url)
        if sys.platform == "linux":  # others list no sockets; what runs beside this test is told as well
            assert alive in (await asked_whether_alive())[1]
        assert await asked_whether_alive(f"--storage={storage}") == (0, alive)
        running.process.kill()
        await running.process.wait()
        code, said = await asked_whether_alive(f"--storage={storage}")
        assert (code, "no event handler answers behind" in said) == (1, True)
