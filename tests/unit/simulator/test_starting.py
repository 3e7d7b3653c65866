"""What keeps a simulated part from starting is said in one sentence."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT = (
    "import runpy, sys; sys.modules[sys.argv.pop(1)] = None; runpy.run_module(sys.argv.pop(1), run_name='__main__')"
)


def said(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize(("module", "library"), [("", "google.protobuf"), (".demo", "rich")])
def test_a_library_of_the_extra_that_is_missing_is_named(module: str, library: str) -> None:
    text = said("-c", WITHOUT, library.partition(".")[0], f"event_handler.simulator{module}")
    assert f"the Python package {library}" in text
    assert "[simulator]" in text


@pytest.mark.parametrize("module", ["event_handler.simulator", "event_handler.simulator.forward_proxy"])
def test_a_port_that_is_taken_is_named(tmp_path: Path, module: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        own = (
            ["--kind=connect"]
            if module.endswith("proxy")
            else [f"--directory={tmp_path}", "--events=1", "--sessions=0"]
        )
        text = said("-m", module, f"--port={port}", *own)
    assert port in text
    assert "another port" in text


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert f"{tmp_path}/file" in said("-m", "event_handler.simulator", f"--directory={tmp_path}/file/sim")
