"""What the release command refuses, and that the version and the changelog of this checkout go together."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from benchmarks.release import NotReadyError, check_changelog, check_clean, version

from event_handler import __version__

CHANGELOG = (Path(__file__).parents[2] / "CHANGELOG.md").read_text()
SECTIONS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_a_version_without_its_part_in_the_changelog_is_refused() -> None:
    text = "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-01-02\n"
    check_changelog(text, "1.2.3")
    for number in ("1.2.4", "1.2", "1x2.3"):
        with pytest.raises(NotReadyError, match=re.escape(number)):
            check_changelog(text, number)


def test_what_is_not_committed_or_tagged_before_is_refused() -> None:
    check_clean("\n", "v0.9.0\n", "1.0.0")
    with pytest.raises(NotReadyError, match="not committed"):
        check_clean(" M README.md\n", "", "1.0.0")
    with pytest.raises(NotReadyError, match=r"v1\.0\.0 is there already"):
        check_clean("", "v0.9.0\nv1.0.0\n", "1.0.0")


def test_the_version_is_that_of_the_package() -> None:
    assert version() == __version__


def test_the_changelog_has_the_form_of_keep_a_changelog() -> None:
    versions = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", text) for text in versions[1:])
    assert set(re.findall(r"^### (.*)$", CHANGELOG, re.MULTILINE)) <= SECTIONS
