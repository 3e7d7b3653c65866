"""The archive's `install` puts the program in place, upgrades it, goes back, and removes it, and says why it cannot."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "bundle" / "install"
NAME = "teleport-event-handler"


def unpacked(directory: Path, version: str) -> Path:
    """What unpacking an archive gives, with a program that tells its version and has a file beside it."""
    root = directory / f"unpacked-{version}" / NAME
    (root / "lib").mkdir(parents=True)
    shutil.copy(SCRIPT, root / "install")
    (root / "VERSION").write_text(f"{version}\n")
    (root / "lib" / "data").write_text(f"the data of {version}\n")
    program = root / NAME
    program.write_text(
        f'#!/bin/sh\nhere=$(dirname "$(readlink -f "$0")")\necho "{NAME} {version}"\ncat "$here/lib/data"\n'
    )
    program.chmod(0o700)
    return root


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str


def install(root: Path, *arguments: str, cwd: Path | None = None) -> Done:
    done = subprocess.run([root / "install", *arguments], capture_output=True, text=True, cwd=cwd, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def says(prefix: Path) -> str:
    return subprocess.run([prefix / "bin" / NAME, "version"], capture_output=True, text=True, check=True).stdout


def versions(prefix: Path) -> list[str]:
    return sorted(path.name for path in (prefix / "lib" / NAME).iterdir())


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return tmp_path / "a prefix"


def test_it_is_installed_and_runs_from_any_directory(tmp_path: Path, prefix: Path) -> None:
    done = install(unpacked(tmp_path, "v1.0.0"), "--prefix", str(prefix), cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert f"{NAME} v1.0.0" in done.out
    assert says(prefix) == f"{NAME} v1.0.0\nthe data of v1.0.0\n"
    mode = (prefix / "lib" / NAME / "v1.0.0" / NAME).stat().st_mode
    assert stat.S_IMODE(mode) == 0o755  # for every user, writable by its owner alone


def test_it_can_be_repeated(tmp_path: Path, prefix: Path) -> None:
    root = unpacked(tmp_path, "v1.0.0")
    for _ in range(3):
        assert install(root, f"--prefix={prefix}").code == 0
    assert says(prefix).startswith(f"{NAME} v1.0.0\n")
    assert set(versions(prefix)) <= {"v1.0.0", "v1.0.0.replaced"}


def test_an_upgrade_keeps_the_files_of_the_version_that_may_still_run_and_no_older_ones(
    tmp_path: Path, prefix: Path
) -> None:
    for version in ("v1.0.0", "v1.1.0", "v1.2.0"):
        assert install(unpacked(tmp_path, version), f"--prefix={prefix}").code == 0
        assert says(prefix).startswith(f"{NAME} {version}\n")
    assert versions(prefix) == ["v1.1.0", "v1.2.0"]


def test_an_older_version_is_installed_in_the_same_way(tmp_path: Path, prefix: Path) -> None:
    older, newer = unpacked(tmp_path, "v1.0.0"), unpacked(tmp_path, "v2.0.0")
    for root in (older, newer, older):
        assert install(root, f"--prefix={prefix}").code == 0
    assert says(prefix).startswith(f"{NAME} v1.0.0\n")


def test_a_program_that_is_no_link_of_ours_is_kept(tmp_path: Path, prefix: Path) -> None:
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin" / NAME).write_text("the Go plugin")
    done = install(unpacked(tmp_path, "v1.0.0"), f"--prefix={prefix}")
    assert done.code == 0
    assert (prefix / "bin" / f"{NAME}.before").read_text() == "the Go plugin"
    assert f"{NAME}.before" in done.out


def test_it_is_removed_whole_and_nothing_else(tmp_path: Path, prefix: Path) -> None:
    root = unpacked(tmp_path, "v1.0.0")
    assert install(root, f"--prefix={prefix}").code == 0
    (prefix / "bin" / "another").write_text("stays")
    done = install(root, f"--prefix={prefix}", "--uninstall")
    assert (done.code, done.err) == (0, "")
    assert [str(path.relative_to(prefix)) for path in sorted(prefix.rglob("*"))] == ["bin", "bin/another", "lib"]
    again = install(root, f"--prefix={prefix}", "--uninstall")
    assert (again.code, again.out) == (0, f"{NAME} is not installed in {prefix}\n")


def test_uninstall_leaves_a_program_that_is_not_ours(tmp_path: Path, prefix: Path) -> None:
    root = unpacked(tmp_path, "v1.0.0")
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin" / NAME).write_text("the Go plugin")
    assert install(root, f"--prefix={prefix}", "--uninstall").code == 0
    assert (prefix / "bin" / NAME).read_text() == "the Go plugin"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--prefx=/x"], "unknown argument --prefx=/x"),
        (["--prefix"], "--prefix needs a directory"),
        (["--prefix="], "--prefix needs a directory"),
        (["--prefix=/proc/nowhere"], "cannot write to /proc/nowhere; run it with sudo, or choose another place"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = install(unpacked(tmp_path, "v1.0.0"), *arguments)
    assert done.code == 1
    assert says in done.err
    assert "Traceback" not in done.err


def test_an_archive_that_was_not_unpacked_whole_is_told(tmp_path: Path, prefix: Path) -> None:
    root = unpacked(tmp_path, "v1.0.0")
    (root / NAME).unlink()
    done = install(root, f"--prefix={prefix}")
    assert done.code == 1
    assert "unpack the whole archive" in done.err
    assert not prefix.exists()


def test_it_needs_no_more_than_a_posix_shell() -> None:
    checked = subprocess.run(["sh", "-n", SCRIPT], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert os.access(SCRIPT, os.X_OK)
