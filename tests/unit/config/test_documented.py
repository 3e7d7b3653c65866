"""Every piece of TOML in the documentation is a configuration that `start` takes, with keys that it knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from event_handler.config.load import load

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PIECES = [
    (page, piece)
    for page in PAGES
    for piece in re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
]
REQUIRED = {"fluentd_url": "https://c/a", "fluentd_session_url": "https://c/s", "storage": "s"}


def test_there_are_pieces_to_look_at() -> None:
    assert {page.name for page, _ in PIECES} >= {"connect.md", "filters.md", "locks.md", "sinks.md", "transforms.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_setting_stands_outside_of_such_a_piece(page: Path) -> None:
    """Where no test would load it."""
    rest = re.sub(r"^```toml\n.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r'^ *[a-z][a-z.-]* = ["\[\dtf].*$', rest, re.MULTILINE) == []


@pytest.mark.parametrize(
    ("page", "piece"), PIECES, ids=[f"{page.name} {number}" for number, (page, _) in enumerate(PIECES)]
)
def test_it_loads_without_a_warning(page: Path, piece: str, tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    config = tmp_path / "some.toml"
    config.write_text(re.sub(r'"/[^"]*"', f'"{tmp_path}/there"', piece))  # no file of the page exists here
    assert load(REQUIRED, {}, str(config)).warnings == [], page
