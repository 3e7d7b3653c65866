"""The TLS settings of a receiver, made from PEM files that may be renewed while the process runs."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Literal

import structlog

from event_handler.errors import SinkError

TLS_CHECK_EVERY = 5.0  # seconds between looks at the TLS files; renewed certificates are taken up without a restart

TlsVersion = Literal["1.2", "1.3"]
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: `ca` to trust (the system's authorities without it), `cert` and `key` to show; "" means none.

    `oldest` is the oldest version of TLS that is spoken.
    """

    ca: str = ""
    cert: str = ""
    key: str = ""
    oldest: TlsVersion = "1.2"


class Tls:
    """The TLS context of the files, made again when one of them changes: connections made from then on use the new
    one.
    """

    def __init__(self, section: str, files: TlsFiles) -> None:
        self.section = section
        self.files = files
        self._seen = self._signature()
        self._context = tls_context(section, files)
        self._look_at = monotonic() + TLS_CHECK_EVERY

    def current(self) -> ssl.SSLContext:
        if monotonic() < self._look_at:
            return self._context
        self._look_at = monotonic() + TLS_CHECK_EVERY
        seen = self._signature()
        if seen != self._seen:
            self._seen = seen
            try:
                self._context = tls_context(self.section, self.files)
                log.info("TLS files have changed and are in use", options=self.section)
            except (
                SinkError
            ) as error:  # perhaps only one of two files is written yet; the next change is looked at again
                log.warning("TLS files have changed but cannot be used, going on with the old ones", error=str(error))
        return self._context

    def reload(self) -> None:
        """Look at the files before the next request: what failed may be repaired by now."""
        self._look_at = 0.0

    def _signature(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(file_stamp(Path(file)) for file in (self.files.ca, self.files.cert, self.files.key) if file)


def file_stamp(file: Path) -> tuple[int, int, int] | None:
    """What differs once a file was written or replaced; None while it cannot be looked at."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def tls_context(section: str, files: TlsFiles) -> ssl.SSLContext:
    """TLS of the version set or newer, the receiver's name checked, trusting `ca` only, or the system's authorities."""
    if bool(files.cert) != bool(files.key):
        raise SinkError(f"only one of {section}.cert and {section}.key is set", "Set both or none.")
    try:
        context = ssl.create_default_context(cafile=files.ca or None)
    except OSError as error:
        raise SinkError(
            f"the receiver's CA file {files.ca} cannot be used ({error})", "It must hold PEM certificates."
        ) from None
    context.minimum_version = VERSIONS[files.oldest]
    # Python 3.13 turns strict checks on by default; certificates made by the Go plugin lack the extensions that they
    # want.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    # Each certificate of the file is trusted for itself, as in Go: an intermediate authority, or the receiver's own
    # certificate.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.options |= ssl.OP_NO_RENEGOTIATION  # it would make a write wait for a read
    if files.cert:
        try:
            context.load_cert_chain(files.cert, files.key, password="")
        except (OSError, ValueError) as error:
            raise SinkError(
                f"the client certificate {files.cert} and key {files.key} cannot be used together ({error})",
                "They must be PEM, unencrypted, and belong to each other.",
            ) from None
    return context
