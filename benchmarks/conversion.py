"""Struct to JSON: the handler's own decoder against the protobuf library, for events of three sizes."""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from typing import Any

import orjson
from google.protobuf import json_format, struct_pb2

from benchmarks import stage
from event_handler.teleport.wire.decode import convert

ROUNDS = 5  # the best counts: the others were disturbed


def events() -> dict[str, dict[str, Any]]:
    """A small event, one of about 870 B like a `session.start`, and a large one of many nested values."""
    dice = random.Random(1)  # noqa: S311 - content of a benchmark

    def word() -> str:
        return f"{dice.getrandbits(64):016x}"

    small = {
        "event": "user.login",
        "code": "T1000I",
        "time": "2026-11-24T10:00:00.000Z",
        "uid": word(),
        "user": "alice",
        "success": True,
    }
    middle: dict[str, Any] = small | {
        "ei": 3,
        "login": "root",
        "size": "80:25",
        "labels": {"env": "prod", "load": dice.random()},
    }
    middle |= {f"field_{number}": word() * 2 for number in range(13)} | {
        "roles": ["access", "editor"],
        "ms": 12.5,
        "ok": False,
    }
    large = middle | {"tables": [{"name": word(), "rows": number, "keys": [word(), word()]} for number in range(500)]}
    return {"small": small, "middle": middle, "large": large}


def with_protobuf(wire: bytes) -> bytes:
    return orjson.dumps(json_format.MessageToDict(struct_pb2.Struct.FromString(wire)), option=orjson.OPT_SORT_KEYS)


def microseconds(work: Callable[[], object], times: int) -> float:
    """CPU time of one call, the best of some rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        begin = time.process_time()
        for _ in range(times):
            work()
        best = min(best, time.process_time() - begin)
    return best / times * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conversion", description=__doc__)
    parser.add_argument("--bytes", type=int, default=3_000_000, help="bytes converted in a round; more is steadier")
    options = parser.parse_args()
    rows = []
    for name, content in events().items():
        message = struct_pb2.Struct()
        message.update(content)
        wire = message.SerializeToString()
        body = convert(wire)[0]
        if json.loads(body) != json.loads(with_protobuf(wire)):
            raise SystemExit(f"the two decoders disagree on the {name} event")
        times = max(1, options.bytes // len(body))
        own = microseconds(lambda wire=wire: convert(wire), times)  # type: ignore[misc]  # a lambda with a default has no type
        library = microseconds(lambda wire=wire: with_protobuf(wire), times)  # type: ignore[misc]  # the same
        rows.append([name, f"{len(body):,}", f"{own:.1f}", f"{library:.1f}", f"{library / own:.1f} x"])
    stage.show(
        "Struct to JSON, CPU µs an event",
        ["event", "bytes of JSON", "own decoder", "MessageToDict + orjson", "ratio"],
        rows,
    )


if __name__ == "__main__":
    main()
