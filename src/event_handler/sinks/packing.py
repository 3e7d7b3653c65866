"""Packs bodies with gzip or zstd, for whatever a sink sends or writes."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from importlib import import_module
from typing import Any, Literal

from event_handler.errors import SinkError

# gzip's level; audit events shrink to a fifth with it, and to a sixth with level 6, which takes more than twice the
# time
FAST = 1
ZSTD_LEVEL = 3  # zstd's default: smaller than gzip's, in less time

Compression = Literal["none", "gzip", "zstd"]
SUFFIXES = {"none": "", "gzip": ".gz", "zstd": ".zst"}  # of names of packed files


def packer(compression: Compression) -> tuple[Callable[[bytes], bytes], bytes]:
    """What packs a body, and the HTTP header line that says so. Raises SinkError when zstd is not installed."""
    if compression == "none":
        return bytes, b""
    return (_gzip if compression == "gzip" else _zstd()), b"Content-Encoding: %b\r\n" % compression.encode()


def _gzip(body: bytes) -> bytes:
    return gzip.compress(body, FAST, mtime=0)


def _zstd() -> Callable[[bytes], bytes]:
    zstd = zstd_module()

    def pack(body: bytes) -> bytes:
        packed: bytes = zstd.compress(body, ZSTD_LEVEL)
        return packed

    return pack


def zstd_module() -> Any:
    """Python's own from 3.14 on, or the same for older ones. Raises SinkError when it is not installed."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return import_module(name)
        except ImportError:
            continue
    raise SinkError("zstd is not installed", "Run: pip install 'teleport-event-handler[zstd]', or choose gzip.")
