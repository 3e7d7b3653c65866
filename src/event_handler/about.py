"""What this build is: version, git commit, Python.

Told by `version`, in the first log line and to the servers that are called.
"""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from pathlib import Path

from event_handler import __version__

PROGRAM = "teleport-event-handler"
COMMIT_FILE = "commit.txt"  # put beside this module by the build hook (hatch_build.py)


@cache
def commit() -> str:
    """The git commit, shortened to 12 digits: as built, or of the checkout that this runs from; "" when neither is
    known.
    """
    here = Path(__file__).parent
    try:
        return (here / COMMIT_FILE).read_text("ascii").strip()
    except (OSError, ValueError):
        return _of_checkout(here.parents[1])


def _of_checkout(root: Path) -> str:
    if not (root / ".git").exists():  # an installed copy may lie inside somebody else's checkout
        return ""
    command = ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)  # noqa: S603 - a fixed command
    except (OSError, subprocess.SubprocessError, ValueError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def line() -> str:
    """One line as the Go plugin prints it: name, version, commit where known, and what it runs on."""
    parts = [PROGRAM, f"v{__version__}", f"git:{commit()}" if commit() else "", f"python{platform.python_version()}"]
    return " ".join(part for part in parts if part)


def user_agent() -> str:
    """The value of a `User-Agent` header (RFC 9110, 10.1.5)."""
    known = f" git/{commit()}" if commit() else ""
    return f"{PROGRAM}/{__version__}{known} python/{platform.python_version()}"
