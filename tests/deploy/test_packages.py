"""The packages are installed, upgraded, removed and purged on this Debian, in a file system that is thrown away."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from deploy.bundle.packages import make

from tests.deploy.machine import absent as no_machine
from tests.deploy.machine import run
from tests.support.receiver_cache import absent

NAME = "teleport-event-handler"
STATE, CONFIGURATION = f"/var/lib/{NAME}", f"/etc/{NAME}"

needs_packages = [
    pytest.mark.skipif(bool(absent("bin/nfpm")), reason=absent("bin/nfpm")),
    pytest.mark.skipif(bool(no_machine()), reason=no_machine() or "-"),
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
    """Runs a script on this Debian, on top of which everything that is written is thrown away."""
    for package in made.values():
        shutil.copy(package, tmp_path)
    return partial(run, tmp_path)


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


@pytest.mark.skipif(not shutil.which("rpm"), reason="rpm is not installed")
def test_an_rpm_is_installed_upgraded_and_removed_with_configuration_and_state_kept(machine: Machine) -> None:
    told = lines(
        machine(f"""
        do_rpm() {{ rpm --force-debian --nodeps "$@" 2>&1 | grep -v warning || true; }}
        do_rpm --install /given/*1.0.0*.x86_64.rpm; {NAME} version
        stat -c '%a %U %G' {STATE} {CONFIGURATION}
        echo position > {STATE}/position; echo settings > {CONFIGURATION}/{NAME}.toml
        do_rpm --upgrade /given/*1.1.0*.x86_64.rpm; {NAME} version
        do_rpm --erase {NAME}
        ls /usr/bin/{NAME} /usr/lib/systemd/system/{NAME}.service 2>/dev/null || true
        cat {STATE}/position {CONFIGURATION}/{NAME}.toml
    """)
    )
    ours = [f"700 {NAME} {NAME}", f"750 root {NAME}"]
    assert told == [f"{NAME} v1.0.0", *ours, f"{NAME} v1.1.0", "position", "settings"]
