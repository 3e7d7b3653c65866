"""Writes files in groups that belong together: a group is written whole or kept whole, and nothing half."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from event_handler.errors import FilesError


@dataclass(frozen=True, slots=True)
class Group:
    """Files that are worth nothing without each other. `make` returns their contents in the order of `paths`."""

    title: str
    paths: tuple[Path, ...]
    make: Callable[[], Sequence[bytes]]

    def existing(self) -> list[Path]:
        """Also a dangling symlink is something that is there."""
        return [path for path in self.paths if os.path.lexists(path)]


def write(groups: Sequence[Group]) -> list[Path]:
    """Write the groups, all of them or none, only for the owner to read (0600), and return the paths.

    Raises FilesError; then nothing has been changed, unless the disk fails in the middle of renaming.
    """
    contents = {path: content for group in groups for path, content in zip(group.paths, group.make(), strict=True)}
    _write_all(contents)
    return list(contents)


def _write_all(contents: Mapping[Path, bytes]) -> None:
    """Write everything beside its destination first; only when all of it is on disk are the files put in place."""
    staged: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            _stage(path, content, staged)
        for path, temporary in staged.items():
            temporary.replace(path)
        for parent in {path.parent for path in contents}:
            _sync_directory(parent)
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise FilesError(f"the files cannot be written ({reason})", "Check the directory and free space.") from None
    finally:
        for temporary in staged.values():
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _stage(path: Path, content: bytes, staged: dict[Path, Path]) -> None:
    if path.is_dir():  # found before anything is in place: renaming a file over a directory fails half-way
        raise IsADirectoryError(21, "is a directory", str(path))
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # made 0600
    staged[path] = Path(name)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
