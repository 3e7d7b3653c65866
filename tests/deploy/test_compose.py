"""The demo for Docker: its description is right, its files fit each other, and its parts work together without Docker.

Images cannot be had from a registry here, so the programs in them run as they are where this machine has them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from event_handler.config.load import load
from tests.contract.opensearch_node import node_place
from tests.contract.opensearch_node import running as opensearch
from tests.contract.ports import free_ports
from tests.contract.server_process import listens, serving
from tests.support.receiver_cache import absent, place

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "deploy" / "compose"
SERVICES: dict[str, Any] = yaml.safe_load((DEMO / "compose.yaml").read_text())["services"]
STATE = "/var/lib/teleport-event-handler"
FLUENT_BIT = os.environ.get("EVENT_HANDLER_FLUENT_BIT", "")
CHECKER = "check-jsonschema"


@pytest.mark.skipif(bool(absent(CHECKER)), reason=absent(CHECKER))
def test_compose_yaml_follows_the_schema_of_the_compose_specification() -> None:
    checked = [place(CHECKER) / "bin" / CHECKER, "--builtin-schema=vendor.compose-spec", DEMO / "compose.yaml"]
    done = subprocess.run(list(map(str, checked)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_file_that_is_mounted_and_every_target_that_is_built_is_there() -> None:
    mounted = {text.split(":")[0] for one in SERVICES.values() for text in one.get("volumes", [])}
    files = {name for name in mounted if name.startswith(".")}
    assert files == {"./teleport-event-handler.toml", "./fluent-bit.yaml"}
    assert all((DEMO / name).is_file() for name in files)
    dockerfile = (ROOT / "deploy" / "image" / "Dockerfile").read_text()
    builds = [one["build"] for one in SERVICES.values() if "build" in one]
    assert {(DEMO / build["context"]).resolve() for build in builds} == {ROOT}
    assert {build["dockerfile"] for build in builds} == {"deploy/image/Dockerfile"}
    assert {build["target"] for build in builds} <= set(re.findall(r"^FROM .* AS (\w+)$", dockerfile, re.MULTILINE))


def test_nothing_is_published_to_other_machines() -> None:
    published = [text for one in SERVICES.values() for text in one.get("ports", [])]
    assert published
    assert all(text.startswith("127.0.0.1:") for text in published)


def replaced(text: str, by: dict[str, str]) -> str:
    for old, new in by.items():
        text = text.replace(old, new)
    return text


def configured(directory: Path, host: str) -> None:
    """Run the service `configure` for that name of the collector."""
    places = {STATE: str(directory), "--dns-names=fluent-bit": f"--dns-names={host}"}
    arguments = [replaced(text, places) for text in command("configure")]
    directory.mkdir()
    whole = [sys.executable, "-m", "event_handler", *arguments]
    subprocess.run(whole, check=True, capture_output=True, stdin=subprocess.DEVNULL)


def command(service: str) -> list[str]:
    words: list[str] = SERVICES[service]["command"]
    return words


def settings(directory: Path, fluent_bit: str, port: int, cluster: str) -> Path:
    """The demo's configuration of the event handler, with the places of this test."""
    places = {STATE: str(directory), "0.0.0.0:3000": "127.0.0.1:0", "127.0.0.1:3025": cluster}
    places["fluent-bit:8888"] = f"{fluent_bit}:{port}"
    file = directory / "teleport-event-handler.toml"
    file.write_text(replaced((DEMO / "teleport-event-handler.toml").read_text(), places))
    return file


def test_the_event_handler_takes_its_configuration(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    configured(directory, "fluent-bit")
    loaded = load({}, {}, str(settings(directory, "fluent-bit", 8888, "127.0.0.1:3025")))
    assert loaded.warnings == []
    assert [sink.name for sink in loaded.settings.sinks] == ["fluentd"]
    assert loaded.settings.storage == f"{directory}/storage"
    assert loaded.settings.listen_unprotected
    assert f"--config={SERVICES['handler']['volumes'][-1].split(':')[1]}" in command("handler")


def collector(directory: Path, port: int, node: str) -> Path:
    """Fluent Bit's two files, with the places and ports of this test."""
    made, demo = directory / "fluent-bit.yaml", directory / "demo.yaml"
    places = {"/keys/": f"{directory}/", "listen: 0.0.0.0": "listen: 127.0.0.1", "port: 8888": f"port: {port}"}
    places["/var/lib/fluent-bit/buffer"] = f"{directory}/buffer"
    host, _, number = node.removeprefix("http://").partition(":")
    places |= {"host: opensearch": f"host: {host}", "port: 9200": f"port: {number}"}
    made.write_text(replaced(made.read_text(), places))
    demo.write_text(replaced((DEMO / "fluent-bit.yaml").read_text(), places))
    return demo


@contextmanager
def cluster(directory: Path) -> Iterator[str]:
    """The service `cluster` on a free port; its address."""
    options = [text.replace(STATE, str(directory)) for text in command("cluster")]
    options = [text for text in options if not text.startswith(("--port=", "--events="))] + ["--events=1000"]
    whole = [sys.executable, "-m", "event_handler.simulator", *options]
    with subprocess.Popen(whole, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["address"]
        finally:
            process.kill()


@pytest.mark.timeout(400)
@pytest.mark.skipif(not FLUENT_BIT, reason="EVENT_HANDLER_FLUENT_BIT does not name the program of Fluent Bit")
@pytest.mark.skipif(not node_place(), reason="there is no OpenSearch: make receivers fetches it")
def test_every_event_of_the_cluster_is_found_in_opensearch(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    configured(directory, "localhost")
    (port,) = free_ports(1)
    log = tmp_path / "handler.log"
    with opensearch(node_place(), tmp_path) as node, cluster(directory) as address:
        fluent_bit = [FLUENT_BIT, "-c", str(collector(directory, port, node.url))]
        start = [sys.executable, "-m", "event_handler", "start", "-c"]
        start.append(str(settings(directory, "localhost", port, address)))
        with (
            serving(fluent_bit, tmp_path / "fluent-bit.log", lambda: listens(port)),
            serving(start, log, lambda: "listening" in log.read_text()),
        ):
            past = len(json.loads((directory / "cluster" / "manifest.json").read_text())["events"])
            until = time.monotonic() + 120
            while (found := node.count("teleport-events")) < past and time.monotonic() < until:
                time.sleep(0.5)
            assert found >= past, (tmp_path / "fluent-bit.log").read_text(errors="replace")[-2000:]
            assert node.count("teleport-recordings") > 0
