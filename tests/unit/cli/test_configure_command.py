"""`configure` as a real process: with a terminal, a pipe or nothing to ask, and files that are in the way."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

COMMAND = [sys.executable, "-m", "event_handler", "configure", ".", "example.test:443", "--key-type=ecdsa"]


def run(out: Path, *more: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """From a pipe that holds `stdin`, or with /dev/null."""
    if stdin is None:
        return subprocess.run([*COMMAND, *more], cwd=out, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return subprocess.run([*COMMAND, *more], cwd=out, input=stdin, capture_output=True, check=False)


def at_terminal(out: Path, dialogue: Sequence[tuple[str, str]], *more: str) -> tuple[int, str]:
    """Type each answer when its question has appeared.

    Return the exit code and what the terminal had echoed and shown.
    """
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *more], cwd=out, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    os.close(theirs)
    assert process.stderr is not None
    shown, at = "", 0
    for question, answer in dialogue:
        while question not in shown[at:]:
            piece = os.read(process.stderr.fileno(), 65536)
            assert piece, f"ended before it asked {question!r}: {shown}"
            shown += piece.decode()
        at = len(shown)
        os.write(ours, f"{answer}\n".encode())
    written, errors = process.communicate()
    return process.returncode, shown + errors.decode() + echo(ours) + written.decode()


def echo(terminal: int) -> str:
    """What it has shown of the typing: nothing, told as an error once the other side is closed, when it was told not
    to.
    """
    try:
        return os.read(terminal, 65536).decode()
    except OSError:
        return ""
    finally:
        os.close(terminal)


def opens(out: Path, passphrase: str) -> bool:
    """Whether the server's key is encrypted with it, and the collector's file has it."""
    key = (out / "server.key").read_bytes()
    assert b"ENCRYPTED" in key
    load_pem_private_key(key, passphrase.encode())
    return f'private_key_passphrase "{passphrase}"\n' in (out / "fluent.conf").read_text()


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_an_address_is_enough(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(contents(tmp_path)) == sorted(
        [
            *(f"{name}.{kind}" for name in ("ca", "server", "client") for kind in ("crt", "key")),
            "fluent.conf",
            "teleport-event-handler-role.yaml",
            "teleport-event-handler.toml",
            "teleport-plugin-event-handler-values.yaml",
        ]
    )
    assert b"ca.crt, ca.key, server.crt, server.key, client.crt, client.key, fluent.conf\n" in done.stdout
    assert b"tctl create -f " in done.stdout
    assert f"tctl auth sign --user=teleport-event-handler --out={tmp_path}/identity --ttl=".encode() in done.stdout


@pytest.mark.parametrize("stdin", [None, b"", b"\n"], ids=["/dev/null", "empty pipe", "empty line"])
def test_without_a_passphrase_one_is_made_up_and_not_shown(tmp_path: Path, stdin: bytes | None) -> None:
    done = run(tmp_path, stdin=stdin)
    line = next(line for line in (tmp_path / "fluent.conf").read_text().splitlines() if "passphrase" in line)
    passphrase = line.split('"')[1]
    assert len(passphrase) == 64
    assert opens(tmp_path, passphrase)
    assert b"The passphrase of the server's key was made up; fluent.conf has it." in done.stdout
    assert passphrase.encode() not in done.stdout + done.stderr


@pytest.mark.parametrize("stdin", [b"secret one", b"secret one\n", b"secret one\r\nsecond line\n"])
def test_the_first_line_of_a_pipe_is_the_passphrase_without_its_end(tmp_path: Path, stdin: bytes) -> None:
    done = run(tmp_path, stdin=stdin)
    assert opens(tmp_path, "secret one")
    assert b"made up" not in done.stdout
    assert b"secret one" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("stdin", "message"), [(b"\xff\xfe\n", b"expected a passphrase in UTF-8"), (b"x" * 2000, b"1 to 1023 bytes")]
)
def test_a_passphrase_that_cannot_be_used_writes_nothing(tmp_path: Path, stdin: bytes, message: bytes) -> None:
    done = run(tmp_path, stdin=stdin)
    assert done.returncode == 80
    assert message in done.stderr
    assert contents(tmp_path) == {}


def test_a_terminal_is_asked_twice_for_the_passphrase_and_shows_nothing(tmp_path: Path) -> None:
    dialogue = [("Passphrase", "first"), ("Once more", "other"), ("Passphrase", "typed in"), ("Once more", "typed in")]
    code, shown = at_terminal(tmp_path, dialogue)
    assert code == 0, shown
    assert opens(tmp_path, "typed in")
    assert "typed in" not in shown


def test_in_a_pipe_files_are_kept_group_by_group_and_listed(tmp_path: Path) -> None:
    assert run(tmp_path).returncode == 0
    (tmp_path / "fluent.conf").unlink()  # belongs to the certificates: not made without them
    (tmp_path / "teleport-event-handler.toml").unlink()
    before = contents(tmp_path)
    done = run(tmp_path, stdin=b"new\n")
    assert done.returncode == 0, "as with the Go plugin: a script may call it twice"
    assert b"--force replaces it" in done.stderr
    after = contents(tmp_path)
    assert after.keys() - before.keys() == {"teleport-event-handler.toml"}
    assert {name: after[name] for name in before} == before
    kept = [line for line in done.stdout.decode().splitlines() if "KEPT" in line]
    assert len(kept) == 3
    assert "because these exist: ca.crt, ca.key, server.crt, server.key, client.crt, client.key (" in kept[0]
    assert "fluent.conf:" in kept[0]


def test_force_replaces_everything(tmp_path: Path) -> None:
    run(tmp_path)
    before = contents(tmp_path)
    assert run(tmp_path, "--force", stdin=b"new\n").returncode == 0
    changed = {name for name, content in contents(tmp_path).items() if content != before[name]}
    assert changed == {"ca.crt", "ca.key", "server.crt", "server.key", "client.crt", "client.key", "fluent.conf"}
    assert opens(tmp_path, "new")


@pytest.mark.parametrize("yes", ["y", "Y"])
def test_at_a_terminal_each_group_is_asked_for(tmp_path: Path, yes: str) -> None:
    run(tmp_path)
    for name in ("server.crt", "client.key"):
        (tmp_path / name).unlink()
    before = contents(tmp_path)
    answers = [yes, "n", "", "N"]
    dialogue = [("Replace all of them? [y/N]", answer) for answer in answers] + [
        ("Passphrase", "again"),
        ("Once more", "again"),
    ]
    code, shown = at_terminal(tmp_path, dialogue)
    assert code == 0, shown
    assert opens(tmp_path, "again")
    after = contents(tmp_path)
    assert {name for name in before if after[name] == before[name]} == {
        "teleport-event-handler-role.yaml",
        "teleport-event-handler.toml",
        "teleport-plugin-event-handler-values.yaml",
    }


def test_leaving_at_a_question_writes_nothing(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "fluent.conf").unlink()
    before = contents(tmp_path)
    code, _ = at_terminal(tmp_path, [("Replace all of them?", "y"), ("Replace all of them?", "\x04")])
    assert code == 130
    assert contents(tmp_path) == before


def test_lists_may_be_given_in_both_ways(tmp_path: Path) -> None:
    run(tmp_path, "--dns-names=a.test,b.test", "--dns-names", "c.test", "--ip=192.0.2.1, 2001:db8::1")
    text = subprocess.run(
        ["openssl", "x509", "-in", str(tmp_path / "server.crt"), "-noout", "-ext", "subjectAltName"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "DNS:a.test, DNS:b.test, DNS:c.test, IP Address:192.0.2.1, IP Address:2001:DB8:0:0:0:0:0:1" in text


@pytest.mark.own_clock  # faketime opens a descriptor of its own, and so the process has an input
def test_without_any_standard_input_a_passphrase_is_made_up(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--force"], cwd=tmp_path, capture_output=True, check=False, preexec_fn=lambda: os.close(0)
    )
    assert done.returncode == 0, done.stderr
    assert b"was made up" in done.stdout


def test_short_rsa_keys_are_made_with_a_warning(tmp_path: Path) -> None:
    done = run(tmp_path, "--key-type=rsa", "--length=1024")
    assert done.returncode == 0
    assert b"refuse RSA keys of 1024 bits" in done.stderr


@pytest.mark.parametrize(
    ("addr", "warned"), [("example.test", True), ("example.test:443", False), ("[2001:db8::1]:3025", False)]
)
def test_an_address_without_a_port_is_written_and_told(tmp_path: Path, addr: str, warned: bool) -> None:
    command = [*COMMAND[:5], addr, "--key-type=ecdsa"]
    done = subprocess.run(command, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert f'addr = "{addr}"' in (tmp_path / "teleport-event-handler.toml").read_text()
    assert (b"has no port" in done.stderr) == warned
