"""Reads the answer to an HTTP/1.x request: its status line counts as soon as it can be read, whatever is wrong behind
it.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import lru_cache

HEAD_LIMIT = (
    64 * 1024
)  # bytes of a status line with its headers, interim answers included; real ones have a few hundred
LINE_LIMIT = 4096  # bytes of a line between chunks, and of all lines after the last one
STATUS_BEGINNING = 32  # bytes of something else than HTTP that an error may show

_STATUS = re.compile(rb"HTTP/\d+(?:\.\d+)?[ \t]+(\d{3})(?=[\s]|$)", re.IGNORECASE)
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?", re.DOTALL)
CHALLENGE = b"www-authenticate"
_CACHED_HEADS = 64  # a receiver repeats its head word for word, but for a date that changes once a second

_CODINGS = {
    b"gzip": 47,
    b"x-gzip": 47,
    b"deflate": 47,
}  # for zlib: 32 to recognise the format, 15 for the largest window
_ANY_LENGTH = -1  # the body ends with the connection
_CHUNKED = -2


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver said.

    `complete` is False when the body was cut off, by the receiver, by time or by the limit, or is garbled. `challenge`
    is the header WWW-Authenticate, `etag` the version of what was asked for.
    """

    status: int
    retry_after: str
    body: bytes
    complete: bool
    challenge: str = ""
    etag: str = ""


class UnreadableAnswerError(Exception):
    """What came is not an HTTP answer; `beginning` are its first bytes."""

    def __init__(self, beginning: bytes) -> None:
        super().__init__("not an HTTP answer")
        self.beginning = beginning


@dataclass(frozen=True, slots=True)
class _Head:
    """What of a head matters.

    `length` of the body, or _ANY_LENGTH, or _CHUNKED; `sound` when the connection may be used again.
    """

    status: int
    retry_after: str
    length: int
    sound: bool
    coding: bytes
    challenge: str
    etag: str


class AnswerReader:
    """Takes the bytes of one answer as they come, of the body up to `limit`.

    With `status_only` a 2xx answer whose body ends with the connection is complete at its head, for nobody reads that
    body.
    """

    def __init__(self, limit: int, *, status_only: bool = False) -> None:
        self._limit = limit
        self._status_only = status_only
        self._buffer = bytearray()
        self._seen = 0  # bytes of interim heads, then of lines between chunks
        self._head: _Head | None = None
        self._body = b""
        self._left = 0  # bytes of the body, or of the chunk, that are still to come
        self._after_chunk = False
        self._in_trailer = False
        self._cut = False
        self.reusable = False

    def feed(self, data: bytes) -> bool:
        """Take the next bytes; True when the answer is decided. Raises UnreadableAnswerError."""
        head = self._head
        if head is None:
            searched = max(0, len(self._buffer) - 2)
            self._buffer += data
            head = self._read_head(searched)
            if head is None:
                return self._cut
        else:
            self._buffer += data
        if head.length == _CHUNKED:
            return self._read_chunks()
        if head.length == _ANY_LENGTH:
            return self._take(len(self._buffer)) or (self._status_only and 200 <= head.status < 300)
        if self._take(min(self._left, len(self._buffer))):
            return True
        if self._left:
            return False
        self.reusable = head.sound and not self._buffer
        return True

    def answer(self) -> Answer:
        """The answer when `feed` has said that it is decided."""
        head = self._head
        if head is None:  # its head is too long to be read
            return Answer(_status(bytes(self._buffer)), "", b"", False)
        if head.coding:
            body, whole = _decoded(head.coding, self._body, self._limit)
            return Answer(head.status, head.retry_after, body, whole and not self._cut, head.challenge, head.etag)
        return Answer(head.status, head.retry_after, self._body, not self._cut, head.challenge, head.etag)

    def ended(self, *, by_peer: bool) -> Answer | None:
        """The answer so far, when nothing more comes: the connection was closed or time is up. None when it has no
        status yet.

        A head that trickles and never ends is no answer, one that the receiver itself broke off has a status that
        counts.
        """
        if self._head is None:
            status = _status(bytes(self._buffer)) if by_peer else 0
            return Answer(status, "", b"", False) if status >= 200 else None
        self._cut = not (by_peer and self._head.length == _ANY_LENGTH)
        return self.answer()

    @property
    def begun(self) -> bytes:
        """The beginning of an answer that has no status yet."""
        return bytes(self._buffer[:STATUS_BEGINNING])

    def _read_head(self, searched: int) -> _Head | None:
        buffer = self._buffer
        if buffer.startswith((b"\r", b"\n")):  # empty lines before an answer are passed over (RFC 9112, 2.2)
            length = len(buffer)
            buffer[:] = buffer.lstrip(b"\r\n")
            self._seen += length - len(buffer)
            searched = 0
        while found := _END_OF_HEAD.search(buffer, searched):
            head = _parse(bytes(buffer[: found.end()]))
            if head is None:
                raise UnreadableAnswerError(self.begun)
            self._seen += found.end()
            del buffer[: found.end()]
            searched = 0
            if head.status >= 200 or head.status == 101:
                self._head = head
                self._seen = 0
                self._left = max(0, head.length)
                return head
        self._check_beginning()
        if len(buffer) + self._seen > HEAD_LIMIT:
            if _status(bytes(buffer)) < 200:
                raise UnreadableAnswerError(self.begun)
            self._cut = True
        return None

    def _check_beginning(self) -> None:
        begun = bytes(self._buffer[:5]).upper()
        if begun != b"HTTP/"[: len(begun)]:
            raise UnreadableAnswerError(self.begun)
        line, ended, _ = bytes(self._buffer[:STATUS_BEGINNING]).partition(b"\n")
        if (ended or len(line) == STATUS_BEGINNING) and not _STATUS.match(line):
            raise UnreadableAnswerError(self.begun)

    def _take(self, count: int) -> bool:
        """Move `count` bytes to the body; True when that makes it longer than the limit."""
        if count:
            if self._body:
                self._body += bytes(self._buffer[:count])
            else:
                self._body = bytes(self._buffer[:count])
            del self._buffer[:count]
            self._left -= count
            if len(self._body) > self._limit:
                self._body = self._body[: self._limit]
                self._cut = True
        return self._cut

    def _read_chunks(self) -> bool:
        buffer = self._buffer
        while True:
            if self._left:
                if self._take(min(self._left, len(buffer))):
                    return True
                if self._left:
                    return False
                self._after_chunk = True
            end = buffer.find(b"\n", 0, LINE_LIMIT)
            if end < 0:
                self._cut = len(buffer) >= LINE_LIMIT
                return self._cut
            line = bytes(buffer[:end]).rstrip(b"\r")
            del buffer[: end + 1]
            if self._in_trailer:
                self._seen += end + 1
                if not line:
                    self.reusable = self._head is not None and self._head.sound and not buffer
                    return True
                if self._seen > LINE_LIMIT:
                    self._cut = True
                    return True
            elif self._after_chunk:
                self._after_chunk = False
                if line:
                    self._cut = True
                    return True
            else:
                size = _CHUNK_SIZE.fullmatch(line)
                if size is None:
                    self._cut = True
                    return True
                self._left = int(size[1], 16)
                self._in_trailer = not self._left


