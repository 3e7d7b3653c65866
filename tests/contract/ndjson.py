"""Reads back the lines of JSON that a sink has written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson


def read(*paths: Path) -> list[dict[str, Any]]:
    """All lines, each of which must be whole JSON."""
    texts = [path.read_bytes() for path in paths]
    assert all(text.endswith(b"\n") for text in texts if text)
    return [orjson.loads(line) for text in texts for line in text.splitlines()]


def uids(*paths: Path) -> list[str]:
    return [str(line["uid"]) for line in read(*paths)]
