"""The archive for machines without Python: made twice it is the same, and its program runs where there is nothing else.

It takes minutes and an index of packages, so `make soak` runs it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAME = "teleport-event-handler"
CHROOT = shutil.which("chroot", path="/usr/sbin:/usr/bin") or "chroot"
LARGEST = 60_000_000  # bytes of the archive
LONGEST_START = 0.4  # seconds until `version` has answered, on a machine at rest
pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="chroot needs root on Linux"),
]


def archive(directory: Path) -> Path:
    command = [sys.executable, str(ROOT / "deploy" / "bundle" / "bundle.py"), f"--output={directory}"]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    (made,) = directory.glob("*.tar.gz")
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def bare(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system with the installed program, a shell and the C library: no Python, no OpenSSL."""
    root = tmp_path_factory.mktemp("root")
    with tarfile.open(made) as packed:
        packed.extractall(root, filter="data")
    subprocess.run([root / NAME / "install", f"--prefix={root / 'usr' / 'local'}"], check=True, capture_output=True)
    (root / "bin").mkdir()
    shutil.copy("/bin/sh", root / "bin" / "sh")
    told = subprocess.run(["ldd", root / NAME / NAME, "/bin/sh"], check=True, capture_output=True, text=True).stdout
    for library in set(re.findall(r"(/lib\S+)", told)):
        place = root / library.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, place)
    for library in ("libm.so.6", "libresolv.so.2", "librt.so.1", "libgcc_s.so.1"):
        shutil.copy(f"/lib/x86_64-linux-gnu/{library}", root / "lib" / "x86_64-linux-gnu" / library)
    return root


@pytest.fixture(scope="module")
def call(bare: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def called(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [CHROOT, str(bare), f"/usr/local/bin/{NAME}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": "/bin"})

    return called


Call = Callable[..., subprocess.CompletedProcess[str]]


def test_its_size_and_layout(made: Path) -> None:
    assert re.fullmatch(rf"{NAME}-v\d+\.\d+\.\d+-linux-(amd64|arm64)-bin\.tar\.gz", made.name)
    assert made.stat().st_size < LARGEST
    with tarfile.open(made) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert names >= {NAME, "install", "LICENSE", "README.md", "VERSION"}
    with_texts = {re.sub(r"-[^-]*$", "", name.split("/")[1]) for name in names if name.startswith("licences/")}
    assert with_texts >= {"aiohttp", "asyncssh", "cryptography", "psycopg", "pyinstaller"}


def test_the_same_commit_gives_the_same_bytes(made: Path, tmp_path: Path) -> None:
    assert archive(tmp_path).read_bytes() == made.read_bytes()


def test_it_runs_where_there_is_no_python(call: Call) -> None:
    took = []
    for _ in range(3):
        begin = time.monotonic()
        done = call("version")
        took.append(time.monotonic() - begin)
        assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{NAME} v")
    assert min(took) < LONGEST_START * 3  # the figure itself is in docs/install/archive.md


@pytest.mark.parametrize("kind", ["kafka", "nats", "postgresql", "redis-streams", "forward", "otlp", "s3", "syslog"])
def test_every_destination_is_in_it(call: Call, bare: Path, kind: str) -> None:
    done = call("sinks", "describe", kind)
    assert done.returncode == 0, done.stderr
    assert f'type = "{kind}"' in done.stdout or kind in done.stdout


def test_it_is_compiled_and_its_start_without_settings_is_a_sentence(call: Call, bare: Path) -> None:
    (bare / "tmp").mkdir(exist_ok=True)
    done = call("start")
    assert done.returncode == 80
    assert "missing flags" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((bare / "usr" / "local" / "lib" / NAME).rglob("decode*.so"))