def _status(head: bytes) -> int:
    """The status, 0 where none can be read."""
    found = _STATUS.match(head)
    return int(found[1]) if found else 0


@lru_cache(maxsize=_CACHED_HEADS)
def _parse(head: bytes) -> _Head | None:
    """Read a whole head; None when its first line has no status. Lines that are no header are passed over."""
    lines = head.split(b"\n")
    status = _status(lines[0].rstrip(b"\r"))
    if not status:
        return None
    headers: dict[bytes, list[bytes]] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            headers.setdefault(name.lower(), []).append(value.strip())
    lengths = set(headers.get(b"content-length", ()))
    transfer = b",".join(headers.get(b"transfer-encoding", ())).lower()
    words = {word.strip() for value in headers.get(b"connection", ()) for word in value.lower().split(b",")}
    persistent = b"close" not in words and (not lines[0].upper().startswith(b"HTTP/1.0") or b"keep-alive" in words)
    length, sound = _framing(status, lengths, transfer)
    coding = b",".join(headers.get(b"content-encoding", ())).lower()
    named = (b"retry-after", CHALLENGE, b"etag")
    retry_after, challenge, etag = (headers.get(name, [b""])[0].decode("latin-1") for name in named)
    coding = b"" if coding == b"identity" else coding
    return _Head(status, retry_after, length, sound and persistent, coding, challenge, etag)


def _framing(status: int, lengths: set[bytes], transfer: bytes) -> tuple[int, bool]:
    """Where the body ends (RFC 9112, 6.3), and whether the receiver leaves no doubt about it."""
    if status in (204, 304) or status < 200:
        return 0, not transfer and lengths <= {b"0"} and status >= 200
    if transfer:
        chunked = transfer.rpartition(b",")[2].strip() == b"chunked"
        return (_CHUNKED if chunked else _ANY_LENGTH), chunked and not lengths
    if not lengths:
        return _ANY_LENGTH, False
    length = next(iter(lengths))
    if len(lengths) > 1 or not (length.isascii() and length.isdigit() and len(length) < 16):
        return _ANY_LENGTH, False
    return int(length), True


def _decoded(coding: bytes, body: bytes, limit: int) -> tuple[bytes, bool]:
    """Unpack a body that the receiver packed unasked, up to `limit` bytes.

    Nothing is shown of one in a coding that is not known.
    """
    if not body:
        return body, True
    window = _CODINGS.get(coding)
    if window is None:
        return b"", False
    unpacker = zlib.decompressobj(window)
    try:
        text = unpacker.decompress(body, limit)
    except zlib.error:
        return b"", False
    return text, unpacker.eof
