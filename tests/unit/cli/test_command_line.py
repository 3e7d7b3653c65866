"""Every way to call the program wrong, and what it answers: the rows of the Go plugin's table of exit codes, and
`version`.
"""

from __future__ import annotations

import errno
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from event_handler import __version__, about
from event_handler.cli import main

ROOT = Path(__file__).parents[3]
START = ["start", "--fluentd-url=https://c/a", "--fluentd-session-url=https://c/s", "--storage=st"]
BROKEN = "batch = ["
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs the program in an empty directory; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, environment: Mapping[str, str] | None = None) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["teleport-event-handler", *arguments])
        for name, value in (environment or {}).items():
            monkeypatch.setenv(name, value)
        code: int | str | None = 0
        try:
            main()
        except SystemExit as left:
            code = left.code
        assert isinstance(code, int)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


# arguments, exit code, what stderr says after "teleport-event-handler: error: "
USAGE: list[tuple[list[str], str]] = [
    ([], 'expected one of "version", "configure", "start"'),
    (["strat"], 'unexpected argument strat, did you mean "start"?'),
    (["nonsense"], "unexpected argument nonsense"),
    (["--nonsense", "start"], "unknown flag --nonsense"),
    (["start", "--fluentd-ulr=x"], 'unknown flag --fluentd-ulr, did you mean "--fluentd-url"?'),
    (["start", "--dry-run", "true"], "Got unexpected extra argument (true)"),
    (["version", "more"], "Got unexpected extra argument (more)"),
    (["configure"], "Missing argument 'OUT'."),
    (["configure", ".", "--ttl=5"], "--ttl: expected a duration with its unit"),
    (["configure", ".", "--output=splunk"], "Invalid value for '--output': 'splunk' is not one of"),
]
PROBLEMS: list[tuple[list[str], dict[str, str], int, str]] = [
    (["configure", ".", "--length=2000"], {}, 80, '--length must be one of "1024","2048","4096" but got "2000"'),
    (["configure", ".", "--ip=1.2.3"], {}, 80, "expected an IP address, got '1.2.3'"),
    (["configure", "absent"], {}, 80, "expected a directory, got absent"),
    (["start"], {}, 80, "missing flags: --fluentd-session-url=STRING, --fluentd-url=STRING, --storage=STRING"),
    ([*START, "--fluentd-ca=absent"], {}, 80, "--fluentd-ca: "),
    ([*START, "--batch=abc"], {}, 80, "--batch: expected a whole number, got 'abc'"),
    (START, {"FDFWD_FLUENTD_CA": "absent"}, 80, "FDFWD_FLUENTD_CA: "),
    (START, {"FDFWD_BATCH": "abc"}, 80, "FDFWD_BATCH: expected a whole number, got 'abc'"),
    ([*START, "--config=broken.toml"], {}, 80, "broken.toml is not TOML"),
    (["-cbroken.toml", *START], {}, 80, "broken.toml is not TOML"),
    (["--config=absent.toml", *START], {}, 80, "the file absent.toml cannot be read"),
    (["start"], {"container": "oci"}, 80, "or name a file with --config, in a directory that you mount: docker run "),
    (
        ["start", "-cx.toml"],
        {"container": "oci"},
        80,
        "Check --config, and that the file is in a directory that you mo",
    ),
    (START, {}, 80, "neither "),
    ([*START, "--fluentd-url=https://u:hunter2@c/ /", "--teleport-cert=broken.toml"], {}, 80, ""),
]


@pytest.mark.parametrize(
    ("arguments", "message"), USAGE, ids=[" ".join(arguments) or "nothing" for arguments, _ in USAGE]
)
def test_a_wrong_command_line_is_80_with_the_usage_on_stdout_and_the_error_on_stderr(
    call: Run, arguments: list[str], message: str
) -> None:
    code, out, err = call(*arguments)
    assert code == 80
    assert out.startswith("Usage: teleport-event-handler ")
    assert out.endswith("\n\n")
    assert err.startswith(f"teleport-event-handler: error: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(("arguments", "environment", "code", "message"), PROBLEMS)
def test_a_setting_that_makes_no_sense_is_one_line(
    call: Run, tmp_path: Path, arguments: list[str], environment: dict[str, str], code: int, message: str
) -> None:
    (tmp_path / "broken.toml").write_text(BROKEN)
    found, out, err = call(*arguments, environment=environment)
    assert (found, out) == (code, "")
    assert message in err
    assert err.startswith("teleport-event-handler: error: ")
    assert err.count("\n") == 1
    assert "hunter2" not in err


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], ["start", "--help"], ["start", "-h"], ["configure", "--help"], ["version", "-h"]]
)
def test_help_is_no_error(call: Run, arguments: list[str]) -> None:
    code, out, err = call(*arguments)
    assert (code, err) == (0, "")
    assert "--config" in out


