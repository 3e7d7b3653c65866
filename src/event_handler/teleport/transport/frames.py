"""What lies between bytes and messages: HTTP/2 frames, joined before the HTTP/2 library sees them, and gRPC messages,
cut out of data.

A real server sends each event in a frame of its own, and the library takes some 15 µs for a frame whatever its size. So
frames of data that arrived together are joined into large ones: the streams carry the same bytes, and the library still
checks and counts them all. The file is compiled with `decode` (see there). Source: RFC 9113, 4.1 and 6.1; gRPC over
HTTP/2.
"""

from __future__ import annotations

MAX_FRAME = 16_384  # bytes of a frame's content; the largest that is allowed unless the client says otherwise
HEAD = 9  # bytes: length (3), type, flags, stream (4)
DATA = 0  # type of a frame
PREFIX = 5  # bytes before each message: compressed or not, and its length


class FrameJoiner:
    """Joins the frames of one connection's incoming bytes."""

    def __init__(self) -> None:
        self._rest = b""

    def join(self, arrived: bytes) -> bytes:
        """Return whole frames with the same meaning as those that arrived; the beginning of one that is cut off is kept
        back.

        Data of several streams that arrived in turns is joined stream by stream; all other frames keep their place
        among it.
        Raises ValueError for a frame that is too large: the library would collect up to 16 MiB before it refuses that.
        """
        wire = self._rest + arrived if self._rest else arrived
        joined: list[bytes] = []
        held: dict[bytes, list[bytes]] = {}  # by stream: content of frames
        sizes: dict[bytes, int] = {}
        at, end = 0, len(wire)
        while end - at >= HEAD:
            size = wire[at] << 16 | wire[at + 1] << 8 | wire[at + 2]
            stop = at + HEAD + size
            if size > MAX_FRAME:
                raise ValueError(f"a frame of {size} bytes, more than {MAX_FRAME}")
            if stop > end:
                break
            if wire[at + 3] == DATA and wire[at + 4] == 0:  # no flags: neither padding nor the end of the stream
                stream = wire[at + 5 : at + HEAD]
                if stream not in held:
                    held[stream], sizes[stream] = [], 0
                elif sizes[stream] + size > MAX_FRAME:
                    joined.append(_frame(stream, held[stream], sizes[stream]))
                    held[stream], sizes[stream] = [], 0
                held[stream].append(wire[at + HEAD : stop])
                sizes[stream] += size
            else:
                joined += [_frame(stream, pieces, sizes[stream]) for stream, pieces in held.items()]
                held.clear()
                joined.append(wire[at:stop])
            at = stop
        joined += [_frame(stream, pieces, sizes[stream]) for stream, pieces in held.items()]
        self._rest = wire[at:]
        return b"".join(joined)


def _frame(stream: bytes, pieces: list[bytes], size: int) -> bytes:
    return bytes((size >> 16, size >> 8 & 0xFF, size & 0xFF, DATA, 0)) + stream + b"".join(pieces)


def split_messages(data: bytes) -> tuple[list[bytes], int]:
    """The whole gRPC messages at the beginning of `data`, and where the rest begins: one that is cut off, or
    compressed.
    """
    messages: list[bytes] = []
    at, end = 0, len(data)
    while end - at >= PREFIX:
        size = data[at + 1] << 24 | data[at + 2] << 16 | data[at + 3] << 8 | data[at + 4]
        upto = at + PREFIX + size
        if data[at] or upto > end:
            break
        messages.append(data[at + PREFIX : upto])
        at = upto
    return messages, at
