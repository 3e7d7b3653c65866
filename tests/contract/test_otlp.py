"""What is OTLP's own: records as the protocol's own library reads them, partial success, and gRPC."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Denied, Reject, Retry, Split
from event_handler.sinks.otlp import OtlpOptions, OtlpSink
from event_handler.sinks.otlp.encode import Encoder, rejected
from event_handler.sinks.otlp.grpc import EXPORT
from tests.contract.deliveries import events, verdict
from tests.contract.http_adapters_observability import otlp_records
from tests.contract.pki import Pki, make_pki
from tests.contract.receiver import Reply, receiving

LOGIN = {
    "addr.remote": "[2001:db8::7]:53122",
    "cluster_name": "example.com",
    "code": "T1000W",
    "event": "user.login",
    "nested": {"list": [1, 2.5, None, True, "x"], "empty": {}},
    "success": False,
    "uid": "u1",
    "user": "alice",
}
ENCODER = Encoder({"service.name": "teleport"}, "scope", structured=False)


def event(content: dict[str, Any], session_id: str = "", moment: float = 1_790_000_000.123456) -> Event:
    return Event(str(content.get("event", "print")), "u1", moment, 0, orjson.dumps(content), session_id)


def attributes(record: LogRecord) -> dict[str, str]:
    return {one.key: one.value.string_value for one in record.attributes}


def value_of(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(one) for one in value.array_value.values]
    if kind == "kvlist_value":
        return {one.key: value_of(one.value) for one in value.kvlist_value.values}
    return None if kind is None else getattr(value, kind)


def test_a_record_has_times_severity_name_and_the_conventional_attributes() -> None:
    body = ENCODER.request([event(LOGIN)], 1_790_000_001.0)
    (record,) = otlp_records(body)
    assert record.time_unix_nano == 1_790_000_000_123_456_000
    assert record.observed_time_unix_nano == 1_790_000_001_000_000_000
    assert (record.severity_number, record.severity_text) == (13, "WARN")
    assert record.event_name == "user.login"
    assert orjson.loads(record.body.string_value) == LOGIN
    assert attributes(record) == {
        "log.record.uid": "u1",
        "user.name": "alice",
        "teleport.cluster": "example.com",
        "teleport.code": "T1000W",
        "client.address": "2001:db8::7",
    }
    request = ExportLogsServiceRequest.FromString(body)
    assert request.resource_logs[0].resource.attributes[0].value.string_value == "teleport"
    assert request.resource_logs[0].scope_logs[0].scope.name == "scope"


def test_a_recorded_event_names_its_session() -> None:
    (record,) = otlp_records(ENCODER.request([event({"sid": "other"}, "5f0c")], 0.0))
    assert attributes(record)["session.id"] == "5f0c"
    assert [one.key for one in record.attributes].count("session.id") == 1
    assert orjson.loads(record.body.string_value)["teleport_session_id"] == "5f0c"


PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=20))
JSON = st.recursive(
    st.one_of(PLAIN, st.floats(allow_nan=False, allow_infinity=False)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=12), JSON, max_size=6), st.floats(allow_nan=False), st.sampled_from(["", "5f"]))
def test_the_protocols_own_library_reads_what_was_written(
    content: dict[str, Any], moment: float, session_id: str
) -> None:
    encoder = Encoder({"service.name": "teleport", "a": "é"}, "scope", structured=True)
    (record,) = otlp_records(encoder.request([event(content, session_id, moment)], 1.0))
    expected = {"teleport_session_id": session_id, **content} if session_id else content
    assert value_of(record.body) == orjson.loads(orjson.dumps(expected))


@given(st.integers(0, 2**40), st.text(max_size=30))
def test_a_partial_success_is_read(count: int, text: str) -> None:
    answer = ExportLogsServiceResponse()
    answer.partial_success.rejected_log_records = count
    answer.partial_success.error_message = text
    assert rejected(answer.SerializeToString()) == (count, text)


@given(st.binary(max_size=40))
def test_whatever_a_receiver_answers_is_read_without_a_fault(answer: bytes) -> None:
    rejected(answer)


async def test_records_that_are_refused_make_a_refusal_that_narrows_down() -> None:
    answer = ExportLogsServiceResponse()
    answer.partial_success.rejected_log_records = 1
    answer.partial_success.error_message = "too old"
    async with receiving(lambda _: Reply(200, answer.SerializeToString()), None) as receiver:
        sink = OtlpSink(OtlpOptions(url=receiver.url), "otel", "sinks.otel")
        said = await verdict(sink)
        await sink.close()
    assert said == Reject("the receiver refused 1 records: too old")
    assert receiver.requests[0].target == "/v1/logs"


class Collector:
    """A server of the logs service; `answers` says with what each request is answered."""

    def __init__(self) -> None:
        self.requests: list[ExportLogsServiceRequest] = []
        self.metadata: list[dict[str, str]] = []
        self.answer: Callable[[], ExportLogsServiceResponse] = ExportLogsServiceResponse

    async def export(self, stream: Stream[ExportLogsServiceRequest, ExportLogsServiceResponse]) -> None:
        request = await stream.recv_message()
        assert request is not None
        answer = self.answer()
        self.requests.append(request)
        self.metadata.append({name: str(value) for name, value in (stream.metadata or {}).items()})
        await stream.send_message(answer)

    def __mapping__(self) -> dict[str, Handler]:
        return {
            EXPORT: Handler(self.export, Cardinality.UNARY_UNARY, ExportLogsServiceRequest, ExportLogsServiceResponse)
        }

    @property
    def ids(self) -> list[str]:
        return [
            orjson.loads(record.body.string_value)["uid"]
            for request in self.requests
            for record in otlp_records(request.SerializeToString())
        ]


@asynccontextmanager
async def collecting(pki: Pki | None) -> AsyncIterator[tuple[Collector, Server, int]]:
    collector = Collector()
    server = Server([collector])
    context = pki.server_context("localhost") if pki else None
    if context is not None:
        context.set_alpn_protocols(["h2"])
    await server.start("127.0.0.1", 0, ssl=context)
    assert isinstance(server._server, asyncio.Server)
    port = server._server.sockets[0].getsockname()[1]
    try:
        yield collector, server, port
    finally:
        server.close()
        await server.wait_closed()


def grpc_sink(url: str, pki: Pki | None = None, **options: Any) -> OtlpSink:
    if pki:
        files = pki.client_files()
        options = {"ca": files.ca, "cert": files.cert, "key": files.key, **options}
    return OtlpSink(OtlpOptions(url=url, protocol="grpc", **{"timeout": 5.0, **options}), "otel", "sinks.otel")


async def test_grpc_over_tls_delivers_with_its_headers(tmp_path: Path) -> None:
    pki = make_pki(tmp_path, "otlp")
    async with collecting(pki) as (collector, _, port):
        sink = grpc_sink(f"https://localhost:{port}", pki, bearer="a-token", headers={"X-Tenant": "security"})
        said = await asyncio.gather(*(verdict(sink, events(50, first=50 * number)) for number in range(4)))
        await sink.close()
    assert said == [Delivered()] * 4
    assert sorted(collector.ids) == sorted(f"e{number}" for number in range(200))
    assert collector.metadata[0]["authorization"] == "Bearer a-token"
    assert collector.metadata[0]["x-tenant"] == "security"


async def test_grpc_with_an_unknown_authority_is_for_a_person(tmp_path: Path) -> None:
    pki, other = make_pki(tmp_path, "otlp"), make_pki(tmp_path, "other")
    async with collecting(pki) as (collector, _, port):
        sink = grpc_sink(f"https://localhost:{port}", pki, ca=other.client_files().ca)
        said = await verdict(sink)
        await sink.close()
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert "sinks.otel.ca" in said.reason
    assert collector.requests == []


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (Status.UNAVAILABLE, "busy", Retry),
        (Status.RESOURCE_EXHAUSTED, "queue is full", Retry),
        (Status.RESOURCE_EXHAUSTED, "grpc: received message larger than max", Split),
        (Status.INTERNAL, "", Retry),
        (Status.INVALID_ARGUMENT, "bad record", Reject),
        (Status.UNAUTHENTICATED, "no token", Denied),
        (Status.PERMISSION_DENIED, "", Denied),
        (Status.UNIMPLEMENTED, "unknown service", Denied),
    ],
)
async def test_the_status_of_grpc_decides(status: Status, message: str, kind: type) -> None:
    async with collecting(None) as (collector, _, port):

        def refuse() -> ExportLogsServiceResponse:
            raise GRPCError(status, message)

        collector.answer = refuse
        sink = grpc_sink(f"http://localhost:{port}")
        said = await verdict(sink)
        await sink.close()
    assert type(said) is kind


async def test_a_grpc_receiver_that_is_away_is_an_outage_and_comes_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    sink = grpc_sink(f"http://localhost:{port}")
    said = await verdict(sink)
    assert isinstance(said, Retry)
    assert not said.misconfigured
    assert "sinks.otel.url" in said.reason
    collector = Collector()
    server = Server([collector])
    await server.start("127.0.0.1", port)
    assert await verdict(sink) == Delivered()
    await sink.close()
    server.close()
    await server.wait_closed()
    assert collector.ids == ["e0", "e1", "e2"]


async def test_a_grpc_receiver_that_does_not_answer_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:  # accepts and never answers
        sink = grpc_sink(f"http://localhost:{listening.getsockname()[1]}", timeout=0.3)
        said = await verdict(sink)
        await sink.close()
    assert isinstance(said, Retry)
    assert "does not answer within 0.3 s" in said.reason


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"proxy": "http://proxy:3128"}, "sinks.otel.proxy is for HTTP only"),
        ({"oauth_token_url": "https://t/", "oauth_client_id": "i", "oauth_client_secret": "s"}, "oauth-token-url"),
    ],
)
def test_what_grpc_cannot_do_is_refused_at_the_start(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SinkError, match=words):
        grpc_sink("https://localhost:4317", **options)


def test_batches_of_one_to_many_events_have_all_of_them() -> None:
    for count in itertools.chain(range(1, 4), (127, 128, 129)):
        batch = events(count)
        assert len(otlp_records(ENCODER.request(batch, 0.0))) == count
