"""Selects from runs of events and tells what came of it as JSON: in this process, or line by line as a program of its
own.
"""

from __future__ import annotations

import json
import sys
from base64 import b64decode
from typing import Any

from event_handler.pipeline import select
from event_handler.pipeline.dedup import DuplicateWindow
from event_handler.teleport.wire.raw import raw_events


def selected(order: dict[str, Any]) -> list[Any]:
    """What a new selector makes of the `runs` of an order, each a session id ("" = none) and events in base64.

    `lists` are the filters, `kept` is the size of the window of delivered ids.
    """
    selector = select.Selector("desk", DuplicateWindow(1, order["kept"]), **order["lists"])
    made, duplicates = [], 0
    for session_id, wires in order["runs"]:
        chosen = selector.select(raw_events([b64decode(wire) for wire in wires], session_id))
        duplicates += chosen.duplicates
        events = [
            [event.type, event.id, event.time, event.index, event.body.decode(), event.session_id, dedup_key.hex()]
            for event, dedup_key in chosen.events
        ]
        letters = [[letter.sink, letter.reason, letter.type, letter.id, letter.body.decode()] for letter in chosen.dead]
        announced = [[recording.session_id, recording.time, recording.uploaded] for recording in chosen.recordings]
        made.append([events, letters, announced])
    return [made, duplicates]


def main() -> None:
    print(select.__file__, flush=True)
    for line in sys.stdin:
        print(json.dumps(selected(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
