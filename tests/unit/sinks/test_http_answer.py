"""An HTTP answer is read the same however it is cut into pieces, and a status line that can be read counts whatever
follows.
"""

from __future__ import annotations

import gzip
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_handler.sinks.http_answer import HEAD_LIMIT, Answer, AnswerReader, UnreadableAnswerError

LIMIT = 1000
OK = "HTTP/1.1 200 OK\r\n"


def read(data: bytes, cuts: list[int] | None = None, *, status_only: bool = False) -> tuple[Answer | None, bool, bool]:
    """The answer in `data`, given in pieces: the answer, whether it was decided before the end, whether the connection
    may stay.
    """
    reader = AnswerReader(LIMIT, status_only=status_only)
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts or []), len(data)]
    for start, end in pairwise(places):
        if start < end and reader.feed(data[start:end]):
            # what follows an answer comes with it or later, and the connection looks at both
            return reader.answer(), True, reader.reusable and end == len(data)
    return reader.ended(by_peer=True), False, False


WHOLE = {
    "length": (OK + "Content-Length: 2\r\n\r\nok", b"ok"),
    "no body": (OK + "Content-Length: 0\r\n\r\n", b""),
    "204": ("HTTP/1.1 204 No Content\r\n\r\n", b""),
    "chunked": (OK + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok"),
    "chunked, with extension and trailer": (
        OK + "transfer-encoding: Chunked\r\n\r\n2;a=b\r\nok\r\n0;x\r\nTrailer: t\r\n\r\n",
        b"ok",
    ),
    "no reason": ("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", b""),
    "reason is blank": ("HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", b""),
    "lower case": ("http/1.1 200 ok\r\ncontent-length: 2\r\n\r\nok", b"ok"),
    "line feeds only": ("HTTP/1.1 200 OK\nContent-Length: 2\n\nok", b"ok"),
    "interim answers": (
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + OK + "Content-Length: 2\r\n\r\nok",
        b"ok",
    ),
    "an empty line before": ("\r\n" + OK + "Content-Length: 2\r\n\r\nok", b"ok"),
    "a long header": (OK + f"X-Long: {'x' * 9000}\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    "many headers": (OK + "".join(f"X-{n}: {n}\r\n" for n in range(500)) + "Content-Length: 2\r\n\r\nok", b"ok"),
    "lines that are no headers": (OK + "nonsense\r\n folded\r\n: \r\nContent-Length: 2\r\n\r\nok", b"ok"),
    "the same length twice": (OK + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    "HTTP/1.0 that stays": ("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok", b"ok"),
}


@pytest.mark.parametrize("name", WHOLE)
@given(cuts=st.lists(st.integers(0, 10_000), max_size=8))
def test_a_whole_answer_is_read_in_any_pieces_and_the_connection_stays(name: str, cuts: list[int]) -> None:
    text, body = WHOLE[name]
    assert read(text.encode(), cuts) == (Answer(200 if name != "204" else 204, "", body, True), True, True)


DOUBTFUL = {
    "bytes after the answer": (OK + "Content-Length: 2\r\n\r\nokmore", b"ok", True),
    "204 with a body": ("HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok", b"", True),
    "204 in chunks": ("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"", True),
    "HTTP/1.0": ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", True),
    "Connection: close": (OK + "Connection: x, Close\r\nContent-Length: 2\r\n\r\nok", b"ok", True),
    "both framings": (OK + "Content-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok", True),
    "a packed body of a kind that is not known": (
        OK + "Content-Encoding: br\r\nContent-Length: 2\r\n\r\nok",
        b"",
        False,
    ),
    "a body that is not packed as it says": (OK + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok", b"", False),
    "a chunk size that is none": (OK + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n", b"ok", False),
    "a negative chunk size": (OK + "Transfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n", b"", False),
    "a chunk longer than it says": (OK + "Transfer-Encoding: chunked\r\n\r\n2\r\nokmore\r\n0\r\n\r\n", b"ok", False),
    "a chunk without end": (OK + "Transfer-Encoding: chunked\r\n\r\n9\r\nok", b"ok", False),
    "an endless chunk line": (OK + "Transfer-Encoding: chunked\r\n\r\n" + "0" * 5000, b"", False),
    "an endless trailer": (OK + "Transfer-Encoding: chunked\r\n\r\n0\r\n" + "X: y\r\n" * 1000, b"", False),
    "a shorter body": (OK + "Content-Length: 9\r\n\r\nok", b"ok", False),
    "a longer body than the limit": (OK + "Content-Length: 1001\r\n\r\n" + "x" * 1001, b"x" * LIMIT, False),
    "a head without end": (OK + "X: y\r\n" * (HEAD_LIMIT // 6 + 1), b"", False),
    "closed in the head": (OK + "Content-Le", b"", False),
    "closed in the status line": ("HTTP/1.1 200 O", b"", False),
    "closed behind the status": ("HTTP/1.1 200", b"", False),
    "no length": (OK + "\r\nok", b"ok", True),
    "a length that is none": (OK + "Content-Length: two\r\n\r\nok", b"ok", True),
    "lengths that differ": (OK + "Content-Length: 2\r\nContent-Length: 3\r\n\r\nok", b"ok", True),
    "another transfer encoding": (OK + "Transfer-Encoding: gzip\r\n\r\nok", b"ok", True),
}


@pytest.mark.parametrize("name", [name for name in DOUBTFUL if "packed" not in name])
@given(cuts=st.lists(st.integers(0, 100_000), max_size=8))
def test_a_readable_status_counts_whatever_is_wrong_behind_it_and_the_connection_is_given_up(
    name: str, cuts: list[int]
) -> None:
    text, body, complete = DOUBTFUL[name]
    answer, _, reusable = read(text.encode(), cuts)
    assert answer == Answer(204 if text.startswith("HTTP/1.1 204") else 200, "", body, complete)
    assert not reusable


@pytest.mark.parametrize("name", [name for name in DOUBTFUL if "packed" in name])
def test_a_body_that_cannot_be_unpacked_is_not_shown_and_its_connection_may_stay(name: str) -> None:
    assert read(DOUBTFUL[name][0].encode()) == (Answer(200, "", b"", False), True, True)


@pytest.mark.parametrize("packed", [gzip.compress(b"said"), zlib.compress(b"said")], ids=["gzip", "zlib"])
def test_a_body_that_was_packed_unasked_is_unpacked(packed: bytes) -> None:
    coding = "gzip" if packed.startswith(b"\x1f") else "deflate"
    head = f"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Encoding: {coding}\r\nContent-Length: {len(packed)}\r\n\r\n"
    assert read(head.encode() + packed) == (Answer(429, "7", b"said", True), True, True)


def test_a_small_body_that_unpacks_to_a_huge_one_is_cut() -> None:
    packed = gzip.compress(b"x" * 100_000)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
    assert read(head.encode() + packed) == (Answer(200, "", b"x" * LIMIT, False), True, True)


@pytest.mark.parametrize(
    "data",
    [
        b"\x15\x03\x03\x00\x02\x02\x50",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 " + b"x" * 40,
        b"HTTP/1.1 100 Continue\r\n\r\nnonsense\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\nX: " + b"x" * HEAD_LIMIT,
    ],
)
def test_what_has_no_status_is_no_answer(data: bytes) -> None:
    with pytest.raises(UnreadableAnswerError):
        read(data)


@pytest.mark.parametrize("data", [b"", b"HTT", b"HTTP/1.1 ", b"HTTP/1.1 20", b"HTTP/1.1 100 Continue\r\n\r\n", b"\r\n"])
def test_a_connection_that_ends_before_the_status_brought_no_answer(data: bytes) -> None:
    assert read(data) == (None, False, False)


def test_time_that_is_up_before_the_head_has_ended_brought_no_answer() -> None:
    reader = AnswerReader(LIMIT)
    reader.feed(b"HTTP/1.1 200 OK\r\nX-Slow: x")
    assert reader.ended(by_peer=False) is None


def test_time_that_is_up_in_the_body_leaves_the_status() -> None:
    reader = AnswerReader(LIMIT)
    reader.feed(b"HTTP/1.1 413 Large\r\n\r\ntoo la")
    assert reader.ended(by_peer=False) == Answer(413, "", b"too la", False)


@pytest.mark.parametrize(("status", "decided"), [(200, True), (503, False)])
def test_a_body_that_nobody_reads_is_not_waited_for_when_only_the_connection_ends_it(
    status: int, decided: bool
) -> None:
    assert read(f"HTTP/1.1 {status} Said\r\n\r\n".encode(), status_only=True)[1] is decided


@given(
    st.binary(max_size=200), st.lists(st.integers(0, 400), max_size=5), st.sampled_from([200, 201, 204, 299, 413, 503])
)
def test_no_bytes_behind_a_status_line_hide_the_status(rest: bytes, cuts: list[int], status: int) -> None:
    answer, _, _ = read(b"HTTP/1.1 %d Said\r\n" % status + rest, cuts)
    assert answer is not None
    assert answer.status == status


@given(st.binary(max_size=300), st.lists(st.integers(0, 400), max_size=5))
def test_any_bytes_are_an_answer_or_none_and_nothing_else(data: bytes, cuts: list[int]) -> None:
    try:
        answer, _, _ = read(data, cuts)
    except UnreadableAnswerError:
        return
    assert answer is None or 100 <= answer.status <= 999
