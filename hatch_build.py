"""Puts the git commit into what is built, and compiles what every event passes into the wheel where a C compiler is
at hand.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMMIT_FILE = "src/event_handler/commit.txt"  # read by event_handler.about
COMPILED = (  # where the CPU goes; they run uncompiled as well
    "event_handler/event.py",
    "event_handler/pipeline/dedup.py",
    "event_handler/pipeline/entry.py",
    "event_handler/pipeline/select.py",
    "event_handler/sinks/columns.py",
    "event_handler/sinks/elasticsearch/documents.py",
    "event_handler/sinks/fields.py",
    "event_handler/sinks/kafka/messages.py",
    "event_handler/sinks/kafka/reports.py",
    "event_handler/sinks/moments.py",
    "event_handler/sinks/nats/messages.py",
    "event_handler/sinks/otlp/encode.py",
    "event_handler/sinks/postgresql/arrays.py",
    "event_handler/sinks/syslog/formats.py",
    "event_handler/teleport/wire/decode.py",
    "event_handler/teleport/wire/raw.py",
    "event_handler/teleport/transport/frames.py",
)
PURE = "EVENT_HANDLER_PURE_PYTHON"  # set to anything to compile nothing
COMPILE_TIMEOUT = 300  # seconds; it takes 10


def _reproducible(aside: Path) -> dict[str, str]:
    """What keeps the names of directories out of the libraries: the same source gives the same bytes."""
    mypyc = find_spec("mypyc")
    libraries = Path(mypyc.origin).parents[1] if mypyc is not None and mypyc.origin else aside
    mapped = " ".join(f"-ffile-prefix-map={directory}=." for directory in (aside, libraries))
    compile_flags = f"{os.environ.get('CFLAGS', '')} -g0 {mapped}"
    if sys.platform != "linux":
        return {"CFLAGS": compile_flags}
    return {"CFLAGS": compile_flags, "LDFLAGS": f"{os.environ.get('LDFLAGS', '')} -Wl,--build-id=none"}


class BuildHook(BuildHookInterface):  # type: ignore[type-arg]  # its settings have no type
    """A wheel that is built from an sdist finds the commit there already.

    Without git there is none, which is no error.
    """

    PLUGIN_NAME = "custom"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._made: list[Path] = []

    def dependencies(self) -> list[str]:
        return ["mypy>=2.4,<3", "setuptools>=80"] if self._compiles() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":  # its source may change at any time, and it asks git when it runs
            return
        if not (Path(self.root) / COMMIT_FILE).exists() and (commit := self._commit()):
            made = self._aside() / "commit.txt"
            made.write_text(f"{commit}\n", "ascii")
            target = COMMIT_FILE if self.target_name == "sdist" else COMMIT_FILE.removeprefix("src/")
            build_data["force_include"][str(made)] = target
        if self._compiles() and (libraries := self._compile()):
            build_data["force_include"] |= libraries
            build_data["pure_python"] = False
            build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        for directory in self._made:
            shutil.rmtree(directory, ignore_errors=True)

    def _aside(self) -> Path:
        """A directory that lasts until the wheel is packed."""
        self._made.append(Path(mkdtemp(prefix="event-handler-build-")))
        return self._made[-1]

    def _commit(self) -> str:
        if not (Path(self.root) / ".git").exists():
            return ""
        command = ["git", "-C", self.root, "rev-parse", "--short=12", "HEAD"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)  # noqa: S603 - a fixed command
        except (OSError, subprocess.SubprocessError):
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    def _compiles(self) -> bool:
        """Whether this build can and shall compile: by a compiler and Python's own headers."""
        compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
        headers = Path(sysconfig.get_path("include")) / "Python.h"
        return (
            self.target_name == "wheel"
            and not os.environ.get(PURE)
            and bool(shutil.which(compiler))
            and headers.exists()
        )

    def _compile(self) -> dict[str, str]:
        """Compile in a directory aside; returns what was made, and its place in the wheel.

        Where that fails the wheel is pure Python: it does the same, and costs more CPU.
        """
        aside = self._aside()
        shutil.copytree(
            Path(self.root) / "src" / "event_handler",
            aside / "event_handler",
            ignore=shutil.ignore_patterns("*.so", "*.pyd"),
        )
        command = [sys.executable, "-m", "mypyc", "--ignore-missing-imports", *COMPILED]
        try:
            done = subprocess.run(  # noqa: S603 - a fixed command
                command,
                cwd=aside,
                env=os.environ | {"MYPYPATH": str(aside)} | _reproducible(aside),
                capture_output=True,
                text=True,
                timeout=COMPILE_TIMEOUT,
                check=False,
            )
            said = done.stdout + done.stderr
        except (OSError, subprocess.SubprocessError) as error:
            said = str(error)
        shutil.rmtree(aside / "build", ignore_errors=True)
        built = [path for path in aside.rglob("*") if path.suffix in (".so", ".pyd")]
        if not built:
            self.app.display_warning(f"Nothing is compiled, events will cost more CPU: {said.strip()[-500:]}")
        return {str(path): str(path.relative_to(aside)) for path in built}
