"""A password, token or key of a receiver: given as it is, or in a file that may change while we run."""

from __future__ import annotations

from pathlib import Path

import structlog

from event_handler import redact
from event_handler.errors import SinkError
from event_handler.sinks.http_tls import file_stamp

LARGEST = 16 * 1024  # bytes; a longer file is not a token

log = structlog.get_logger()


class Secret:
    """`option` names it in errors, with `-file` behind it for the file. What is `encoded` when it is sent may have any
    characters. Raises SinkError when there is none, or two.

    A file is read again when it changes; one that cannot be read then is logged, and the old secret kept.
    """

    def __init__(self, value: str, file: str, option: str, *, encoded: bool = False) -> None:
        self._option = option
        self._file = file
        self._encoded = encoded
        self._stamp: tuple[int, int, int] | None = None
        if bool(value) == bool(file):
            which = "both set" if value else "missing"
            raise SinkError(f"{option} and {option}-file are {which}", "Set one of them.")
        self.value = self._checked(value) if value else self._read()

    def changed(self) -> bool:
        """Look at the file, and return whether the secret is another one now."""
        if not self._file or self._stamp == file_stamp(Path(self._file)):
            return False
        before = self.value
        try:
            self.value = self._read()
        except SinkError as error:
            log.warning("the file of a secret cannot be read, the old one stays", option=self._option, error=str(error))
        return self.value != before

    def _read(self) -> str:
        self._stamp = file_stamp(Path(self._file))
        try:
            text = Path(self._file).read_bytes()[: LARGEST + 1].decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise SinkError(f"{self._option}-file {self._file} cannot be read ({reason})", "Check the path.") from None
        return self._checked(text)

    def _checked(self, text: str) -> str:
        fits = self._encoded or (text.isascii() and text.isprintable())
        if not text or len(text) > LARGEST or not fits:
            reason = "is empty" if not text else "has a character that an HTTP header cannot hold, or is too long"
            raise SinkError(f"{self._option} {reason}", "Is it another file, or is there a line break in it?")
        redact.know([text])
        return text
