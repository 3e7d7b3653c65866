"""`docs/weaknesses.md` has a row for each of the known weaknesses, and the tests that it names exist."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "weaknesses.md").read_text()
ROWS = re.findall(r"^\| (W\d+) \|.*\| (.*) \|$", PAGE, re.MULTILINE)


def test_there_is_one_row_for_each() -> None:
    assert [name for name, _ in ROWS] == [f"W{number}" for number in range(1, 39)]


def test_every_test_that_is_named_exists() -> None:
    for name, shown in ROWS:
        tests = re.findall(r"`([\w/]+\.py)::(\w+)`", shown)
        assert tests, name
        for file, test in tests:
            assert re.search(rf"^(async )?def {test}\(", (TESTS / file).read_text(), re.MULTILINE), (
                f"{name}: {file}::{test}"
            )
