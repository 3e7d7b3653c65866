"""Tells the time that a search's page key stands for: every event before it comes earlier in the search than the page.

Keys are opaque to the protocol; these are the forms of the back ends that search. An unknown form has no time.
"""

from __future__ import annotations

import base64
import json
import re
import struct

_FILE = re.compile(r"[^/]+/([0-9]{1,19})")  # <event id>/<Unix nanoseconds>; the older form has no time
_FIRESTORE = re.compile(r"([0-9]{1,10}):.+")  # <Unix seconds>:<document id>
_BINARY = re.compile(r"[A-Za-z0-9_-]{32}")  # PostgreSQL, Athena: base64 of the time in microseconds and 16 bytes of id


def page_key_time(key: str) -> float | None:
    """Seconds since the epoch at which the page of `key` begins, None when the key does not tell."""
    if found := _FILE.fullmatch(key):
        return int(found[1]) / 1e9
    if found := _FIRESTORE.fullmatch(key):
        return float(found[1])
    if _BINARY.fullmatch(key):
        return float(struct.unpack_from("<q", base64.urlsafe_b64decode(key))[0]) / 1e6
    return _dynamo(key)


def _dynamo(key: str) -> float | None:
    """DynamoDB's: JSON with an `iterator`, JSON again or an object, whose CreatedAt is in seconds, perhaps as {"N".

    "…"}.
    """
    try:
        iterator = json.loads(key)["iterator"]
        created = (json.loads(iterator) if isinstance(iterator, str) else iterator)["CreatedAt"]
        return float(int(created["N"] if isinstance(created, dict) else created))
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None
