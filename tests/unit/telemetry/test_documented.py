"""The log lines that docs/operations.md tells people to watch for are those of the program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LINES = sorted(
    line
    for cell in re.findall(r"^\| ([^|]+) \|", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    for line in re.findall(r"`([A-Za-z][a-z]+ [^`]+)`", cell)
    if "=" not in line
)
SOURCE = "".join(file.read_text() for file in (ROOT / "src" / "event_handler").rglob("*.py"))


def test_the_page_names_lines() -> None:
    assert len(LINES) >= 5


@pytest.mark.parametrize("line", LINES)
def test_it_is_written_somewhere(line: str) -> None:
    assert f'"{line}"' in SOURCE
