"""What is written for a message, as the NATS client would write it, in a fifth of the time.

Facts: NATS's "Client Protocol" (HPUB) and ADR-4 (headers).
"""

from __future__ import annotations


def header_value(text: str) -> bytes:
    """Of one line, whatever is in the text."""
    return text.strip().replace("\r", " ").replace("\n", " ").encode()


class Publication:
    """Messages with the header by which JetStream knows a repeat; `stream` must take them, "" for any."""

    def __init__(self, stream: str) -> None:
        self._end = b"\r\nNats-Expected-Stream: %b\r\n\r\n" % header_value(stream) if stream else b"\r\n\r\n"

    def of(self, subject: bytes, reply: bytes, id: str, body: bytes) -> bytes:
        """`subject` and `reply` have no blanks and line breaks."""
        headers = b"NATS/1.0\r\nNats-Msg-Id: %b%b" % (header_value(id), self._end)
        length = len(headers)
        return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject, reply, length, length + len(body), headers, body)
