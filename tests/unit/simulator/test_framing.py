"""The simulated server frames its messages as a real one does: each in a frame of its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from event_handler.simulator.framing import OneMessageAFrame


class Written:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


def frame(content: bytes, kind: int = 0, flags: int = 0, stream: int = 1) -> bytes:
    return len(content).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + content


def contents(wire: bytes) -> list[bytes]:
    found = []
    while wire:
        size = int.from_bytes(wire[:3])
        found.append(wire[9 : 9 + size])
        wire = wire[9 + size :]
    return found


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=8), st.data())
def test_a_frame_ends_where_a_message_ends_however_it_was_packed(messages: list[bytes], data: st.DataObject) -> None:
    packed = b"".join(b"\0" + len(message).to_bytes(4) + message for message in messages)
    cuts = sorted(set(data.draw(st.lists(st.integers(1, len(packed)), max_size=4))) | {len(packed)})
    written = Written()
    transport = OneMessageAFrame(written)
    for begin, end in zip([0, *cuts], cuts, strict=False):
        transport.write(frame(packed[begin:end]) if end > begin else b"")
    sent = contents(written.data)
    assert b"".join(sent) == packed
    ends = {sum(len(one) for one in sent[:count]) for count in range(1, len(sent) + 1)}
    assert {sum(5 + len(one) for one in messages[:count]) for count in range(1, len(messages) + 1)} <= ends
    assert ends <= {sum(5 + len(one) for one in messages[:count]) for count in range(1, len(messages) + 1)} | set(cuts)


def test_other_frames_pass_as_they_are() -> None:
    written = Written()
    wire = frame(b"headers", 1, 4) + frame(b"", 0, 1) + frame(b"12345678", 6, 0, 0)
    OneMessageAFrame(written).write(wire)
    assert written.data == wire
