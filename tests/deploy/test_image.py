"""The container image is built from its Dockerfile and run as its user on a root file system that is read-only.

No base image comes from a registry: file systems that mmdebstrap makes stand in for them, the last one of what the real
one has. It takes minutes and an index of packages, so `make soak` runs it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from event_handler.simulator.collector import Collector

ROOT = Path(__file__).parents[2]
NAME = "teleport-event-handler"
USER = 65532
MOUNTED = "/opt/teleport-plugin"  # as in Teleport's guide
LARGEST = 90_000_000  # bytes of the image with its base
TOOLS = ("buildah", "podman", "runc", "mmdebstrap")
ABSENT = [tool for tool in TOOLS if not shutil.which(tool)]
BUILD_PACKAGES = "ca-certificates,python3-venv,python3-dev,gcc,libc6-dev,binutils,git"
RUN_PACKAGES = "base-files,netbase,tzdata,libc6"
BARE = 'rm -rf "$1"/lib/*/libgcc_s* "$1"/usr/share/doc "$1"/usr/share/man "$1"/usr/share/locale "$1"/usr/bin/*'
TRUST = ("/etc/ssl/certs", "/etc/pip.conf")  # of this machine, for pip while the image is built
LIVE = 5  # events a second
pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="it needs root on Linux"),
    pytest.mark.skipif(bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)}"),
]


@dataclass(frozen=True, slots=True)
class Engine:
    """Images and containers in a directory of the test."""

    place: Path

    def command(self, tool: str, *arguments: str | Path) -> list[str]:
        storage = [f"--root={self.place}/root", f"--runroot={self.place}/run", "--storage-driver=vfs"]
        return [tool, *storage, *map(str, arguments)]

    def __call__(self, tool: str, *arguments: str | Path) -> str:
        done = subprocess.run(self.command(tool, *arguments), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{arguments}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout.strip()

    def to_run(self, *options: str, image: str = "handler", arguments: tuple[str, ...] = ()) -> list[str]:
        """The command of a container with this machine's network.

        Podman's own limits are higher than some machines allow; runc also works where control groups of both versions
        are mounted.
        """
        common = ["--runtime=runc", "run", "--rm", "--pull=never", "--network=host", "--cgroups=no-conmon"]
        common += ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", "--no-healthcheck"]
        common += ["--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL"]
        return self.command("podman", *common, *options, image, *arguments)

    def run(self, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        command = self.to_run(*options, arguments=arguments)
        return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def base(engine: Engine, name: str, directory: Path, *options: str) -> None:
    archive = directory / f"{name}.tar"
    subprocess.run(["mmdebstrap", *options, "bookworm", str(archive)], check=True, capture_output=True)
    container = engine("buildah", "from", "scratch")
    engine("buildah", "add", container, archive, "/")
    engine("buildah", "commit", "--format=docker", container, name)
    engine("buildah", "rm", container)
    archive.unlink()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """With the images `handler` and `simulator` of what is committed."""
    directory = tmp_path_factory.mktemp("image")
    made = Engine(directory / "engine")
    base(made, "python-stand-in", directory, "--variant=apt", f"--include={BUILD_PACKAGES}")
    base(made, "base-stand-in", directory, "--variant=extract", f"--include={RUN_PACKAGES}", f"--customize-hook={BARE}")
    source = directory / "source"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(source)], check=True)
    options = ["--isolation=chroot", "--format=docker", "--pull-never", f"--file={source}/deploy/image/Dockerfile"]
    options += ["--build-arg=PYTHON_IMAGE=python-stand-in", "--build-arg=BASE_IMAGE=base-stand-in"]
    options += [f"--volume={file}:{file}:ro" for file in TRUST if Path(file).exists()]
    for target in ("handler", "simulator"):
        made("buildah", "bud", *options, f"--target={target}", f"--tag={target}", source)
    yield made
    made("buildah", "rm", "--all")
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """A directory that the image's user may write, and he alone."""
    directory = tmp_path / "mounted"
    directory.mkdir(mode=0o700)
    os.chown(directory, USER, USER)
    return directory


def at(directory: Path) -> tuple[str, ...]:
    """As in the guide's `docker run`."""
    return (f"--volume={directory}:{MOUNTED}", f"--workdir={MOUNTED}")


def test_its_size_and_what_it_tells_of_itself(engine: Engine) -> None:
    (image,) = json.loads(engine("podman", "image", "inspect", "handler"))
    (under,) = json.loads(engine("podman", "image", "inspect", "base-stand-in"))
    print(f"image {image['Size'] / 1e6:.1f} MB, of which the base {under['Size'] / 1e6:.1f} MB")
    assert image["Size"] < LARGEST
    told = image["Config"]
    assert (told["User"], told["Entrypoint"]) == (f"{USER}:{USER}", [f"/usr/local/bin/{NAME}"])
    assert told["Labels"]["org.opencontainers.image.title"] == NAME
    assert image["Healthcheck"]["Test"] == ["CMD", f"/usr/local/bin/{NAME}", "status", "--alive"]


