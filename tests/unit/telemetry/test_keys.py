"""Every key of a log line is listed in docs/logs.md, and every key that is listed is used."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
LEVELS = {"debug", "info", "warning", "error", "critical"}
# Of counters that are put together as a dictionary (runtime/worker.py).
FACTS = {
    "events",
    "session_events",
    "duplicates_dropped",
    "dead_letters",
    "dead_letters_kept",
    "retries",
    "requests_allowed",
    "failing",
}


def is_log_call(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    function = node.func
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return function.value.id == "log" and function.attr in LEVELS
    return isinstance(function, ast.Name) and function.id in ("say", "log_error")


def used() -> set[str]:
    found = set()
    for file in (ROOT / "src" / "event_handler").rglob("*.py"):
        if "simulator" not in file.parts:
            calls = filter(is_log_call, ast.walk(ast.parse(file.read_text())))
            found |= {key.arg for call in calls for key in call.keywords if key.arg}  # type: ignore[attr-defined]
    return found - {"exc_info"}


def test_the_list_is_complete() -> None:
    table = re.search(r"^## Keys\n(.*?)^## ", (ROOT / "docs" / "logs.md").read_text(), re.DOTALL | re.MULTILINE)
    assert table is not None
    listed = {
        name for row in re.findall(r"^\| (`.*?) \|", table[1], re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert listed == used() | FACTS
