"""docs/licences.md tells what is shipped, nothing of it is under a licence that binds the whole, and all is pinned."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from deploy.bundle.licences import NOT_SHIPPED, RefusedError, accept, installed, row, shipped

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "licences.md").read_text()
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))


def test_the_page_has_what_is_locked_with_its_licence() -> None:
    rows = re.findall(r"^\| ([a-z0-9._-]+) \| (\d\S+) \| .* \|$", PAGE, re.MULTILINE)
    assert rows == list(shipped()), "run: make licences"
    here = [one for one in shipped() if installed(one[0])]
    assert len(here) > 40
    assert [row(*one) for one in here if row(*one) not in PAGE] == []


def test_nothing_else_is_locked_for_the_archive() -> None:
    names = {name for name, _ in shipped()}
    assert {"aiohttp", "cryptography", "grpclib"} <= names
    assert not names & NOT_SHIPPED


@pytest.mark.parametrize("expression", ["MIT", "Apache-2.0 OR GPL-3.0-only", "MPL-2.0 AND (Apache-2.0 OR MIT)"])
def test_what_is_accepted(expression: str) -> None:
    accept("it", expression)


@pytest.mark.parametrize(
    "expression", ["unknown", "GPL-3.0-or-later", "AGPL-3.0-only", "MIT AND GPL-2.0-only", "Our own terms", ""]
)
def test_what_is_refused(expression: str) -> None:
    with pytest.raises(RefusedError, match="it is under"):
        accept("it", expression)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_locked_package_is_pinned_with_its_digests(lock: Path) -> None:
    parts = re.split(r"\n(?=[a-z])", lock.read_text().strip())
    assert len(parts) > 10
    unpinned = [part for part in parts if not re.match(r"[a-z0-9._-]+==\S+.*\\\n    --hash=sha256:[0-9a-f]{64}", part)]
    assert unpinned == []
    assert "://" not in lock.read_text()  # from whichever index is set on the machine
