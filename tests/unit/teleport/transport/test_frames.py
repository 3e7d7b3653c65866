"""Frames that are joined mean the same as those that came, for the HTTP/2 library and in whatever pieces the network
cuts them.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hyperframe.frame import DataFrame, Frame, PingFrame, WindowUpdateFrame
from hypothesis import given
from hypothesis import strategies as st

from event_handler.teleport.transport.frames import MAX_FRAME, FrameJoiner, split_messages


@dataclass
class Meaning:
    """What frames come to: the data of each stream, and all other frames with the data that came before each."""

    data: dict[int, bytes]
    others: list[tuple[bytes, dict[int, int]]]


def meaning(wire: bytes) -> Meaning:
    found = Meaning({}, [])
    while wire:
        frame, size = Frame.parse_frame_header(memoryview(wire[:9]))
        whole, wire = wire[: 9 + size], wire[9 + size :]
        assert len(whole) == 9 + size
        if isinstance(frame, DataFrame) and not frame.flags:
            assert size <= MAX_FRAME
            found.data[frame.stream_id] = found.data.get(frame.stream_id, b"") + whole[9:]
        else:
            found.others.append((whole, {stream: len(data) for stream, data in found.data.items()}))
    return found


contents = st.binary(max_size=40) | st.integers(1, MAX_FRAME).map(lambda size: b"x" * size)
data_frames = st.builds(lambda stream, data: DataFrame(stream, data), st.sampled_from([1, 3, 5]), contents)
last_frames = st.builds(
    lambda stream, data: DataFrame(stream, data, flags=["END_STREAM"]), st.sampled_from([1, 3]), st.binary(max_size=9)
)
padded_frames = st.builds(lambda data: DataFrame(1, data, pad_length=7, flags=["PADDED"]), st.binary(max_size=9))
other_frames = st.just(PingFrame(0, b"12345678")) | st.builds(lambda: WindowUpdateFrame(0, window_increment=1))
frames = st.lists(data_frames | data_frames | data_frames | last_frames | padded_frames | other_frames, max_size=12)


@given(frames, st.data())
def test_every_stream_has_the_same_data_and_every_other_frame_its_place(sent: list[Frame], data: st.DataObject) -> None:
    wire = b"".join(frame.serialize() for frame in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=6)))
    joiner = FrameJoiner()
    joined = b"".join(joiner.join(wire[a:b]) for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True))
    assert meaning(joined) == meaning(wire)


@pytest.mark.parametrize("streams", [(1,), (1, 3, 5)])
def test_small_frames_that_arrived_together_become_few(streams: tuple[int, ...]) -> None:
    wire = b"".join(DataFrame(streams[n % len(streams)], b"x" * 400).serialize() for n in range(120))
    joined = FrameJoiner().join(wire)
    assert len(joined) == 120 * 400 + 9 * 3


def test_nothing_is_kept_back_but_a_frame_that_is_cut_off() -> None:
    joiner = FrameJoiner()
    wire = DataFrame(1, b"whole").serialize() + DataFrame(1, b"cut off").serialize()
    assert joiner.join(wire[:-3]) == DataFrame(1, b"whole").serialize()
    assert joiner.join(b"") == b""
    assert joiner.join(wire[-3:]) == DataFrame(1, b"cut off").serialize()


def test_a_frame_that_is_too_large_is_refused_before_it_is_collected() -> None:
    with pytest.raises(ValueError, match="a frame of 16385 bytes"):
        FrameJoiner().join((MAX_FRAME + 1).to_bytes(3) + b"\0\0\0\0\0\1" + b"begin")


def test_messages_are_cut_out_up_to_one_that_is_not_whole_or_is_compressed() -> None:
    whole = b"\0\0\0\0\3abc" + b"\0\0\0\0\0"
    assert split_messages(whole) == ([b"abc", b""], 13)
    assert split_messages(whole + b"\0\0\0\0\5abc") == ([b"abc", b""], 13)
    assert split_messages(whole + b"\1\0\0\0\1a") == ([b"abc", b""], 13)
    assert split_messages(b"\0\0\0\0") == ([], 0)
