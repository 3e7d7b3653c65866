"""While a handler is connected through a tunnel or an upgraded connection, nobody else can get at its stream or its
key.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import Collector
from tests.e2e.processes import Started, configuration, handler, simulated

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sockets and files of a process are read from /proc")

LISTENING_TCP = "0A"  # the state in /proc/net/tcp
LISTENING_UNIX = 0x10000  # the flag in /proc/net/unix
PAIRS_OF_THE_LOOP = 1  # socket pairs that asyncio itself uses
KEY = re.compile(rb"PRIVATE KEY|openssh-key-v1")


@dataclass(frozen=True, slots=True)
class Connected:
    """A handler that is connected, and the empty directory that it was given for temporary files."""

    pid: int
    temporary: Path
    storage: Path

    def descriptors(self) -> dict[str, str]:
        """What each open file of the process is, by its path in /proc."""
        return {str(fd): str(fd.readlink()) for fd in Path(f"/proc/{self.pid}/fd").iterdir()}

    def sockets(self) -> set[str]:
        """The inodes of its sockets."""
        return {target[len("socket:[") : -1] for target in self.descriptors().values() if target.startswith("socket:[")}

    def table(self, name: str) -> list[list[str]]:
        """Rows of /proc/net/<name> split at blanks."""
        return [row.split() for row in Path(f"/proc/{self.pid}/net/{name}").read_text().splitlines()[1:]]


@pytest.fixture(params=["tunnel", "upgrade"])
async def connected(request: pytest.FixtureRequest, tmp_path: Path, collector: Collector) -> AsyncIterator[Connected]:
    front, door = ("separate", "web") if request.param == "tunnel" else ("load-balancer", "load_balancer")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    async with simulated(tmp_path / "sim", "--events=10", "--sessions=0", f"--front={front}") as ready:
        address = ready[door].replace("127.0.0.1", "localhost")
        config = configuration(tmp_path, ready | {"address": address}, collector)
        authority = str(tmp_path / "sim" / "web-ca.pem")
        started = Started(
            await handler(config, f"--teleport-dial={request.param}", SSL_CERT_FILE=authority, TMPDIR=str(temporary))
        )
        await started.until("connected to Teleport")
        yield Connected(started.process.pid, temporary, tmp_path / "storage")
        await started.stop()
        assert started.process.returncode == 0


async def test_it_listens_nowhere_and_its_pairs_have_no_name_by_which_another_process_could_connect(
    connected: Connected,
) -> None:
    own = connected.sockets()
    streams = [row for table in ("tcp", "tcp6") for row in connected.table(table) if row[9] in own]
    assert streams, "it is connected"
    assert [row for row in streams if row[3] == LISTENING_TCP] == []
    pairs = [row for row in connected.table("unix") if row[6] in own]
    assert len(pairs) > 2 * PAIRS_OF_THE_LOOP, "the tunnelled stream goes through a socket pair"
    # What `status` asks has a path, in a file that nobody else can open, and no way to the cluster or to its stream.
    (status,) = [row for row in pairs if int(row[3], 16) & LISTENING_UNIX]
    assert [row[7:] for row in pairs if row[7:]] == [status[7:]], "neither a path nor an abstract name"
    (socket,) = connected.storage.glob("*.sock")
    assert status[7] == str(socket)
    assert socket.stat().st_mode & 0o777 == 0o600


async def test_its_sockets_cannot_be_opened_by_way_of_proc_not_even_by_its_own_user(connected: Connected) -> None:
    sockets = [path for path, target in connected.descriptors().items() if target.startswith("socket:[")]
    assert sockets
    for path in sockets:
        with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
            os.open(path, os.O_RDWR)


async def test_no_file_holds_its_key(connected: Connected) -> None:
    assert list(connected.temporary.iterdir()) == []
    stored = [path for path in connected.storage.rglob("*") if path.is_file()]
    opened = [
        Path(path) for path in connected.descriptors() if Path(path).is_file()
    ]  # deleted files and those in memory too
    assert stored
    assert opened
    for path in stored + opened:
        assert not KEY.search(path.read_bytes()), f"{path}: {path.resolve()}"
