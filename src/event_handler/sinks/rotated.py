"""The renamed files behind a file that rotates: numbered, packed when asked, the oldest deleted."""

from __future__ import annotations

import gzip
import os
import shutil
import threading
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import IO, cast

import structlog

from event_handler.sinks.packing import FAST, SUFFIXES, Compression, zstd_module

FORMS = tuple(SUFFIXES.values())  # of a file that was packed, or not yet, or by another setting
COPY_BLOCK = 1024 * 1024  # bytes

log = structlog.get_logger()


class RotatedFiles:
    """`<path>.1` is the newest, up to `keep`; packed they end in `.gz` or `.zst`.

    Packing goes on in a thread of its own. A packed file gets its name when it is whole, and then the plain one goes: a
    crash leaves one of them, or both, of which the plain one is deleted at the next rotation. Raises SinkError where
    zstd is not installed.
    """

    def __init__(self, path: Path, keep: int, compression: Compression = "none") -> None:
        self._path = path
        self._keep = keep
        self._suffix = SUFFIXES[compression]
        if compression == "zstd":
            zstd_module()
        self._packing: threading.Thread | None = None

    def rotate(self) -> None:
        """Rename from the oldest on, so that a crash in between leaves a gap and never overwrites. Raises OSError."""
        self.finish()
        for number in range(self._keep, 0, -1):
            self._drop_doubles(number)
            for form in FORMS:
                with suppress(FileNotFoundError):
                    if number == self._keep:
                        self._numbered(number, form).unlink()
                    else:
                        self._numbered(number, form).replace(self._numbered(number + 1, form))
        self._path.replace(self._numbered(1))
        if self._suffix:
            self._packing = threading.Thread(target=self._pack_all, name="packing renamed files", daemon=True)
            self._packing.start()

    def finish(self) -> None:
        """Wait until what is being packed is packed."""
        if self._packing is not None:
            self._packing.join()
            self._packing = None

    def _numbered(self, number: int, form: str = "") -> Path:
        return self._path.with_name(f"{self._path.name}.{number}{form}")

    def _drop_doubles(self, number: int) -> None:
        if any(self._numbered(number, form).exists() for form in FORMS if form):
            self._numbered(number).unlink(missing_ok=True)

    def _pack_all(self) -> None:
        for number in range(1, self._keep + 1):
            plain = self._numbered(number)
            try:
                self._pack(plain)
            except FileNotFoundError:
                continue
            except OSError as error:
                log.warning("a renamed file cannot be packed and stays as it is", file=str(plain), error=str(error))

    def _packer(self, target: IO[bytes]) -> AbstractContextManager[IO[bytes]]:
        if self._suffix == SUFFIXES["gzip"]:
            return cast(IO[bytes], gzip.GzipFile(fileobj=target, mode="wb", compresslevel=FAST, mtime=0))
        opened: IO[bytes] = zstd_module().open(target, "wb")
        return opened

    def _pack(self, plain: Path) -> None:
        """Raises FileNotFoundError where there is none, and OSError, which leaves it as it was."""
        begun = plain.with_name(f"{plain.name}{self._suffix}.part")
        try:
            with plain.open("rb") as source, begun.open("wb") as target:
                os.fchmod(target.fileno(), os.fstat(source.fileno()).st_mode & 0o777)
                with self._packer(target) as packed:
                    shutil.copyfileobj(source, packed, COPY_BLOCK)
                target.flush()
                os.fsync(target.fileno())
            begun.replace(plain.with_name(f"{plain.name}{self._suffix}"))
        except OSError:
            begun.unlink(missing_ok=True)
            raise
        plain.unlink()
