"""When the certificate in a file expires, for metrics and the status page; the file may be renewed meanwhile."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509


class CertificateFile:
    """A PEM file, "" for none. It is read again when it was written or replaced."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._stamp: tuple[int, int, int] | None = None
        self._expires: float | None = None

    def expires(self) -> float | None:
        """Seconds since the epoch when its first certificate expires; None without one, or where it cannot be read."""
        if not self._file:
            return None
        try:
            status = Path(self._file).stat()
            stamp = status.st_ino, status.st_mtime_ns, status.st_size
            if stamp != self._stamp:
                certificate = x509.load_pem_x509_certificate(Path(self._file).read_bytes())
                self._stamp, self._expires = stamp, certificate.not_valid_after_utc.timestamp()
        except (OSError, ValueError):
            return None
        return self._expires
