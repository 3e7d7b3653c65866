"""Makes a release of the version that the package says: tests in a fresh clone, sdist and wheel in dist/, and the tag.

`--no-tests` leaves the tests out, `--no-tag` the tag, to look at what would be built.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


class NotReadyError(Exception):
    """What has to be done before a release."""


def version() -> str:
    text = (ROOT / "src" / "event_handler" / "__init__.py").read_text()
    found = re.search(r'^__version__ = "(\d+\.\d+\.\d+)"$', text, re.MULTILINE)
    if found is None:
        raise NotReadyError("src/event_handler/__init__.py has no version of three numbers")
    return found[1]


def check_changelog(text: str, number: str) -> None:
    """Raises NotReadyError when the changelog does not tell of this version, with its date."""
    if not re.search(rf"^## \[{re.escape(number)}\] - \d{{4}}-\d\d-\d\d$", text, re.MULTILINE):
        raise NotReadyError(f"CHANGELOG.md has no part `## [{number}] - DATE`")


def check_clean(status: str, tags: str, number: str) -> None:
    """Raises NotReadyError when something is not committed, or the version was released before."""
    if status.strip():
        raise NotReadyError("there are changes that are not committed")
    if f"v{number}" in tags.split():
        raise NotReadyError(f"the tag v{number} is there already; raise the version")


def git(*command: str) -> str:
    return subprocess.run(("git", *command), cwd=ROOT, check=True, capture_output=True, text=True).stdout


def run(*command: str, cwd: Path = ROOT) -> None:
    print("$", *command, flush=True)
    subprocess.run(command, cwd=cwd, check=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--no-tests", action="store_true")
    options.add_argument("--no-tag", action="store_true")
    given = options.parse_args()
    try:
        number = version()
        check_changelog((ROOT / "CHANGELOG.md").read_text(), number)
        if not given.no_tag:
            check_clean(git("status", "--porcelain"), git("tag"), number)
    except NotReadyError as error:
        sys.exit(f"release: {error}")
    with tempfile.TemporaryDirectory() as directory:
        clone = Path(directory) / "clone"
        run("git", "clone", "-q", str(ROOT), str(clone))
        if not given.no_tests:
            run("make", "test", cwd=clone)
        dist = ROOT / "dist"
        run(sys.executable, "-m", "pip", "install", "-q", "build")
        run(sys.executable, "-m", "build", "--outdir", str(dist), str(clone))
    if not given.no_tag:
        run("git", "tag", "-a", f"v{number}", "-m", f"Version {number}")
    for made in sorted(dist.glob(f"*{number}*")):
        print(made)


if __name__ == "__main__":
    main()
