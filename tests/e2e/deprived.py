"""Runs commands of the program, each in a process from which something was taken away: the name, the disk, a stream,
the directory.

Reads jobs as JSON from its argument, writes what came of them as JSON to standard output. The program is loaded once,
for all: each job is a fork, which takes milliseconds, and may be a user who cannot read these files.
"""

from __future__ import annotations

import atexit
import codecs
import json
import os
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from event_handler.cli import cli, main
from event_handler.sinks import elasticsearch, file, fluentd

LOADED_LATE = (
    elasticsearch,
    file,
    fluentd,
)  # by the program itself, which a user who cannot read these files could not
codecs.lookup("utf-8-sig")  # likewise
COMMANDS = [cli.get_command(click.Context(cli), name) for name in cli.list_commands(click.Context(cli))]  # likewise

NOBODY = 123_456  # a user id without a name, as OpenShift gives
TIME = 30  # seconds; whoever hangs is ended by SIGALRM, whose exit code is told as -14


def nobody() -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    os.environ.pop("HOME", None)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        os.environ.pop(name, None)


def deleted_directory() -> None:
    gone = tempfile.mkdtemp()
    os.chdir(gone)
    Path(gone).rmdir()


def full_disk() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def closed(descriptor: int) -> Callable[[], None]:
    def close() -> None:
        os.close(descriptor)
        name = ("stdin", "stdout", "stderr")[descriptor]
        setattr(sys, name, None)  # as the interpreter begins where it is closed

    return close


def onto(path: str, descriptor: int) -> Callable[[], None]:
    def put() -> None:
        opened = os.open(path, os.O_WRONLY)
        os.dup2(opened, descriptor)
        os.close(opened)

    return put


def reader_has_ended() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 1)
    os.close(writing)


CONDITIONS: dict[str, Callable[[], None]] = {
    "nothing missing": lambda: None,
    "user without a name or a home": nobody,
    "working directory deleted": deleted_directory,
    "disk full": full_disk,
    "standard input closed": closed(0),
    "standard output closed": closed(1),
    "standard error closed": closed(2),
    "standard output full": onto("/dev/full", 1),
    "standard error full": onto("/dev/full", 2),
    "standard output read by nobody": reader_has_ended,
}


def run(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All at once: most of the time they wait."""
    return [job | _end(*running) for job, running in zip(jobs, [_begin(job) for job in jobs], strict=True)]


def _begin(job: dict[str, Any]) -> tuple[int, int, int]:
    (out, to_out), (err, to_err) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        _child(job, to_out, to_err)
    os.close(to_out)
    os.close(to_err)
    return child, out, err


def _end(child: int, out: int, err: int) -> dict[str, Any]:
    said = {name: os.fdopen(end).read() for name, end in (("out", out), ("err", err))}  # less than a pipe holds
    return said | {"code": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}


def _child(job: dict[str, Any], out: int, err: int) -> NoReturn:
    signal.alarm(TIME)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.closerange(3, 500)
    code: Any = 0
    try:
        os.chdir(job["directory"])
        CONDITIONS[job["condition"]]()
        sys.argv = ["teleport-event-handler", *job["command"]]
        main()
    except SystemExit as left:
        code = left.code
    except BaseException:
        os.write(err, traceback.format_exc().encode())
        code = 99
    atexit._run_exitfuncs()
    os._exit(code or 0)


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
