"""The packages are installed, upgraded, removed and purged on this Debian, in a file system that is thrown away."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from deploy.bundle.packages import make

from tests.support.receiver_cache import absent

NAME = "teleport-event-handler"
STATE, CONFIGURATION = f"/var/lib/{NAME}", f"/etc/{NAME}"


def overlays() -> str:
    """Why there can be no file system of our own on top of this machine's, "" where there can be one."""
    if sys.platform != "linux" or os.getuid() != 0 or not shutil.which("dpkg"):
        return "it needs root on Debian"
    script = (
        "mkdir /tmp/.o && mount -t tmpfs none /tmp/.o && mkdir /tmp/.o/u /tmp/.o/w /tmp/.o/r && mount -t overlay none "
    )
    script += "-o lowerdir=/,upperdir=/tmp/.o/u,workdir=/tmp/.o/w /tmp/.o/r"
    done = subprocess.run(["unshare", "-m", "sh", "-c", f"mount -t tmpfs none /tmp && {script}"], capture_output=True)
    return "" if done.returncode == 0 else "there is no overlay file system here"


needs_packages = [
    pytest.mark.skipif(bool(absent("bin/nfpm")), reason=absent("bin/nfpm")),
    pytest.mark.skipif(bool(overlays()), reason=overlays() or "-"),
]


def program(directory: Path, version: str) -> Path:
    """What an unpacked archive has, with a program that tells its version."""
    root = directory / version / NAME
    (root / "lib").mkdir(parents=True)
    (root / "VERSION").write_text(f"v{version}\n")
    for name in ("LICENSE", "README.md", "install", "lib/data"):
        (root / name).write_text(f"{name} of {version}\n")
    (root / NAME).write_text(f"#!/bin/sh\necho {NAME} v{version}\n")
    (root / NAME).chmod(0o755)
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Packages by version and kind."""
    directory = tmp_path_factory.mktemp("packages")
    return {
        f"{version}{package.suffix}": package
        for version in ("1.0.0", "1.1.0")
        for package in make(program(directory, version), directory, "amd64")
    }


Machine = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def machine(tmp_path: Path, made: dict[str, Path]) -> Machine:
    """Runs a script on this Debian, on top of which everything that is written goes into memory and is gone then."""
    packages = " ".join(str(path) for path in made.values())
    before = f"""
        mount -t tmpfs none /mnt
        mkdir /mnt/upper /mnt/work /mnt/machine
        mount -t overlay none -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/machine
        mkdir /mnt/machine/given
        cp {packages} /mnt/machine/given/
    """

    def run(script: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "script").write_text(f"set -e\ncd /given\n{script}")
        inside = f"cp {tmp_path}/script /mnt/machine/given/script\nexec chroot /mnt/machine sh /given/script"
        command = ["unshare", "-m", "sh", "-ec", f"{before}\n{inside}"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


pytestmark = needs_packages
INSTALL = "dpkg -i /given/*_1.0.0_amd64.deb >/dev/null\n"


def test_a_package_brings_program_user_service_and_places(machine: Machine) -> None:
    told = lines(
        machine(f"""{INSTALL}
        {NAME} version
        stat -c '%a %U %G' {STATE} {CONFIGURATION} /usr/lib/systemd/system/{NAME}.service
        getent passwd {NAME} | cut -d: -f6,7
        ls /usr/lib/{NAME}
    """)
    )
    assert told[0] == f"{NAME} v1.0.0"
    assert told[1:4] == [f"700 {NAME} {NAME}", f"750 root {NAME}", "644 root root"]
    assert told[4] == f"{STATE}:/usr/sbin/nologin"
    assert told[5:] == ["LICENSE", "README.md", "VERSION", "lib", NAME]


def test_an_upgrade_and_the_way_back_keep_configuration_and_state(machine: Machine) -> None:
    told = lines(
        machine(f"""{INSTALL}
        echo position > {STATE}/position; echo settings > {CONFIGURATION}/{NAME}.toml
        dpkg -i /given/*_1.1.0_amd64.deb >/dev/null; {NAME} version
        dpkg --force-downgrade -i /given/*_1.0.0_amd64.deb >/dev/null 2>&1; {NAME} version
        cat {STATE}/position {CONFIGURATION}/{NAME}.toml
    """)
    )
    assert told == [f"{NAME} v1.1.0", f"{NAME} v1.0.0", "position", "settings"]


def test_removing_keeps_configuration_and_state_and_purging_does_not(machine: Machine) -> None:
    told = lines(
        machine(f"""{INSTALL}
        echo position > {STATE}/position; echo settings > {CONFIGURATION}/{NAME}.toml
        dpkg -r {NAME} >/dev/null 2>&1
        ls /usr/bin/{NAME} /usr/lib/systemd/system/{NAME}.service 2>/dev/null || true
        cat {STATE}/position {CONFIGURATION}/{NAME}.toml
        dpkg -P {NAME} >/dev/null 2>&1
        ls -d {STATE} {CONFIGURATION} /usr/lib/{NAME} 2>/dev/null || true
        getent passwd {NAME} || echo no user
    """)
    )
    assert told == ["position", "settings", "no user"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_the_service_is_one_that_systemd_takes_and_is_well_shut_in(machine: Machine) -> None:
    unit = f"/usr/lib/systemd/system/{NAME}.service"
    security = f"systemd-analyze security --offline=true --threshold=20 {unit} | tail -1"
    done = machine(f"{INSTALL}systemd-analyze verify {unit} 2>&1\n{security}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Overall exposure level" in done.stdout


@pytest.mark.skipif(not shutil.which("rpm"), reason="rpm is not installed")
def test_the_rpm_has_the_same(made: dict[str, Path]) -> None:
    command = [
        "rpm",
        "-qp",
        "--queryformat",
        "[%{FILENAMES} %{FILEMODES:perms} %{FILEUSERNAME}\n]",
        str(made["1.0.0.rpm"]),
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"/usr/lib/systemd/system/{NAME}.service -rw-r--r-- root" in told
    assert f"{STATE} drwx------ root" in told
    scripts = subprocess.run(
        ["rpm", "-qp", "--scripts", str(made["1.0.0.rpm"])], capture_output=True, text=True, check=True
    )
    assert "useradd --system" in scripts.stdout
