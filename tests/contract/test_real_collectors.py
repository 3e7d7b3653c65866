"""The generated files in a real Fluentd and a real Fluent Bit: every form of a time is taken, and filed under the time
that it means.

They run where a variable says what to run: EVENT_HANDLER_FLUENTD is a source tree of Fluentd (run with Ruby and its
gems) or its program, EVENT_HANDLER_FLUENT_BIT the program of Fluent Bit.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest

from event_handler.configure import Request, groups
from event_handler.configure.files import write
from event_handler.event import Event
from event_handler.ports import Delivered, Retry, Verdict
from event_handler.sinks.fluentd import FluentdOptions, FluentdSink
from tests.contract.times import FORMS, SECOND, SMALL_LETTERS

START = 60.0  # seconds that a collector may take to listen on a loaded machine
PRINT = 30.0  # seconds until it has printed what it took; it flushes every second
SESSION = "f0cd9816-f5d3-4fc5-9700-e8730ecf6604"
RULES = FORMS | SMALL_LETTERS
pytestmark = pytest.mark.timeout(180)  # seconds


@dataclass(frozen=True, slots=True)
class Filed:
    """A record as the collector printed it, and the nanoseconds since the epoch that it is filed under."""

    time: int
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Product:
    """How a collector is started with a file, and how a line of its output is read.

    `exact` is the finest time it prints, in ns.
    """

    output: str
    variable: str
    command: Callable[[str, Path], list[str]]
    read: Callable[[str], Filed | None]
    forms: Mapping[str, int]
    exact: int


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({key for key, _ in pairs}) == len(pairs), f"a field stands twice in {pairs}"
    return dict(pairs)


def fluentd_command(named: str, config: Path) -> list[str]:
    program = ["ruby", f"-I{named}/lib", f"{named}/bin/fluentd"] if Path(named).is_dir() else [named]
    return [*program, "-c", str(config)]


def read_fluentd(line: str) -> Filed | None:
    found = re.match(r"([\d-]+ [\d:]+)\.(\d{9}) \+0000 \S+: (\{.*\})$", line)
    if found is None:
        return None
    seconds = int(datetime.fromisoformat(f"{found[1]}+00:00").timestamp())
    return Filed(seconds * SECOND + int(found[2]), json.loads(found[3], object_pairs_hook=once))


def read_fluent_bit(line: str) -> Filed | None:
    if not line.startswith('{"date":'):
        return None
    record = json.loads(line, object_pairs_hook=once, parse_float=Decimal)
    return Filed(int(record.pop("date") * SECOND), record)


PRODUCTS = [
    Product("fluentd", "EVENT_HANDLER_FLUENTD", fluentd_command, read_fluentd, RULES, 1),
    # Prints microseconds. Takes capitals only, which is what Go writes; another letter leaves the time of arrival.
    Product(
        "fluent-bit",
        "EVENT_HANDLER_FLUENT_BIT",
        lambda named, config: [named, "-c", str(config)],
        read_fluent_bit,
        FORMS,
        1000,
    ),
]


@pytest.fixture(params=PRODUCTS, ids=lambda product: product.output)
def product(request: pytest.FixtureRequest) -> Product:
    chosen: Product = request.param
    if not os.environ.get(chosen.variable):
        pytest.skip(f"{chosen.variable} does not name a {chosen.output} to run")
    return chosen


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def made_for_this_machine(product: Product, out: Path, port: int) -> Path:
    """What `configure` wrote for a container, with the places and the port of this test in it."""
    wanted = Request(
        out,
        "example.test:443",
        "ca",
        "server",
        "client",
        ("localhost",),
        (),
        timedelta(days=1),
        2048,
        output=product.output,
    )
    write(groups(wanted, lambda: "correct horse"))
    config = out / wanted.collector.file
    text = config.read_text().replace("/keys/", f"{out}/").replace("listen: 0.0.0.0", "listen: 127.0.0.1")
    text = text.replace("/fluentd/log/buffer", f"{out}/buffer").replace("/var/lib/fluent-bit/buffer", f"{out}/buffer")
    config.write_text(re.sub(r"port(:?) 8888\n", rf"port\1 {port}\n", text))
    return config


@asynccontextmanager
async def running(product: Product, out: Path) -> AsyncIterator[tuple[int, asyncio.StreamReader]]:
    """The collector: its port, and what it prints."""
    port = free_port()
    command = product.command(os.environ[product.variable], made_for_this_machine(product, out, port))
    with (out / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env={**os.environ, "TZ": "UTC"},
            limit=1 << 20,  # bytes of a line
            start_new_session=True,  # Fluentd is two processes
        )
        assert process.stdout is not None
        try:
            yield port, process.stdout
        finally:
            with suppress(ProcessLookupError):  # it ended by itself
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


@asynccontextmanager
async def sink(out: Path, port: int, kind: Literal["single", "array"]) -> AsyncIterator[FluentdSink]:
    url = f"https://localhost:{port}"
    ca, cert, key = (str(out / name) for name in ("ca.crt", "client.crt", "client.key"))
    made = FluentdSink(
        FluentdOptions(url=f"{url}/test.log", session_url=f"{url}/session", ca=ca, cert=cert, key=key, format=kind)
    )
    try:
        yield made
    finally:
        await made.close()


async def delivered(to: FluentdSink, batch: list[Event]) -> Verdict:
    """The first answer that is none of a collector that does not listen yet."""
    async with asyncio.timeout(START):
        while isinstance(said := await to.deliver(batch), Retry):
            await asyncio.sleep(0.1)
    return said


async def printed(product: Product, stream: asyncio.StreamReader, count: int) -> dict[str, Filed]:
    found: dict[str, Filed] = {}
    async with asyncio.timeout(PRINT):
        while len(found) < count:
            line = await stream.readline()
            assert line, "the collector ended"
            if filed := product.read(line.decode().rstrip("\n")):
                found[filed.record["uid"]] = filed
    return found


def event(uid: str, time: str, session: str = "") -> Event:
    return Event(
        "user.login", uid, 0.0, 0, json.dumps({"event": "user.login", "time": time, "uid": uid}).encode(), session
    )


async def test_every_form_of_a_time_is_taken_and_filed_under_what_it_means(product: Product, tmp_path: Path) -> None:
    texts = {f"{kind}-{number}": text for kind in ("single", "array") for number, text in enumerate(product.forms)}
    recorded = [event(uid, text, SESSION) for uid, text in texts.items() if uid.startswith("array")]
    async with running(product, tmp_path) as (port, stream):
        async with sink(tmp_path, port, "single") as single, sink(tmp_path, port, "array") as array:
            for uid, text in texts.items():
                if uid.startswith("single"):
                    assert await delivered(single, [event(uid, text)]) == Delivered(), text
            assert await delivered(array, recorded) == Delivered()
        found = await printed(product, stream, len(texts))
    assert {uid: filed.record["time"] for uid, filed in found.items()} == texts
    wrong = {
        texts[uid]: filed.time
        for uid, filed in found.items()
        if abs(filed.time - product.forms[texts[uid]]) >= product.exact
    }
    assert wrong == {}
