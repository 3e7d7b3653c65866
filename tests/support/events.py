"""Events as the cluster sends them."""

from __future__ import annotations

from google.protobuf import json_format, struct_pb2

from event_handler.teleport.wire.messages import write_number, write_text, write_varint


def wire(uid: str, kind: str = "user.login", **more: object) -> bytes:
    content = struct_pb2.Struct()
    json_format.ParseDict({"uid": uid, "event": kind, "ei": 0, **more}, content)
    data = content.SerializeToString()
    head = write_text(1, kind) + write_text(2, uid) + write_number(4, 0)
    return head + b"\x2a" + write_varint(len(data)) + data


def ids(count: int, prefix: str = "e") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]
