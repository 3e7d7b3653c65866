"""Puts the git commit into what is built, so that an installed copy knows where it comes from."""

from __future__ import annotations

import subprocess
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMMIT_FILE = "src/event_handler/commit.txt"  # read by event_handler.about


class CommitHook(BuildHookInterface):  # type: ignore[type-arg]  # its settings have no type
    """A wheel that is built from an sdist finds the file there already; without git there is none, which is no error."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable" or (Path(self.root) / COMMIT_FILE).exists():  # an editable copy asks git when it runs
            return
        if commit := self._commit():
            made = Path(mkdtemp()) / "commit.txt"
            made.write_text(f"{commit}\n", "ascii")
            target = COMMIT_FILE if self.target_name == "sdist" else COMMIT_FILE.removeprefix("src/")
            build_data["force_include"][str(made)] = target

    def _commit(self) -> str:
        if not (Path(self.root) / ".git").exists():
            return ""
        command = ["git", "-C", self.root, "rev-parse", "--short=12", "HEAD"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)  # noqa: S603 - a fixed command
        except (OSError, subprocess.SubprocessError):
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""
