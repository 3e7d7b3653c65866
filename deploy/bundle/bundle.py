"""Makes the archive for machines without Python: the program with its own Python, `install`, licence and README.

`python deploy/bundle/bundle.py` writes dist/teleport-event-handler-vX.Y.Z-OS-ARCH-bin.tar.gz, in the layout of
Teleport's own archive. The same commit on the same system gives the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAME = "teleport-event-handler"
LOCK = ROOT / "requirements" / "bundle.lock"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
LEFT_OUT = ("pyarrow", "tkinter")  # Parquet alone would double the size; a window toolkit is of no use
OF_THIS_MACHINE = ("RECORD", "direct_url.json")  # of an installed package: where it came from, and digests of that
LICENCES = ("LICEN[CS]E*", "COPYING*", "NOTICE*")  # how packages name the texts of their licences
BESIDE = (ROOT / "LICENSE", ROOT / "README.md", Path(__file__).parent / "install")


def run(*command: str | Path, **environment: str) -> None:
    print("$", *command, flush=True)
    subprocess.run([str(part) for part in command], check=True, env=os.environ | environment)


def output(*command: str | Path) -> str:
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True, cwd=ROOT).stdout


def make_program(work: Path, commit_time: str) -> Path:
    """The directory with the program and all that it needs; `work` is an empty one."""
    python = work / "venv" / "bin" / "python"
    run(sys.executable, "-m", "venv", work / "venv")
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--require-hashes", "-r", LOCK)
    wheels = work / "wheel"
    run(python, "-m", "pip", "wheel", "-q", "--no-deps", "-w", wheels, ROOT, SOURCE_DATE_EPOCH=commit_time)
    run(python, "-m", "pip", "install", "-q", "--no-deps", *wheels.glob("*.whl"))
    (packages,) = (work / "venv" / "lib").glob("python*/site-packages")
    shared = [path.name.split(".")[0] for path in packages.glob("*__mypyc*.so")]  # what all compiled files use
    if not shared:
        sys.exit("bundle: nothing was compiled; `pip wheel -v --no-deps .` tells why")
    options: list[str | Path] = [
        "--noconfirm",
        "--onedir",
        "--strip",
        "--name",
        NAME,
        "--contents-directory",
        "lib",
        "--log-level=WARN",
    ]
    options += ["--distpath", work / "dist", "--workpath", work / "build", "--specpath", work]
    options += ["--collect-submodules", "event_handler", "--collect-data", "event_handler"]
    options += ["--collect-binaries", "event_handler", "--copy-metadata", NAME, "--collect-all", "psycopg_binary"]
    options += [part for module in shared for part in ("--hidden-import", module)]
    options += [part for module in LEFT_OUT for part in ("--exclude-module", module)]
    entry = Path(__file__).parent / "entry.py"
    run(python, "-m", "PyInstaller", *options, entry, PYTHONHASHSEED="1", SOURCE_DATE_EPOCH=commit_time)
    program = work / "dist" / NAME
    copy_licences(packages, program / "licences")
    return program


def copy_licences(packages: Path, target: Path) -> None:
    """The texts of what is installed there, a directory for each package."""
    for pattern in LICENCES:
        for text in packages.glob(f"*.dist-info/**/{pattern}"):
            place = target / text.relative_to(packages).parts[0].removesuffix(".dist-info")
            place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(text, place / text.name)


def write_archive(directory: Path, archive: Path, commit_time: int) -> None:
    """Everything in `directory`, in an order, with owners and times that say nothing of this machine."""

    def known(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        entry.mtime = commit_time
        entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
        return entry

    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as made:
        for path in [directory, *sorted(directory.rglob("*"))]:
            made.add(path, str(path.relative_to(directory.parent)), recursive=False, filter=known)
    archive.write_bytes(gzip.compress(packed.getvalue(), mtime=commit_time))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="where the archive goes")
    given = parser.parse_args()
    commit_time = os.environ.get("SOURCE_DATE_EPOCH") or output("git", "log", "-1", "--format=%ct").strip()
    with tempfile.TemporaryDirectory() as directory:
        program = make_program(Path(directory), commit_time)
        line = output(program / NAME, "version").split()
        for path in BESIDE:
            shutil.copy(path, program)
        for path in (program / "lib").glob(f"{NAME.replace('-', '_')}-*.dist-info/*"):
            if path.name in OF_THIS_MACHINE:
                path.unlink()
        (program / "VERSION").write_text(f"{line[1]}\n")
        given.output.mkdir(parents=True, exist_ok=True)
        system = f"{sys.platform}-{ARCHITECTURES.get(platform.machine(), platform.machine())}"
        archive = given.output / f"{NAME}-{line[1]}-{system}-bin.tar.gz"
        write_archive(program, archive, int(commit_time))
    print(f"{archive} ({archive.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
