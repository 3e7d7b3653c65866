"""Makes audit events and session recordings: many types, the common fields, deterministic for a seed."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import Any

from event_handler.simulator.messages import new

UPLOAD_INDEX = 2_147_483_647  # the index of session.upload on a real cluster, so that it sorts last
USERS = ("alice", "bob", "carol", "dave", "bot-deploy", "björn")


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One event of the log: the facts the back end needs and the encoded EventUnstructured. `time` is in seconds."""

    id: str
    type: str
    time: float
    wire: bytes
    index: int = 0


def encode(content: dict[str, Any], time: float) -> LogEvent:
    """Encode an event. One without a uid gets the hash of its JSON text as id, as in a recording."""
    identity = content.get("uid") or hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    message = new("EventUnstructured", type=content["event"], id=identity, index=int(content["ei"]))
    milliseconds = round(time * 1_000_000) // 1000  # what `stamp` writes: both must tell the same time
    message.time.FromMilliseconds(milliseconds)
    message.unstructured.update(content)
    return LogEvent(identity, message.type, milliseconds / 1000, message.SerializeToString(), message.index)


def _time_field(milliseconds: int) -> bytes:
    """Field 3 of an EventUnstructured as it stands in the wire bytes."""
    message = new("EventUnstructured")
    message.time.FromMilliseconds(milliseconds)
    return bytes(message.SerializeToString())


def stamp(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Generator:
    """Events of one cluster, the same for the same seed."""

    def __init__(self, cluster: str, seed: int) -> None:
        self._cluster = cluster
        self._random = random.Random(seed)
        table = resources.files("event_handler.simulator").joinpath("event_types.tsv").read_text()
        self._types = [tuple(line.split("\t")) for line in table.splitlines()]

    def uuid(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def _common(self, kind: str, code: str, time: float, index: int = 0) -> dict[str, Any]:
        return {
            "event": kind,
            "code": code,
            "time": stamp(time),
            "uid": self.uuid(),
            "ei": index,
            "cluster_name": self._cluster,
        }

    def event(self, time: float) -> LogEvent:
        kind, code = self._random.choice(self._types)
        content = self._common(kind, code, time) | {
            "user": self._random.choice(USERS),
            "user_kind": 1,
            "user_roles": ["access", "editor"],
            "addr.remote": "10.0.{}.{}:{}".format(*map(self._random.randrange, (0, 0, 1024), (256, 256, 65536))),
            "success": not code.endswith("E"),
            "name": f"resource-{self._random.randrange(1000)}",
            "expires": "0001-01-01T00:00:00Z",
            "server_labels": {"env": self._random.choice(["prod", "test"]), "load": self._random.random()},
        }
        if self._random.random() < 0.2:
            content["user_traits"] = {"logins": ["root", "ubuntu"], "note": 'quote " and \\ and <tag> and 日本'}
        return encode(content, time)

    def again(self, model: LogEvent, time: float) -> LogEvent:
        """A copy of `model`, which must have a uid, with an id and a time of its own: three times faster than a new
        event.
        """
        identity, milliseconds = self.uuid(), round(time * 1_000_000) // 1000
        wire = model.wire.replace(model.id.encode(), identity.encode())
        wire = wire.replace(stamp(model.time).encode(), stamp(time).encode())
        wire = wire.replace(_time_field(round(model.time * 1000)), _time_field(milliseconds), 1)
        return LogEvent(identity, model.type, milliseconds / 1000, wire, model.index)

    def large_event(self, time: float, size: int) -> LogEvent:
        return encode(self._common("db.session.query", "TDB02I", time) | {"db_query": "x" * size}, time)

    def session(self, time: float, *, uploaded: bool) -> tuple[str, list[LogEvent], list[LogEvent]]:
        """One interactive SSH session: its id, its events in the log, and its recording."""
        sid = self.uuid()
        user = self._random.choice(USERS)
        own = {"sid": sid, "user": user, "login": "root", "server_id": self.uuid(), "namespace": "default"}
        end = time + 5.0
        prints = self._random.randrange(2, 12)
        first = self._common("session.start", "T2000I", time) | own | {"size": "80:25", "session_recording": "node"}
        last = self._common("session.end", "T2004I", end, prints + 3) | own
        last |= {"interactive": True, "session_recording": "node", "participants": [user]}
        last |= {"session_start": stamp(time), "session_stop": stamp(end)}
        recording = [encode(first, time)]
        for number in range(1, prints + 1):
            content = {
                "event": "print",
                "ei": number,
                "ci": number - 1,
                "ms": number * 40,
                "offset": number * 7,
                "time": stamp(time),
                "sid": sid,
            }
            content |= {"bytes": 7, "data": base64.b64encode(b"output\n").decode()}
            recording.append(encode(content, time))
        resize = self._common("resize", "T2002I", time, prints + 1) | own | {"size": "100:40"}
        leave = self._common("session.leave", "T2003I", end, prints + 2) | own
        recording += [encode(resize, time), encode(leave, end), encode(last, end)]
        log = [encode(first, time), encode(last, end)]
        if uploaded:
            upload = self._common("session.upload", "T2005I", end + 1.0, UPLOAD_INDEX) | {
                "sid": sid,
                "url": f"file:///log/{sid}.tar",
            }
            log.append(encode(upload, end + 1.0))
        return sid, log, recording
