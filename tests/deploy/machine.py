"""A Linux machine of a test's own, on top of this one: what is written there is gone with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

# An overlay has this machine's files, and takes what is written; the test's directory is in it as /given, and the
# checkout as /checkout: where it lies here may be hidden there, as /tmp is.
MOUNTS = """
mount -t tmpfs none /mnt
mkdir /mnt/upper /mnt/work /mnt/upper2 /mnt/work2 /mnt/machine
mount -t overlay none -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/machine
mkdir /mnt/machine/given /mnt/machine/checkout
mount --bind '{given}' /mnt/machine/given
mount -t overlay none -o 'lowerdir={root},upperdir=/mnt/upper2,workdir=/mnt/work2' /mnt/machine/checkout
"""
# systemd must neither clear this machine's /tmp nor set anything of the kernel, which is shared.
KERNEL = (
    "binfmt",
    "modules-load",
    "remount-fs",
    "sysctl",
    "tmpfiles-setup-dev",
    "udevd",
    "udev-trigger",
    "update-utmp",
)
BOOT = """
cd /mnt/machine
mount -t proc proc proc
mount -t tmpfs none run
mount -t tmpfs none tmp
mount --rbind /sys sys
mount --rbind /dev dev
mount -t cgroup2 none sys/fs/cgroup
mount --make-rshared / # as at every boot; systemd hands out credentials over it
for name in {kernel}; do ln -sf /dev/null etc/systemd/system/systemd-$name.service; done
for name in sys-kernel-debug sys-kernel-tracing sys-fs-fuse-connections dev-hugepages dev-mqueue; do
    ln -sf /dev/null etc/systemd/system/$name.mount
done
cat > etc/systemd/system/script.service <<'UNIT'
[Service]
Type=oneshot
ExecStart=/bin/sh -e /given/script
StandardOutput=append:/given/told
StandardError=append:/given/told
ExecStopPost=/bin/systemctl exit
UNIT
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec env -i container=other PATH=$PATH chroot . /lib/systemd/systemd --system --unit=script.service
"""
ROOT = Path(__file__).parents[2]
LONGEST = 120  # seconds that a machine with systemd may live


def absent() -> str:
    """Why there can be no such machine, "" where there can be one."""
    if sys.platform != "linux" or os.getuid() != 0 or not shutil.which("dpkg"):
        return "it needs root on Debian"
    mounts = MOUNTS.format(given="/etc", root=ROOT)
    done = subprocess.run(["unshare", "-m", "sh", "-ec", mounts], capture_output=True)
    return "" if done.returncode == 0 else "there is no overlay file system here"


def without_systemd() -> str:
    """Why no systemd can run as a machine's first process, "" where it can."""
    if not Path("/lib/systemd/systemd").exists():
        return "systemd is not installed"
    cgroup = ["unshare", "-mC", "mount", "-t", "cgroup2", "none", "/sys/fs/cgroup"]
    return absent() or ("" if subprocess.run(cgroup, capture_output=True).returncode == 0 else "no cgroup2 here")


def environment() -> Path:
    """The Python of this environment, as the machine has it."""
    prefix = Path(sys.prefix)
    inside = Path("/checkout") / prefix.relative_to(ROOT) if prefix.is_relative_to(ROOT) else prefix
    return inside / "bin" / "python"


def program(file: Path) -> None:
    """Write a script that is the event handler of this checkout, in the machine."""
    file.write_text(f'#!/bin/sh\nexec env PYTHONPATH=/checkout/src {environment()} -m event_handler "$@"\n')
    file.chmod(0o755)


# Lets every user of the machine get at the event handler of this checkout.
READABLE = f"""
for file in {environment()} {Path(sys.executable).resolve()} /checkout/src; do
    while [ "$file" != / ]; do chmod a+x "$file"; file=$(dirname "$file"); done
done
"""


def run(given: Path, script: str) -> subprocess.CompletedProcess[str]:
    """What the script printed in a machine that has the files of `given` in its directory /given."""
    (given / "script").write_text(f"cd /given\n{script}")
    command = f"{MOUNTS.format(given=given, root=ROOT)}\nexec chroot /mnt/machine sh -e /given/script"
    return subprocess.run(["unshare", "-m", "sh", "-ec", command], capture_output=True, text=True, check=False)


def boot(given: Path, script: str) -> list[str]:
    """The lines that the script printed where systemd is the first process; the network is this machine's."""
    (given / "script").write_text(f"cd /given\n{script}")
    command = MOUNTS.format(given=given, root=ROOT) + BOOT.format(kernel=" ".join(KERNEL))
    apart = ["unshare", "-pmCu", "--ipc", "--fork", "--kill-child", "sh", "-ec", command]
    said = given / "said"  # by systemd; a pipe would be held open by whatever it starts
    with said.open("wb") as out:
        subprocess.run(apart, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=LONGEST, check=False)
    told = given / "told"
    assert told.exists(), said.read_text()
    return told.read_text().splitlines()
