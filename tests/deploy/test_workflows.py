"""The workflows are well formed, call what there is, and may do no more than they need."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.receiver_cache import absent, place

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
READ_ONLY = {"contents": "read"}
MORE = {  # jobs of the release that may write, and what
    "publish": {"contents": "write", "id-token": "write", "attestations": "write"},
    "image": {"contents": "read", "packages": "write", "id-token": "write", "attestations": "write"},
}


def loaded(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(file.read_text())
    return content


def steps() -> Iterator[dict[str, Any]]:
    for file in FILES:
        for job in loaded(file)["jobs"].values():
            yield from job["steps"]


COMMANDS = "\n".join(step["run"] for step in steps() if "run" in step)


@pytest.mark.skipif(bool(absent("bin/actionlint")), reason=absent("bin/actionlint"))
def test_actionlint_finds_nothing() -> None:
    command = [str(place("bin/actionlint")), "-shellcheck=", "-pyflakes=", *map(str, FILES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_target_module_and_script_that_is_called_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    called = set(re.findall(r"\bmake ([a-z]+)", COMMANDS))
    assert called > {"audit", "bundle", "soak"}
    assert called <= targets
    modules = re.findall(r"\bpython -m ((?:deploy|tests|benchmarks)[a-z_.]+)", COMMANDS + makefile)
    assert "deploy.bundle.packages" in modules
    assert [name for name in modules if not _is_module(name)] == []
    scripts = re.findall(r"python ((?:deploy|benchmarks)/\S+\.py)", COMMANDS + makefile)
    assert scripts
    assert all((ROOT / script).is_file() for script in scripts)


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_a_job_may_read_and_only_a_release_writes(file: Path) -> None:
    workflow = loaded(file)
    assert workflow["permissions"] == READ_ONLY
    given = {name: job["permissions"] for name, job in workflow["jobs"].items() if "permissions" in job}
    assert given == (MORE if file.stem == "release" else {})


def test_every_action_is_of_a_fixed_version() -> None:
    used = [step["uses"] for step in steps() if "uses" in step]
    assert [name for name in used if not re.fullmatch(r"[\w-]+/[\w-]+@v\d+(\.\d+)*", name)] == []


def test_what_others_write_never_stands_in_a_command() -> None:
    """A tag or a branch may have any name: in a script it would be run. Variables carry it instead."""
    assert "${{" not in COMMANDS


def test_nothing_is_published_before_the_audit() -> None:
    jobs = loaded(ROOT / ".github" / "workflows" / "release.yml")["jobs"]
    assert "make audit" in {step.get("run") for step in jobs["audit"]["steps"]}
    assert all("audit" in jobs[name]["needs"] for name in MORE)
    (image,) = [step["with"] for step in jobs["image"]["steps"] if "build-push" in step.get("uses", "")]
    assert image["platforms"] == "linux/amd64,linux/arm64"
    assert (ROOT / image["file"]).is_file()
