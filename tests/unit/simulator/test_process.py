"""The simulated cluster as a process, read with grpclib's own client over mutual TLS."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import time
from typing import Any

import pytest
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError

from event_handler.simulator.messages import new, parse

AUDIT = "/teleport.auditlog.v1.AuditLogService/"


class RawCodec(CodecBase):
    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return data


class Reader:
    def __init__(self, directory: Path, ready: dict[str, Any], certificate: bool = True) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(directory / "tls.cas")
        if certificate:
            context.load_cert_chain(directory / "tls.crt", directory / "tls.key")
        context.set_alpn_protocols(["h2"])
        host, _, port = ready["address"].partition(":")
        config = Configuration(ssl_target_name_override="teleport.cluster.local")
        self.channel = Channel(host, int(port), ssl=context, codec=RawCodec(), config=config)

    async def one(self, method: str, request: bytes) -> bytes:
        return bytes(await UnaryUnaryMethod(self.channel, method, bytes, bytes)(request))

    async def many(self, method: str, request: bytes) -> AsyncIterator[bytes]:
        async with UnaryStreamMethod(self.channel, method, bytes, bytes).open() as stream:
            await stream.send_message(request, end=True)
            async for message in stream:
                yield message


@asynccontextmanager
async def cluster(directory: Path, *options: str) -> AsyncIterator[tuple[Reader, dict[str, Any], dict[str, Any]]]:
    command = (sys.executable, "-m", "event_handler.simulator", f"--directory={directory}", *options)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        ready = json.loads(await process.stdout.readline())
        reader = Reader(directory, ready)
        try:
            yield reader, ready, json.loads((directory / "manifest.json").read_text())
        finally:
            reader.channel.close()
    finally:
        process.terminate()
        await process.wait()


async def export(reader: Reader) -> tuple[list[str], int]:
    """Read all chunks of the last days, going on after each outage; return the ids and the number of outages."""
    ids: list[str] = []
    outages = 0
    for days in range(4):
        asked = new("ChunksRequest")
        asked.date.FromSeconds(int(time() - days * 86_400))
        names = [
            parse("EventExportChunk", wire).chunk
            async for wire in reader.many(AUDIT + "GetEventExportChunks", asked.SerializeToString())
        ]
        for name in names:
            request = new("ExportRequest", chunk=name, date=asked.date)
            while True:
                try:
                    async for wire in reader.many(AUDIT + "ExportUnstructuredEvents", request.SerializeToString()):
                        item = parse("ExportEventUnstructured", wire)
                        ids.append(item.event.id)
                        request.cursor = item.cursor
                    break
                except GRPCError as error:
                    if error.status is not Status.UNAVAILABLE:
                        raise
                    outages += 1
    return ids, outages


async def test_bulk_export_of_everything_with_outages_and_a_large_event(tmp_path: Path) -> None:
    size = 5 * 1024 * 1024
    async with cluster(tmp_path, "--events=3000", "--unavailable-every=700", f"--large-event={size}") as (
        reader,
        ready,
        manifest,
    ):
        ids, outages = await export(reader)
        assert sorted(ids) == sorted(manifest["events"])
        assert len(ids) == ready["events"] == 3001
        assert outages == 4
        ping = parse("PingResponse", await reader.one("/proto.AuthService/Ping", b""))
        assert ping.cluster_name == ready["cluster"]


async def test_recordings_from_any_index_and_absent_ones(tmp_path: Path) -> None:
    async with cluster(tmp_path, "--events=200", "--sessions=4", "--late-recordings=60") as (reader, ready, manifest):
        assert ready["recordings"] == len(manifest["recordings"]) == 4
        late = 0
        for sid, count in manifest["recordings"].items():
            request = new("RecordingRequest", session_id=sid, start_index=1).SerializeToString()
            try:
                indices = [
                    parse("EventUnstructured", w).index
                    async for w in reader.many(AUDIT + "StreamUnstructuredSessionEvents", request)
                ]
                assert indices == list(range(1, count))
            except GRPCError as error:
                if (error.status, error.message) != (Status.NOT_FOUND, f"a recording for session {sid} was not found"):
                    raise
                late += 1
        assert late == 2


async def test_search_back_end_has_no_export_and_pages_through_everything(tmp_path: Path) -> None:
    async with cluster(tmp_path, "--events=2500", "--mode=search") as (reader, _, manifest):
        with pytest.raises(GRPCError, match="FileLog does not implement GetEventExportChunks") as refused:
            await anext(reader.many(AUDIT + "GetEventExportChunks", b""))
        assert refused.value.status is Status.UNIMPLEMENTED
        request = new("SearchRequest", limit=10_000)
        request.end_date.GetCurrentTime()
        ids: list[str] = []
        while True:
            answer = parse(
                "EventsUnstructured", await reader.one(AUDIT + "GetUnstructuredEvents", request.SerializeToString())
            )
            ids += [item.id for item in answer.items]
            request.start_key = answer.last_key
            if not answer.last_key:
                break
        assert ids == manifest["events"]


@pytest.mark.parametrize(
    ("back_end", "text"),
    [
        ("postgres", "pgevents backend does not support streaming export"),
        ("dynamodb", "dynamoevents backend does not support streaming export"),
    ],
)
async def test_database_back_ends_have_no_export_and_may_refuse_a_search_that_works_when_repeated(
    tmp_path: Path, back_end: str, text: str
) -> None:
    options = ("--mode=search", f"--back-end={back_end}", "--invalid-every=2", "--events=50", "--sessions=0")
    async with cluster(tmp_path, *options) as (reader, _, manifest):
        with pytest.raises(GRPCError, match=text) as refused:
            await anext(reader.many(AUDIT + "GetEventExportChunks", b""))
        assert refused.value.status is Status.UNIMPLEMENTED
        request = new("SearchRequest", limit=100)
        request.end_date.GetCurrentTime()
        for _ in range(2):
            answer = parse(
                "EventsUnstructured", await reader.one(AUDIT + "GetUnstructuredEvents", request.SerializeToString())
            )
            assert sorted(item.id for item in answer.items) == sorted(manifest["events"])
            with pytest.raises(GRPCError) as refused:
                await reader.one(AUDIT + "GetUnstructuredEvents", request.SerializeToString())
            assert refused.value.status is Status.INVALID_ARGUMENT


async def test_a_lock_is_recorded(tmp_path: Path) -> None:
    lock = new("Lock")
    lock.metadata.name, lock.spec.target.user = "lock-alice", "alice"
    async with cluster(tmp_path, "--events=10", "--sessions=0") as (reader, _, _):
        assert await reader.one("/proto.AuthService/UpsertLock", lock.SerializeToString()) == b""
    recorded = [json.loads(line) for line in (tmp_path / "locks.jsonl").read_text().splitlines()]
    assert [(one["name"], one["user"]) for one in recorded] == [("lock-alice", "alice")]


async def test_without_a_client_certificate_nothing_is_answered(tmp_path: Path) -> None:
    async with cluster(tmp_path, "--events=10", "--sessions=0") as (_, ready, _):
        stranger = Reader(tmp_path, ready, certificate=False)
        with pytest.raises((ssl.SSLError, ConnectionError, StreamTerminatedError)):
            await stranger.one("/proto.AuthService/Ping", b"")
        stranger.channel.close()
    for secret in ("identity", "tls.key", "server.pem"):
        assert (tmp_path / secret).stat().st_mode & 0o777 == 0o600