def test_a_file_that_cannot_be_written_is_255(call: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # as in a process that was started without one
    (tmp_path / "fluent.conf").mkdir()
    code, _, err = call("configure", ".", "--key-type=ecdsa", "--force")
    assert code == 255
    assert "fluent.conf: is a directory" in err


@pytest.mark.parametrize(
    "arguments", [["version"], ["-d", "version"], ["--debug", "version"], ["version", "-d"], ["-dcx", "version"]]
)
def test_version_is_one_line_also_with_variables_that_only_start_would_refuse(call: Run, arguments: list[str]) -> None:
    code, out, err = call(*arguments, environment={"FDFWD_BATCH": "abc", "FDFWD_CONFIG": "absent"})
    assert (code, err) == (0, "")
    assert out == f"{about.line()}\n"


def test_debug_before_the_command_reaches_start(call: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        "event_handler.cli.start_command.run", lambda settings, warnings: seen.append((settings.debug, settings.batch))
    )
    (tmp_path / "a.toml").write_text("batch = 7")
    for before in (["-d"], ["--debug"], ["--debug=true"], ["-dc", "a.toml"]):
        assert call(*before, *START)[0] == 0
    assert call("--debug", *START, "--debug=false")[0] == 0
    assert seen == [(True, 0), (True, 0), (True, 0), (True, 7), (False, 0)]


def fail_with(error: BaseException) -> Callable[..., None]:
    def run(*_: object) -> None:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            LookupError("https://u:hunter2@c/x"),
            1,
            "this is a fault of the program: LookupError: https://c in test_command_line.py",
        ),
        (ExceptionGroup("several", [ExceptionGroup("x", [ZeroDivisionError("z")])]), 1, "ZeroDivisionError: z"),
        (OSError(errno.ENOSPC, "No space left on device", "/var/x"), 1, "/var/x: No space left on device. Check that"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "standard output: No space left on device."),
        (PermissionError(errno.EACCES, "Permission denied", "/var/x"), 80, "/var/x: Permission denied."),
        (RecursionError("too deep"), 1, "RecursionError: too deep"),
    ],
)
def test_an_error_that_nobody_foresaw_is_one_sentence_and_a_traceback_with_debug_only(
    call: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    monkeypatch.setattr("event_handler.cli.start_command.run", fail_with(error))
    found, _, err = call(*START)
    assert (found, err.count("\n")) == (code, 1)
    assert said in err
    for debug in (["-d", *START], [*START, "--debug"]):
        _, _, err = call(*debug)
        assert "Traceback (most recent call last)" in err
        assert said in err
        assert "hunter2" not in err


def test_a_key_that_is_not_known_is_told_before_the_error_it_led_to(call: Run, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("stroage = 'x'\n[forward.fluentd]\nurl = 'x'\nsession-url = 'y'\n")
    code, _, err = call("start", "-ca.toml")
    assert code == 80
    assert err.splitlines() == [
        "teleport-event-handler: warning: a.toml: the key stroage is not known; did you mean storage?",
        "teleport-event-handler: error: missing flags: --storage=STRING. Set them.",
    ]


@pytest.fixture
def own_commit() -> Iterator[None]:
    about.commit.cache_clear()
    yield
    about.commit.cache_clear()


@pytest.mark.usefixtures("own_commit")
def test_the_commit_is_that_of_the_checkout() -> None:
    asked = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    expected = asked.stdout[:12] if (ROOT / ".git").exists() else ""
    assert about.commit() == expected


@pytest.mark.usefixtures("own_commit")
def test_the_commit_that_was_built_in_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.setattr(about, "__file__", str(tmp_path / "a" / "b" / "about.py"))
    (tmp_path / "a" / "b" / "commit.txt").write_text("0123456789ab\n")
    python = platform.python_version()
    assert about.line() == f"teleport-event-handler v{__version__} git:0123456789ab python{python}"
    assert about.user_agent() == f"teleport-event-handler/{__version__} git/0123456789ab python/{python}"


@pytest.mark.usefixtures("own_commit")
@pytest.mark.parametrize("git", [False, True])
def test_without_a_commit_there_is_just_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, git: bool) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    if git:  # a checkout that git cannot read
        (tmp_path / ".git").write_text("gitdir: /nowhere")
    monkeypatch.setattr(about, "__file__", str(tmp_path / "a" / "b" / "about.py"))
    assert re.fullmatch(r"teleport-event-handler v\S+ python3\S+", about.line())
    about.commit.cache_clear()
    monkeypatch.setenv("PATH", "/nowhere")
    assert about.commit() == ""
