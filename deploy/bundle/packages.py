"""Makes a .deb and an .rpm of the archive's directory, with a service, a user, and places for configuration and state.

`python -m deploy.bundle.packages DIRECTORY` takes an unpacked archive and writes into dist/. It needs nfpm, from the
PATH or from `make receivers`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from deploy.bundle.bundle import ARCHITECTURES, NAME, ROOT
from tests.support.receiver_cache import place

from event_handler.configure.templates import systemd_unit

PROGRAM = f"/usr/bin/{NAME}"
CONFIGURATION = f"/etc/{NAME}"
FORMATS = ("deb", "rpm")
SCRIPTS = ("preinstall", "postinstall", "preremove", "postremove")


def unit() -> str:
    """The service as `configure --output=systemd` writes it, with the places of a package."""
    text = systemd_unit(NAME, PROGRAM, CONFIGURATION, f"{CONFIGURATION}/{NAME}.toml")
    return text.partition("\n")[2]  # without the line that tells where to copy it


def description(directory: Path, service: Path, architecture: str) -> dict[str, Any]:
    """What nfpm makes a package of (https://nfpm.goreleaser.com/configuration/); JSON is YAML."""
    places = [(CONFIGURATION, 0o750), (f"/var/lib/{NAME}", 0o700)]
    return {
        "name": NAME,
        "arch": architecture,
        "version": (directory / "VERSION").read_text().strip(),
        "maintainer": f"The maintainers of {NAME} <maintainers@{NAME}.invalid>",
        "description": "Forwards the audit events of a Teleport cluster to a SIEM or log collector.",
        "license": "Apache-2.0",
        "section": "admin",
        "overrides": {"deb": {"depends": ["adduser | passwd"]}, "rpm": {"depends": ["shadow-utils"]}},
        "contents": [
            {"src": str(directory), "dst": f"/usr/lib/{NAME}", "type": "tree"},
            {"src": f"../lib/{NAME}/{NAME}", "dst": PROGRAM, "type": "symlink"},
            {"src": str(service), "dst": f"/usr/lib/systemd/system/{NAME}.service", "file_info": {"mode": 0o644}},
            *({"dst": place, "type": "dir", "file_info": {"mode": mode}} for place, mode in places),
        ],
        "scripts": {name: str(Path(__file__).parent / "scripts" / name) for name in SCRIPTS},
    }


def nfpm() -> str:
    found = shutil.which("nfpm") or str(place("bin/nfpm"))
    if not Path(found).exists():
        sys.exit("packages: nfpm is not installed; `make receivers` builds it")
    return found


def make(directory: Path, output: Path, architecture: str) -> list[Path]:
    """Raises CalledProcessError, after nfpm has said what is wrong."""
    before = set(output.glob("*"))
    with tempfile.TemporaryDirectory() as made:
        tree = shutil.copytree(directory, Path(made) / NAME, ignore=shutil.ignore_patterns("install"))
        service, told = Path(made) / f"{NAME}.service", Path(made) / "nfpm.yaml"
        service.write_text(unit())
        told.write_text(json.dumps(description(tree, service, architecture)))
        for kind in FORMATS:
            command = [nfpm(), "package", "--config", str(told), "--packager", kind, "--target", str(output)]
            subprocess.run(command, check=True, cwd=ROOT)
    return sorted(set(output.glob("*")) - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="the archive, unpacked")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="where the packages go")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    for package in make(given.directory, given.output, ARCHITECTURES.get(os.uname().machine, os.uname().machine)):
        print(package)


if __name__ == "__main__":
    main()
