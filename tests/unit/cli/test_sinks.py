"""`sinks` lists and describes what there is, and tells what each configured receiver said to a marked event."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from event_handler.cli import cli
from event_handler.config import sink_reference
from event_handler.errors import EventHandlerError, SinkError, UsageError
from event_handler.sinks.registry import sink_type, sink_types

PAGES = Path(__file__).parents[3] / "docs" / "sinks"
RESERVED_NAMES = {"elasticsearch", "file", "fluentd"}  # these have flags, and their own places in the docs


def called(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["sinks", *arguments], standalone_mode=False)
    if isinstance(result.exception, EventHandlerError):
        raise result.exception
    assert result.exception is None, result.exception
    return result.output


def test_every_type_is_listed_with_what_it_is() -> None:
    lines = called("list").splitlines()
    assert [line.split()[0] for line in lines] == sink_types()
    assert all(sink_type(line.split()[0]).summary in line for line in lines)


@pytest.mark.parametrize("name", sink_types())
def test_every_option_of_a_type_is_described(name: str) -> None:
    keys = [line.split()[0] for line in called("describe", name).splitlines()[5:]]
    fields = sink_type(name).options.model_fields
    assert set(keys) >= {field.replace("_", "-") for field in fields}


def test_a_type_that_there_is_not_is_answered_with_the_nearest() -> None:
    with pytest.raises(SinkError, match="Did you mean splunk-hec"):
        called("describe", "splunk")


@pytest.mark.parametrize("name", [name for name in sink_types() if name not in RESERVED_NAMES])
def test_every_type_has_a_page_with_its_options_as_they_are(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text()
    assert sink_reference.table(name) in page
    for heading in ("## Set up in five minutes", "## Limits and verdicts", "## What goes wrong", "**Guarantee.**"):
        assert heading in page


class Answering(BaseHTTPRequestHandler):
    """Answers as its server's `status` says, and keeps the bodies."""

    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Receiver)
        server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return None


class Receiver(HTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.status = 200
        self.bodies: list[bytes] = []


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield server
        server.shutdown()
        serving.join()


@pytest.fixture
def configuration(tmp_path: Path, receiver: Receiver) -> Path:
    identity = tmp_path / "identity"
    identity.write_text("")
    url = f"http://127.0.0.1:{receiver.server_port}"
    file = tmp_path / "handler.toml"
    file.write_text(
        f"""
storage = "{tmp_path}/storage"
[teleport]
addr = "localhost:3025"
identity = "{identity}"
[sinks.splunk]
type = "splunk-hec"
url = "{url}"
token = "a-secret-token"
compression = "none"
[sinks.archive]
type = "file"
path = "{tmp_path}/events.ndjson"
"""
    )
    return file


def test_each_configured_sink_gets_a_marked_event(configuration: Path, receiver: Receiver) -> None:
    said = called("test", "--config", str(configuration))
    assert re.findall(r"^(\w+) +ok: the receiver took the event$", said, re.MULTILINE) == ["splunk", "archive"]
    (body,) = receiver.bodies
    assert orjson.loads(body)["event"]["event"] == "teleport-event-handler.test"
    assert b"teleport-event-handler.test" in (configuration.parent / "events.ndjson").read_bytes()
    assert not (configuration.parent / "storage").exists()


def test_what_a_receiver_refuses_is_told_without_a_secret(configuration: Path, receiver: Receiver) -> None:
    receiver.status = 403
    with pytest.raises(SinkError, match="not every sink took the event"):
        called("test", "--config", str(configuration), "splunk")
    result = CliRunner().invoke(cli, ["sinks", "test", "--config", str(configuration), "splunk"])
    assert "splunk" in result.output
    assert "failed: the receiver answered 403" in result.output
    assert "a-secret-token" not in result.output


def test_a_sink_that_is_not_configured_is_answered_with_those_that_are(configuration: Path) -> None:
    with pytest.raises(UsageError, match=r"There are splunk, archive\."):
        called("test", "--config", str(configuration), "siem")
