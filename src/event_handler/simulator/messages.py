"""The wire messages of the simulated server, built with the protobuf library from their field numbers.

The client reads the same messages by hand; two implementations check each other.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2, timestamp_pb2

_PACKAGE = "simulator"
_TEXT, _INT32, _INT64, _ENUM_AS_INT, _MESSAGE = 9, 5, 3, 5, 11
_TIME, _STRUCT = ".google.protobuf.Timestamp", ".google.protobuf.Struct"
_MESSAGES: dict[str, list[tuple[int, str, int, str, bool]]] = {
    "PingResponse": [(1, "cluster_name", _TEXT, "", False), (2, "server_version", _TEXT, "", False)],
    "EventUnstructured": [
        (1, "type", _TEXT, "", False),
        (2, "id", _TEXT, "", False),
        (3, "time", _MESSAGE, _TIME, False),
        (4, "index", _INT64, "", False),
        (5, "unstructured", _MESSAGE, _STRUCT, False),
    ],
    "SearchRequest": [
        (1, "namespace", _TEXT, "", False),
        (2, "start_date", _MESSAGE, _TIME, False),
        (3, "end_date", _MESSAGE, _TIME, False),
        (4, "event_types", _TEXT, "", True),
        (5, "limit", _INT32, "", False),
        (6, "start_key", _TEXT, "", False),
        (7, "order", _ENUM_AS_INT, "", False),
    ],
    "EventsUnstructured": [
        (1, "items", _MESSAGE, f".{_PACKAGE}.EventUnstructured", True),
        (2, "last_key", _TEXT, "", False),
    ],
    "ChunksRequest": [(1, "date", _MESSAGE, _TIME, False)],
    "EventExportChunk": [(1, "chunk", _TEXT, "", False)],
    "ExportRequest": [
        (1, "date", _MESSAGE, _TIME, False),
        (2, "chunk", _TEXT, "", False),
        (3, "cursor", _TEXT, "", False),
    ],
    "ExportEventUnstructured": [
        (1, "event", _MESSAGE, f".{_PACKAGE}.EventUnstructured", False),
        (2, "cursor", _TEXT, "", False),
    ],
    "Metadata": [(1, "name", _TEXT, "", False)],
    "LockTarget": [(1, "user", _TEXT, "", False), (3, "login", _TEXT, "", False)],
    "LockSpec": [
        (1, "target", _MESSAGE, f".{_PACKAGE}.LockTarget", False),
        (2, "message", _TEXT, "", False),
        (3, "expires", _MESSAGE, _TIME, False),
    ],
    "Lock": [
        (4, "metadata", _MESSAGE, f".{_PACKAGE}.Metadata", False),
        (5, "spec", _MESSAGE, f".{_PACKAGE}.LockSpec", False),
    ],
    "RecordingRequest": [(1, "session_id", _TEXT, "", False), (2, "start_index", _INT32, "", False)],
}


def _build() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    for known in (timestamp_pb2, struct_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto(
        name="simulator.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=["google/protobuf/timestamp.proto", "google/protobuf/struct.proto"],
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field, kind, type_name, repeated in fields:
            added = message.field.add(name=field, number=number, label=3 if repeated else 1)
            setattr(added, "type", kind)  # noqa: B010 - the stub wants an enum, the number is the same
            if type_name:
                added.type_name = type_name
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES
    }


CLASSES = _build()


def new(name: str, **fields: Any) -> Any:
    """A message of the class `name`, typed Any: its class is made at run time."""
    return CLASSES[name](**fields)


def parse(name: str, wire: bytes) -> Any:
    """Parse `wire` as the message `name`."""
    return CLASSES[name].FromString(wire)


def encoded_length(size: int) -> bytes:
    """`size` as the protobuf wire format writes lengths."""
    out = bytearray()
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    out.append(size)
    return bytes(out)
