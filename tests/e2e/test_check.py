"""Each fault of the table in docs/check.md is made, alone, and `check` finds that one and says what to do."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from time import time
from typing import Any

import orjson
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.x509.oid import NameOID

from event_handler.cli.check import _run, lines
from event_handler.config.load import load as load_settings
from event_handler.config.model import StartSettings
from event_handler.errors import RpcError
from event_handler.runtime.check import cluster as cluster_check
from event_handler.runtime.check import identity as identity_check
from event_handler.runtime.check import sinks as sinks_check
from event_handler.runtime.check import storage as storage_check
from event_handler.runtime.check.finding import Finding, Level, fault, ok, warning
from event_handler.runtime.sinks import planned_sink
from event_handler.simulator.certificates import issue, name, write_secret
from event_handler.simulator.credentials import write_cluster_files
from event_handler.state.sqlite import SqliteStore
from event_handler.teleport.auth.credentials import load
from event_handler.teleport.rpc.client import Cluster
from tests.contract.lease_server import lease_server
from tests.contract.pki import make_pki
from tests.contract.ports import free_ports
from tests.contract.receiver import Reply, receiving
from tests.contract.state_bucket import state_bucket
from tests.e2e.processes import simulated
from tests.support.scripted_cluster import ScriptedClient, wire_at

PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----\n", re.DOTALL)
PAGE = Path(__file__).parents[2] / "docs" / "check.md"
pytestmark = pytest.mark.proof


@dataclass
class World:
    """A configuration in which all is well, until a test breaks one thing. Tables are TOML, line by line."""

    directory: Path
    cluster: dict[str, Any]
    monkeypatch: pytest.MonkeyPatch
    top: dict[str, str] = field(default_factory=dict)
    teleport: dict[str, str] = field(default_factory=dict)
    sink: dict[str, str] = field(default_factory=dict)
    raw: str | None = None
    send: bool = False

    def __post_init__(self) -> None:
        identity = self.directory / "identity"
        identity.write_bytes(Path(self.cluster["identity"]).read_bytes())
        identity.chmod(0o600)
        self.top = {"storage": f'"{self.directory}/storage"', "no-session-recordings": "false"}
        self.teleport = {"addr": f'"{self.cluster["address"]}"', "identity": f'"{identity}"'}
        self.sink = {"type": '"file"', "path": f'"{self.directory}/events.ndjson"'}

    @property
    def identity(self) -> Path:
        return self.directory / "identity"

    def webhook(self, url: str, **more: str) -> None:
        self.sink = {"type": '"webhook"', "url": f'"{url}"', **{k: f'"{v}"' for k, v in more.items()}}

    async def findings(self) -> list[Finding]:
        config = self.directory / "handler.toml"
        tables = (("", self.top), ("[teleport]", self.teleport), ("[sinks.siem]", self.sink))
        text = "\n".join(
            line for head, table in tables for line in [head, *(f"{key} = {value}" for key, value in table.items())]
        )
        if self.raw != "":
            config.write_text(self.raw or text)
        return await _run(str(config), send=self.send, quiet=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Any]]:
    async with simulated(tmp_path_factory.mktemp("cluster"), "--lifetime=300000", "--events=100") as ready:
        yield ready


@pytest.fixture
def world(tmp_path: Path, cluster: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> World:
    for variable in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(cluster_check, "OTHERS_WITHIN", 0.1)
    return World(tmp_path, cluster, monkeypatch)


def faults(findings: list[Finding]) -> list[Finding]:
    return [one for one in findings if one.level is not Level.OK]


async def failures(world: World) -> list[Finding]:
    return [one for one in await world.findings() if one.level is Level.FAULT]


async def test_where_all_is_well_nothing_is_found(world: World) -> None:
    found = await world.findings()
    assert faults(found) == []
    assert {one.area for one in found} == {
        "configuration", "identity", "name", "way in", "clock", "cluster", "role", "storage", "sink siem",
    }  # fmt: skip


def set_top(**more: str) -> Callable[[World], None]:
    return lambda world: world.top.update({key.replace("_", "-"): value for key, value in more.items()})


def set_teleport(**more: str) -> Callable[[World], None]:
    return lambda world: world.teleport.update(more)


def written(text: str) -> Callable[[World], None]:
    def write(world: World) -> None:
        world.raw = text

    return write


def identity_of(content: bytes) -> Callable[[World], None]:
    def write(world: World) -> None:
        world.identity.write_bytes(content)

    return write


def no_identity(world: World) -> None:
    world.identity.unlink()


def open_identity(world: World) -> None:
    world.identity.chmod(0o644)


def identity_for(lifetime: timedelta) -> Callable[[World], None]:
    def make(world: World) -> None:
        made = world.directory / "made"
        made.mkdir()
        write_cluster_files(made, "sim.test", lifetime)
        world.identity.write_bytes((made / "identity").read_bytes())

    return make


def key_of_another(world: World) -> None:
    """The certificate of one identity, with the key of another."""
    made = world.directory / "made"
    made.mkdir()
    write_cluster_files(made, "sim.test")
    key = re.findall(
        rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----\n",
        (made / "identity").read_bytes(),
        re.S,
    )
    own = world.identity.read_bytes()
    mine = re.findall(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----\n", own, re.S)
    world.identity.write_bytes(own.replace(mine[0], key[0]))


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def refused_cluster(world: World) -> None:
    world.teleport["addr"] = f'"127.0.0.1:{closed_port()}"'


def dead_proxy(world: World) -> None:
    world.monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{closed_port()}")
    world.teleport["addr"] = '"teleport.example.com:443"'


def with_keys_of_aws(world: World) -> None:
    world.monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-tests")
    world.monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-tests")


def unreachable_bucket(world: World) -> None:
    with_keys_of_aws(world)
    (port,) = free_ports(1)
    world.top["storage"] = f'"s3://states?region=x&endpoint=http://127.0.0.1:{port}"'


def storage_is_a_file(world: World) -> None:
    (world.directory / "storage").write_text("")


def damaged_state(world: World) -> None:
    directory = world.directory / "storage" / "sim.test" / "siem"
    directory.mkdir(parents=True)
    (directory / "state.db").write_bytes(b"no database at all" * 1000)


def state_of_a_newer_release(world: World) -> None:
    directory = world.directory / "storage" / "sim.test" / "siem"
    SqliteStore(directory).close()
    with sqlite3.connect(directory / "state.db") as db:
        db.execute("UPDATE facts SET value = '99' WHERE name = 'schema'")
    db.close()


def little_room(world: World) -> None:
    world.monkeypatch.setattr(storage_check, "ROOM", 1 << 80)


def refused_sink(world: World) -> None:
    world.webhook(f"http://127.0.0.1:{closed_port()}/")


def no_collector(world: World) -> None:
    world.monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    set_top(telemetry_endpoint=f'"http://127.0.0.1:{closed_port()}"')(world)


def only_a_certificate(world: World) -> None:
    pki = make_pki(world.directory, "sink")
    world.webhook("https://127.0.0.1:1/", cert=pki.client_files().cert)


Break = Callable[[World], None]
FAULTS: dict[str, tuple[Break, str, str]] = {  # what is broken, the area, and what is found
    "the configuration is not there": (written(""), "configuration", "cannot be read"),
    "the configuration is not TOML": (written("a = = 1"), "configuration", "is not TOML"),
    "an option of a sink that there is not": (lambda w: w.sink.update(pth='"x"'), "configuration", "no such option"),
    "a value of another kind": (set_top(batch='"many"'), "configuration", "batch"),
    "an event type that there is not": (set_top(types='["user.logn"]'), "configuration", "user.logn"),
    "a type of sink that there is not": (lambda w: w.sink.update(type='"splunk-hac"'), "configuration", "splunk-hac"),
    "the identity is not there": (no_identity, "identity", "there is no file"),
    "the identity is empty": (identity_of(b""), "identity", "identity"),
    "the identity is another file": (identity_of(b"hello"), "identity", "identity"),
    "the key is of another certificate": (key_of_another, "identity", "key"),
    "the identity has expired": (identity_for(timedelta(seconds=-30)), "identity", "expired at"),
    "identity and certificate are both set": (set_teleport(cert='"x"'), "identity", "are both configured"),
    "the address has no port": (set_teleport(addr='"teleport.example.com"'), "cluster", "host:port"),
    "the name is not resolved": (set_teleport(addr='"teleport.invalid:443"'), "name", "cannot be resolved"),
    "nobody listens at the address": (refused_cluster, "way in", "127.0.0.1"),
    "the proxy is down": (dead_proxy, "way in", "cannot connect to 127.0.0.1"),
    "the storage is a file": (storage_is_a_file, "storage", "is a file"),
    "the storage cannot be written": (set_top(storage='"/proc/handler"'), "storage", "is not writable"),
    "the URL of a bucket is wrong": (set_top(storage='"s3://states?regoin=x"'), "storage", "the parameter regoin"),
    "the bucket cannot be reached": (unreachable_bucket, "storage", "s3://states cannot be reached"),
    "a lease is wanted outside of Kubernetes": (set_top(lease='"kubernetes"'), "lease", "this is no pod"),
    "a state is damaged": (damaged_state, "storage", "state.db"),
    "a state is of a newer release": (state_of_a_newer_release, "storage", "newer"),
    "nobody listens at the receiver": (refused_sink, "sink siem", "cannot be reached"),
    "the receiver's name is not resolved": (lambda w: w.webhook("https://siem.invalid/"), "sink siem", "siem.invalid cannot be resolved"),  # noqa: E501
    "a CA file is not there": (lambda w: w.webhook("https://127.0.0.1:1/", ca="/nowhere/ca.pem"), "configuration", "/nowhere/ca.pem"),  # noqa: E501
    "a file with a secret is not there": (lambda w: w.webhook("https://127.0.0.1:1/", **{"bearer-file": "/nowhere/token"}), "configuration", "/nowhere/token"),  # noqa: E501
    "what is no address of a Collector": (set_top(telemetry_endpoint='"otel:4318"'), "telemetry", "expected a URL"),
    "the Collector takes no metrics": (no_collector, "telemetry", "takes no metrics"),
    "a certificate without its key": (only_a_certificate, "sink siem", "only one of"),
    "two ways to sign in": (lambda w: w.webhook("https://127.0.0.1:1/", bearer="a", username="b"), "sink siem", "are set together"),  # noqa: E501
}  # fmt: skip
WARNINGS: dict[str, tuple[Break, str, str]] = {
    "a key that there is not": (set_top(storag='"x"'), "configuration", "did you mean storage?"),
    "others may read the identity": (open_identity, "identity", "may be read by other users"),
    "the identity expires soon": (identity_for(timedelta(hours=20)), "identity", "expires at"),
    "the start time is in the future": (set_top(start_time='"2100-01-01T00:00:00Z"'), "configuration", "in the future"),
    "the disk is nearly full": (little_room, "storage", "MiB free"),
    "a pattern that matches no type": (set_top(types='["user.lo*", "usr.*"]'), "configuration", "usr.*"),
}


@pytest.mark.parametrize("case", FAULTS)
async def test_a_fault_is_found_alone_and_says_what_to_do(world: World, case: str) -> None:
    breaks, area, what = FAULTS[case]
    breaks(world)
    found = [one for one in await world.findings() if one.level is Level.FAULT]
    if area == "way in":  # one fault seen from each way
        assert {one.area for one in found} == {area}
    else:
        assert [one.area for one in found] == [area], found
    assert any(what in one.what for one in found), found
    assert all(one.next_step for one in found), found


@pytest.mark.parametrize("case", WARNINGS)
async def test_what_deserves_a_look_is_a_warning(world: World, case: str) -> None:
    breaks, area, what = WARNINGS[case]
    breaks(world)
    (found,) = [one for one in await world.findings() if one.level is Level.WARNING]
    assert (found.area, bool(found.next_step)) == (area, True)
    assert what in found.what


async def test_a_silent_server_is_no_way_in(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        world.monkeypatch.setattr(cluster_check, "WAY_WITHIN", 0.5)
        world.teleport["addr"] = f'"127.0.0.1:{silent.getsockname()[1]}"'
        found = faults(await world.findings())
    assert {one.area for one in found} == {"way in"}
    assert all("no answer within" in one.what for one in found)


async def test_another_server_is_no_way_in(world: World) -> None:
    async with receiving(lambda _: Reply(200), None) as other:
        world.monkeypatch.setattr(cluster_check, "WAY_WITHIN", 5.0)
        world.teleport["addr"] = f'"127.0.0.1:{other.port}"'
        found = faults(await world.findings())
    assert {one.area for one in found} == {"way in"}


@pytest.mark.parametrize(
    ("shift", "level", "what"),
    [
        (0.0, Level.OK, "agrees with"),
        (-30.0, Level.WARNING, "s behind that of the Proxy"),
        (-600.0, Level.FAULT, "s behind that of the Proxy"),
        (600.0, Level.FAULT, "s ahead of that of the Proxy"),
    ],
)
async def test_a_clock_apart_from_that_of_the_proxy_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: float, level: Level, what: str
) -> None:
    async with simulated(tmp_path, "--lifetime=300000", "--events=10", "--front=tls-routing") as ready:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "web-ca.pem"))
        world = World(tmp_path, {**ready, "address": ready["web"]}, monkeypatch)
        monkeypatch.setattr(cluster_check, "time", lambda: time() + shift)
        found = await world.findings()
    (clock,) = [one for one in found if one.area == "clock"]
    assert (clock.level, bool(clock.next_step)) == (level, level is not Level.OK)
    assert what in clock.what


@pytest.mark.parametrize(
    ("ahead", "level"), [(None, Level.OK), (1.0, Level.OK), (20.0, Level.WARNING), (3000.0, Level.FAULT)]
)
async def test_an_event_of_our_future_shows_that_our_clock_is_behind(ahead: float | None, level: Level) -> None:
    client = ScriptedClient()
    client.log = [] if ahead is None else [wire_at("a", time() + ahead)]
    with socket.create_server(("127.0.0.1", 0)) as no_proxy:
        address = f"127.0.0.1:{no_proxy.getsockname()[1]}"
    found = await cluster_check._clock([address], client, insecure_proxy=False)
    assert found.level is level
    assert ("behind that of the newest event" in found.what) == (level is not Level.OK)


@pytest.mark.parametrize(
    ("traits", "shown"),
    [
        ('{"logins":["root","ubuntu"],"env":["prod"]}', ", the traits logins=root|ubuntu, env=prod"),
        ("null", ""), ("{}", ""), ("no JSON", ""), ('["a"]', ""), ('{"logins":null}', ""),
        (f'{{"groups":["{"g" * 300}"]}}', f", the traits groups={'g' * 193}…"),
    ],
)  # fmt: skip
def test_the_traits_of_the_identity_are_told(tmp_path: Path, traits: str, shown: str) -> None:
    pki = make_pki(tmp_path, "cluster")
    subject = x509.Name([x509.NameAttribute(NameOID.POSTAL_CODE, traits), *name("user", "role")])
    _, certificate = issue(pki.authority, subject, timedelta(hours=1))
    assert identity_check._traits(x509.load_pem_x509_certificate(certificate)) == shown


async def test_the_way_in_tells_how_it_is_encrypted(world: World) -> None:
    (way,) = [one.what for one in await world.findings() if one.area == "way in" and "leads to" in one.what]
    assert re.search(
        r"leads to the cluster \(TLSv1\.3, TLS_\w+, certificate until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\)", way
    )


async def test_the_process_that_works_on_a_state_is_told(world: World) -> None:
    directory = world.directory / "storage" / "sim.test" / "siem"
    store = SqliteStore(directory)
    try:
        busy = await world.findings()
    finally:
        store.close()
    free = await world.findings()
    assert f"the event handler with pid {os.getpid()} works on the state of siem" in [one.what for one in busy]
    assert "no event handler works on the state of siem" in [one.what for one in free]
    assert faults([*busy, *free]) == []


async def test_an_identity_of_another_cluster_is_refused(world: World) -> None:
    identity_for(timedelta(days=10))(world)
    found = faults(await world.findings())
    assert {one.area for one in found} == {"way in"}
    assert any("is not trusted" in one.what for one in found)


async def inside(world: World, client: ScriptedClient) -> list[Finding]:
    write_cluster_files(world.directory, "scripted.test")
    credentials = load(str(world.directory / "identity"), "", "", "")
    settings = StartSettings()
    return faults([one async for one in cluster_check._inside(client, settings, credentials)])


class Refusing(ScriptedClient):
    """Refuses a call as a server does where the role lacks a rule."""

    def __init__(self, method: str, code: str = "PERMISSION_DENIED") -> None:
        super().__init__()
        self.bulk = True
        self._method, self._code = method, code
        self.version = "18.1.0"

    async def ping(self) -> Cluster:
        return Cluster("scripted.test", self.version)

    async def search(self, *args: Any, **kwargs: Any) -> tuple[list[bytes], str]:
        if self._method == "search":
            raise RpcError("GetUnstructuredEvents", self._code, "access denied to perform action")
        return [], ""

    async def recording(self, session_id: str, index: int) -> AsyncIterator[list[bytes]]:
        if self._method == "recording":
            raise RpcError("StreamUnstructuredSessionEvents", self._code, "access denied to perform action")
        raise RpcError("StreamUnstructuredSessionEvents", "NOT_FOUND", "there is no such recording")
        yield []


@pytest.mark.parametrize(
    ("method", "code", "what", "step"),
    [
        ("search", "PERMISSION_DENIED", "may not list events", "event: list, read"),
        ("search", "INTERNAL", "GetUnstructuredEvents", "log of the Auth server"),
        ("recording", "PERMISSION_DENIED", "may not read session recordings", "session: list, read"),
    ],
)
async def test_a_rule_that_the_role_lacks_is_named(world: World, method: str, code: str, what: str, step: str) -> None:
    (found,) = await inside(world, Refusing(method, code))
    assert (found.level, found.area) == (Level.FAULT, "role")
    assert what in found.what
    assert step in found.next_step


@pytest.mark.parametrize("version", ["12.4.1", "v27.0.0"])
async def test_a_version_that_was_not_tested_is_a_warning(world: World, version: str) -> None:
    client = Refusing("")
    client.version = version
    (found,) = await inside(world, client)
    assert found.level is Level.WARNING
    assert version in found.what


async def test_another_cluster_than_that_of_the_identity_is_a_fault(world: World) -> None:
    client = Refusing("")
    write_cluster_files(world.directory, "other.test")
    credentials = load(str(world.directory / "identity"), "", "", "")
    found = [one async for one in cluster_check._inside(client, StartSettings(), credentials)]
    (wrong,) = faults(found)
    assert "scripted.test, and the identity is of other.test" in wrong.what


async def test_a_back_end_without_bulk_export_is_told(world: World) -> None:
    client = Refusing("")
    client.bulk = False
    write_cluster_files(world.directory, "scripted.test")
    credentials = load(str(world.directory / "identity"), "", "", "")
    found = [one async for one in cluster_check._inside(client, StartSettings(), credentials)]
    assert "has no bulk export" in found[-1].what


async def test_a_receiver_over_tls_is_trusted_or_the_reason_is_told(world: World, tmp_path: Path) -> None:
    pki, other = make_pki(tmp_path, "sink"), make_pki(tmp_path, "other")
    files = pki.client_files()
    named = {"ca": files.ca, "cert": files.cert, "key": files.key}
    async with receiving(lambda _: Reply(200), pki.server_context("localhost")) as receiver:
        world.webhook(f"{receiver.url}/", **named)
        assert await failures(world) == []
        world.webhook(f"{receiver.url}/", **{**named, "ca": str(other.path("ca.crt"))})
        (untrusted,) = await failures(world)
        world.webhook(f"https://127.0.0.1:{receiver.port}/", **named)
        (named_otherwise,) = await failures(world)
        world.webhook(f"{receiver.url}/", ca=files.ca)
        (no_certificate,) = await failures(world)
    assert "is not trusted" in untrusted.what
    assert "mismatch" in named_otherwise.what
    assert "certificate" in no_certificate.what.lower()
    assert all(one.area == "sink siem" and one.next_step for one in (untrusted, named_otherwise, no_certificate))


async def test_tls_to_a_port_in_the_clear_is_told(world: World) -> None:
    async with receiving(lambda _: Reply(200), None) as receiver:
        world.monkeypatch.setattr(sinks_check, "HANDSHAKE_WITHIN", 0.5)
        world.webhook(f"https://localhost:{receiver.port}/")
        (found,) = faults(await world.findings())
    assert "TLS handshake" in found.what


@pytest.mark.parametrize(("left", "level"), [(timedelta(seconds=-30), Level.FAULT), (timedelta(days=3), Level.WARNING)])
async def test_a_client_certificate_near_its_end_is_told(
    world: World, tmp_path: Path, left: timedelta, level: Level
) -> None:
    pki = make_pki(tmp_path, "sink")
    key, cert = issue(pki.authority, name("client", "sink"), left)
    write_secret(pki.path("client.key"), key)
    write_secret(pki.path("client.crt"), cert)
    findings = [one async for one in _check_certificate(world, str(pki.path("client.crt")))]
    assert [one.level for one in findings if one.level is not Level.OK] == [level]


async def _check_certificate(world: World, path: str) -> AsyncIterator[Finding]:
    await world.findings()
    settings = load_settings({}, {}, str(world.directory / "handler.toml")).settings
    (configured,) = settings.sinks
    plan = planned_sink(settings, configured)
    plan = type(plan)(plan.sink, plan.filters, plan.transforms, plan.type, path)
    async for one in sinks_check._check(plan, configured, "sink siem", send=False):
        yield one
    await plan.sink.close()


@pytest.mark.parametrize(
    ("status", "what"), [(200, ""), (401, "answered 401"), (404, "answered 404"), (503, "answered 503")]
)
async def test_with_send_the_receiver_says_what_it_thinks(world: World, status: int, what: str) -> None:
    async with receiving(lambda _: Reply(status), None) as receiver:
        world.webhook(f"{receiver.url}/in", bearer="a-secret-token")
        world.send = True
        found = faults(await world.findings())
    assert [what in one.what for one in found] == [True] * bool(what)
    assert b"teleport-event-handler.test" in receiver.requests[0].body
    assert "a-secret-token" not in str(found)


async def test_a_bucket_and_a_lease_are_only_looked_at(world: World, tmp_path: Path) -> None:
    pki = make_pki(tmp_path, "kubernetes")
    with_keys_of_aws(world)
    with state_bucket() as bucket:
        async with lease_server(tmp_path, pki) as leases:
            for name, value in leases.environment.items():
                world.monkeypatch.setenv(name, value)
            world.top |= {"storage": f'"{bucket.url()}"', "lease": '"kubernetes"'}
            world.top["lease-account"] = f'"{leases.account}"'
            found = await world.findings()
            assert faults(found) == []
            assert {"lease", "storage"} <= {one.area for one in found}
            assert (bucket.writes, leases.leases) == (0, {})
            leases.allowed, bucket.closed = False, True
            assert [one.area for one in faults(await world.findings())] == ["lease", "storage"]


async def test_nothing_stays_behind(world: World) -> None:
    await world.findings()
    assert sorted(one.name for one in world.directory.iterdir()) == ["events.ndjson", "handler.toml", "identity"]


def test_the_page_lists_every_fault_that_is_tested() -> None:
    rows = re.findall(r"^\| ([^|`]+?) \|", PAGE.read_text().partition("## Faults")[2], re.MULTILINE)
    listed = {row for row in rows if row not in ("what is wrong", "---")}
    assert {*FAULTS, *WARNINGS} <= listed, {*FAULTS, *WARNINGS} - listed
    assert len(listed) >= 40


async def run(config: Path, *more: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "event_handler", "check", "-c", str(config), *more, stdout=subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_the_command_ends_with_1_where_there_is_a_fault_and_0_otherwise(world: World) -> None:
    await world.findings()
    code, text = await run(world.directory / "handler.toml")
    assert code == 0
    assert text.endswith("\n0 faults, 0 warnings\n")
    refused_sink(world)
    await world.findings()
    code, text = await run(world.directory / "handler.toml", "--json")
    assert code == 1
    said = orjson.loads(text)
    assert (said["fault"], said["warning"]) == (1, 0)
    assert [one["area"] for one in said["findings"] if one["level"] == "fault"] == ["sink siem"]


def test_a_finding_is_a_mark_a_sentence_and_a_step() -> None:
    assert lines(ok("storage", "is there")) == ["\x1b[32m✓\x1b[0m storage: is there"]
    assert lines(fault("a", "b", "c")) == ["\x1b[31m✗\x1b[0m a: b", "    c"]
    assert lines(warning("a", "b", "c"), unicode=False)[0] == "\x1b[33m!\x1b[0m a: b"
    assert lines(fault("a", "b"), unicode=False) == ["\x1b[31mx\x1b[0m a: b"]
