"""hadolint finds nothing in the Dockerfile, and the build gets what it copies."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.receiver_cache import absent, place

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "image" / "Dockerfile"


@pytest.mark.skipif(bool(absent("hadolint")), reason=absent("hadolint"))
def test_hadolint_finds_nothing() -> None:
    program = place("hadolint") / "bin" / "hadolint"
    done = subprocess.run([str(program), str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_everything_that_is_let_in_is_there() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"  # what is not named stays out: no virtual environment, no secret
    assert [name for line in lines if line.startswith("!") and not (ROOT / (name := line[1:])).exists()] == []
