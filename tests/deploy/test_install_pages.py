"""The commands of the pages about installing, as they stand there, on a machine with systemd, until events come."""

from __future__ import annotations

import asyncio
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from deploy.bundle.packages import make

from event_handler import __version__, about
from tests.deploy.machine import READABLE, boot, program, without_systemd
from tests.e2e.processes import simulated
from tests.e2e.test_new_user import free_port, listening, long_ago
from tests.support.receiver_cache import absent

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "install"
NAME = about.PROGRAM
EVENTS = 30
EXAMPLE = "teleport.example.com:443"

# What the machine of a reader has: sudo, a Teleport to sign in to, a collector. The rest comes from the page.
BEFORE = """
exec 2>&1
printf '#!/bin/sh\\nexec "$@"\\n' > /usr/local/bin/sudo
cat > /usr/local/bin/tctl <<'TCTL'
#!/bin/sh -e
case "$1 $2" in
    "create -f") grep -q 'kind: role' "$3" ;;
    "auth sign") cp /given/sim/identity "${4#--out=}" ;;
    *) exit 1 ;;
esac
TCTL
chmod 755 /usr/local/bin/sudo /usr/local/bin/tctl
cd /root
trap 'cd /given; journalctl --unit=teleport-event-handler --output=cat --no-pager > journal || true' EXIT
"""
CONFIGURED = """
echo configured; cd /etc/teleport-event-handler
sed -i 's/:8888/:{port}/; s/^# start-time = .*/start-time = "{start}"/; s/"10s"/"200ms"/' teleport-event-handler.toml
cp fluent.conf ca.crt server.crt server.key /given/keys/ && touch /given/configured
until [ -e /given/listening ]; do sleep 0.05; done
cd /root
"""
DELIVERED = """
until [ -e /given/delivered ]; do sleep 0.05; done; echo delivered
"""

pytestmark = pytest.mark.skipif(bool(without_systemd()), reason=without_systemd() or "-")


def commands(page: str, address: str, port: int) -> str:
    """All blocks of the page; after the second the reader names the collector, before the sixth events have come."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (PAGES / page).read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 6
    assert "configure" in blocks[1]
    assert " check " in blocks[5]
    blocks[1] += CONFIGURED.format(port=port, start=long_ago())
    blocks[5] = DELIVERED + blocks[5] + "echo checked\n"
    return "\n".join(blocks).replace(EXAMPLE, address)


def unpacked(directory: Path) -> Path:
    """What is in an archive, with this environment's program in place of one with its own Python."""
    root = directory / NAME
    root.mkdir()
    (root / "VERSION").write_text(f"v{__version__}\n")
    (root / "install").write_bytes((ROOT / "deploy" / "bundle" / "install").read_bytes())
    (root / "install").chmod(0o755)
    program(root / NAME)
    return root


def archive(given: Path) -> str:
    root = unpacked(given)
    with tarfile.open(given / f"{NAME}-v{__version__}-linux-amd64-bin.tar.gz", "w:gz") as made:
        made.add(root, NAME)
    return f"cp /given/*-bin.tar.gz .\n{READABLE}"


def package(given: Path) -> str:
    make(unpacked(given), given, "amd64")
    return f"cp /given/*.deb .\n{READABLE}"


def python(_given: Path) -> str:
    return "cp -r /checkout checkout; cd checkout\n"


@pytest.mark.parametrize(
    ("page", "prepared", "left"),
    [
        pytest.param("archive.md", archive, "no program, settings, state"),
        pytest.param(
            "package.md",
            package,
            "no program, no settings, no state",
            marks=pytest.mark.skipif(bool(absent("bin/nfpm")), reason=absent("bin/nfpm")),
        ),
        pytest.param("python.md", python, "program, settings, state", marks=pytest.mark.soak),
    ],
)
async def test_who_follows_the_page_has_events_at_the_end(
    tmp_path: Path, page: str, prepared: Callable[[Path], str], left: str
) -> None:
    (tmp_path / "keys").mkdir()
    port = free_port()
    ids = []
    async with simulated(tmp_path / "sim", f"--events={EVENTS}", "--sessions=0") as ready:
        script = BEFORE + prepared(tmp_path) + commands(page, ready["address"], port)
        places = (f"hash -r; command -v {NAME}", f"ls /etc/{NAME}/identity", f"ls -d /var/lib/{NAME}")
        for place, what in zip(places, ("program", "settings", "state"), strict=True):
            script += f"\n{place} >/dev/null && echo 'left {what}' || echo 'left no {what}'"
        machine = asyncio.create_task(asyncio.to_thread(boot, tmp_path, script))
        while not (tmp_path / "configured").exists() and not machine.done():
            await asyncio.sleep(0.05)
        if not machine.done():
            async with listening(tmp_path / "keys", port) as collector:
                (tmp_path / "listening").touch()
                while len(collector.ids()) < EVENTS and not machine.done():
                    await asyncio.sleep(0.05)
                (tmp_path / "delivered").touch()
                await machine
                ids = sorted(collector.ids())
    told = "\n".join(await machine)
    journal = tmp_path / "journal"
    seen = told + (journal.read_text() if journal.exists() else "")
    assert f"{NAME} v{__version__}" in told, seen
    assert "checked" in told, seen
    assert "0 faults" in told, seen
    assert "active (running)" in told, seen
    assert ", ".join(re.findall(r"^left (.*)$", told, re.MULTILINE)) == left, seen
    assert ids == sorted(json.loads((tmp_path / "sim" / "manifest.json").read_text())["events"])
