"""Every exchange recorded from a real cluster is read, and every event equals what the Go plugin sent for it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from event_handler.teleport.wire import decode
from event_handler.teleport.wire import messages as m

GOLDEN = Path(__file__).parents[2] / "data" / "golden"
EXCHANGES = sorted((GOLDEN / "grpc").glob("*.json"))


def bodies() -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for name in ("bulk", "legacy"):
        for line in (GOLDEN / "http" / f"{name}.jsonl").read_text().splitlines():
            body = json.loads(json.loads(line)["body"])
            found.setdefault(body.get("uid", ""), []).append(body)
    return found


def events_of(exchange: dict[str, Any]) -> list[decode.WireEvent]:
    method = exchange["method"].rpartition("/")[2]
    answers = [base64.b64decode(answer) for answer in exchange["responses"]]
    if method == "GetUnstructuredEvents":
        return [decode.read_event(wire) for answer in answers for wire in decode.read_page(answer)[0]]
    if method == "ExportUnstructuredEvents":
        return [decode.read_event(decode.read_exported(answer)[0]) for answer in answers]
    if method == "StreamUnstructuredSessionEvents":
        return [decode.read_event(answer) for answer in answers]
    return []


@pytest.mark.parametrize("path", EXCHANGES, ids=lambda path: path.stem)
def test_every_event_equals_the_body_that_the_plugin_sent(path: Path) -> None:
    sent = bodies()
    for raw in events_of(json.loads(path.read_text())):
        body, uid = decode.convert(raw.content)
        content = json.loads(body)
        assert (raw.type, raw.index) == (content["event"], content["ei"])
        assert uid == content.get("uid", "")
        if uid in sent and uid:
            assert content in sent[uid]


def test_all_bodies_of_the_bulk_run_are_found_in_the_exchanges() -> None:
    converted = {
        decode.convert(raw.content)[1] for path in EXCHANGES for raw in events_of(json.loads(path.read_text()))
    }
    audit = {
        json.loads(record["body"])["uid"]
        for record in map(json.loads, (GOLDEN / "http" / "legacy.jsonl").read_text().splitlines())
    }
    assert len(audit & converted) >= 40


def test_the_text_is_sorted_and_so_the_same_on_every_read() -> None:
    exchange = json.loads((GOLDEN / "grpc" / "search-all.json").read_text())
    again = json.loads((GOLDEN / "grpc" / "search-order1.json").read_text())
    first = {raw.id: decode.convert(raw.content)[0] for raw in events_of(exchange)}
    second = {raw.id: decode.convert(raw.content)[0] for raw in events_of(again)}
    shared = first.keys() & second.keys()
    assert shared
    assert all(first[key] == second[key] for key in shared)


def test_export_answers_carry_the_cursor_that_follows_the_event() -> None:
    exchange = json.loads((GOLDEN / "grpc" / "export-chunk-a.json").read_text())
    cursors = [decode.read_exported(base64.b64decode(answer))[1] for answer in exchange["responses"]]
    assert cursors == [f"a1:{number}" for number in range(1, 26)]


@pytest.mark.parametrize("path", EXCHANGES, ids=lambda path: path.stem)
def test_requests_are_encoded_as_the_real_client_encodes_them(path: Path) -> None:
    exchange = json.loads(path.read_text())
    request = base64.b64decode(exchange["request"])
    fields = dict(decode.read_fields(request))
    method = exchange["method"].rpartition("/")[2]
    if method in ("GetEventExportChunks", "ExportUnstructuredEvents"):
        day = dict(decode.read_fields(fields[1]))[1] if isinstance(fields.get(1), bytes) else 0  # type: ignore[arg-type]
        texts = [fields.get(number, b"") for number in (2, 3)]
        ours = m.write_time(1, float(day)) if isinstance(day, int) else b""  # seconds only
        for number, text in zip((2, 3), texts, strict=True):
            assert isinstance(text, bytes)
            ours += m.write_text(number, text.decode())
        assert dict(decode.read_fields(ours)).keys() == fields.keys()