def test_it_starts_without_a_shell_and_by_the_name_in_teleports_image(engine: Engine) -> None:
    took = []
    for _ in range(3):
        begin = time.monotonic()
        done = engine.run("version")
        took.append(time.monotonic() - begin)
        assert done.returncode == 0, done.stderr
    print(f"version in {min(took):.2f} s, with the container's own start")
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.startswith(f"{NAME} v")
    assert f"git:{commit.stdout.strip()}" in done.stdout
    assert engine.run("version", options=("--entrypoint=/usr/local/bin/teleport-plugin",)).stdout == done.stdout
    assert engine.run(options=("--entrypoint=/bin/sh",)).returncode != 0


@pytest.mark.parametrize("arguments", [(), ("start",), ("start", "--config=/etc/teleport-event-handler.toml")])
def test_without_a_configuration_a_sentence_tells_what_to_mount(engine: Engine, arguments: tuple[str, ...]) -> None:
    done = engine.run(*arguments)
    assert done.returncode == 80
    assert done.stderr.count("\n") == 1
    assert f"in a directory that you mount: docker run --volume DIRECTORY:{MOUNTED} IMAGE start" in done.stderr


def test_configure_writes_into_the_mounted_directory(engine: Engine, mounted: Path) -> None:
    done = engine.run("configure", ".", "example.teleport.sh:443", "--key-type=ecdsa", options=at(mounted))
    assert done.returncode == 0, done.stderr
    assert {file.stat().st_uid for file in mounted.iterdir()} == {USER}
    assert f'storage = "{MOUNTED}/storage"' in (mounted / f"{NAME}.toml").read_text()
    another = ("--user=1234:1234", *at(mounted))
    done = engine.run("configure", ".", "example.teleport.sh:443", "--key-type=ecdsa", options=another)
    assert (done.returncode, "Permission denied" in done.stderr) == (80, True)
    mounted.chmod(0o755)
    done = engine.run("configure", ".", "example.teleport.sh:443", "--force", "--key-type=ecdsa", options=another)
    assert (done.returncode, "Permission denied" in done.stderr) == (255, True)


async def inside(engine: Engine, *arguments: str) -> tuple[int | None, str]:
    """The program once more, in the container that runs: exit code, and what it says."""
    command = engine.command("podman", "--runtime=runc", "exec", "handler", f"/usr/local/bin/{NAME}", *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=-2)
    said, _ = await process.communicate()
    return process.returncode, said.decode()


async def until_healthy(engine: Engine) -> str:
    async with asyncio.timeout(60):
        while True:
            code, said = await inside(engine, "status", "--alive")
            if code == 0:
                return said
            await asyncio.sleep(0.5)


async def test_it_delivers_the_events_of_a_cluster_and_is_healthy(engine: Engine, mounted: Path) -> None:
    assert engine.run("configure", ".", "localhost:3025", "--key-type=ecdsa", options=at(mounted)).returncode == 0
    collector = Collector()
    passphrase = (mounted / "fluent.conf").read_text().partition('passphrase "')[2].partition('"')[0]
    url = await collector.start(mounted / "server.crt", mounted / "server.key", passphrase, mounted / "ca.crt")
    cluster = [f"--directory={MOUNTED}/cluster", "--events=500", "--sessions=2", f"--live={LIVE}"]
    command = engine.to_run(*at(mounted), "--name=cluster", image="simulator", arguments=tuple(cluster))
    simulated = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert simulated.stdout is not None
    ready = json.loads(await simulated.stdout.readline())
    toml = mounted / f"{NAME}.toml"
    places = {"https://localhost:8888": url, "localhost:3025": ready["address"], "/identity": "/cluster/identity"}
    places['# start-time = "2026'] = 'window-size = "8760h"\nstart-time = "2020'
    text = toml.read_text()
    for old, new in places.items():
        assert old in text
        text = text.replace(old, new)
    toml.write_text(text)
    config = f"--config={MOUNTED}/{NAME}.toml"
    command = engine.to_run(*at(mounted), "--name=handler", arguments=("start", config))
    begin = time.monotonic()
    handler = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        past = set(json.loads((mounted / "cluster" / "manifest.json").read_text())["events"])
        async with asyncio.timeout(120):
            while not collector.ids:
                await asyncio.sleep(0.01)
            print(f"the first event after {time.monotonic() - begin:.2f} s, with the container's own start")
            while not past <= collector.ids.keys():
                await asyncio.sleep(0.1)
        assert await until_healthy(engine) == f"sim.test on the storage {MOUNTED}/storage: alive\n"
        _, said = await inside(engine, "check", config)
        assert "✓ role: may list events" in said
        assert "works on the state of fluentd" in said
    finally:
        for name in ("handler", "cluster"):
            engine("podman", "--runtime=runc", "stop", "--time=20", name)
        _, log = await handler.communicate()
        await simulated.communicate()
        await collector.stop()
    assert handler.returncode == 0, log.decode()[-3000:]
    assert max(collector.ids.values()) == 1
