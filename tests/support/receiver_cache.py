"""Where the real receivers are that `make receivers` fetches: outside the repository, once for all clones."""

from __future__ import annotations

import os
from pathlib import Path

PLACE = Path(
    os.environ.get("EVENT_HANDLER_RECEIVERS", "~/.cache/teleport-event-handler-receivers")
).expanduser()  # fmt: skip


def place(name: str, variable: str = "") -> Path:
    """The directory or program of that name, or what the variable says."""
    given = os.environ.get(variable) if variable else None
    return Path(given) if given else PLACE / name


def absent(name: str) -> str:
    """Why a test of that receiver cannot run, "" where it can."""
    return "" if place(name).exists() else f"there is no {place(name)}: make receivers fetches it"
