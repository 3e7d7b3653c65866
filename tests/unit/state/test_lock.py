"""A directory is worked on by one process, and what keeps the lock from being taken is told as what it is."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from event_handler.errors import StateError
from event_handler.state.lock import holder_of, take_lock


def failing(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_a_file_system_without_locks_is_refused_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    failing(number, monkeypatch)
    with pytest.raises(StateError, match=rf"file system of {tmp_path} has no file locks.*local file system"):
        take_lock(tmp_path / "lock")


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EINTR, errno.ESTALE, errno.EPERM, errno.ENOSPC])
def test_other_failures_are_not_taken_for_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    failing(number, monkeypatch)
    with pytest.raises(
        StateError, match=rf"the lock {tmp_path}/lock cannot be taken \({os.strerror(number)}\)"
    ) as caught:
        take_lock(tmp_path / "lock")
    assert caught.value.hint


def test_a_lock_that_is_held_names_the_process_and_one_that_was_let_go_can_be_taken(tmp_path: Path) -> None:
    first = take_lock(tmp_path / "lock")
    with pytest.raises(StateError, match=rf"another event handler \(pid {os.getpid()}\) works in {tmp_path}"):
        take_lock(tmp_path / "lock")
    os.close(first)
    os.close(take_lock(tmp_path / "lock"))


def test_a_lock_that_cannot_be_opened_is_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(StateError, match=r"the storage .*/lock is not usable.*directory"):
        take_lock(tmp_path / "lock")


def test_who_asks_for_the_holder_takes_nothing_and_is_told_its_pid(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    descriptor = take_lock(path)
    assert holder_of(path) == str(os.getpid())
    os.close(descriptor)
    assert holder_of(path) == ""
    os.close(take_lock(path))


def test_a_lock_that_cannot_be_asked_for_is_told_as_when_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lock").touch()
    failing(errno.ENOLCK, monkeypatch)
    with pytest.raises(StateError, match="has no file locks"):
        holder_of(tmp_path / "lock")
