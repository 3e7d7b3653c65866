"""Struct wire bytes to JSON: equal to the protobuf library for every value, and never a crash on odd bytes."""

from __future__ import annotations

import json
import math
import tracemalloc
from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from event_handler.errors import MalformedEventError
from event_handler.event import stable_id
from event_handler.teleport.wire.decode import convert, read_code, read_event
from event_handler.teleport.wire.messages import write_varint

numbers = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]))
leaves = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=20
)


def wire_of(content: dict[str, Any]) -> bytes:
    message = struct_pb2.Struct()
    json_format.ParseDict(content, message)
    return message.SerializeToString()


@given(st.dictionaries(texts, values, min_size=1, max_size=6))
def test_it_reads_back_equal_to_what_the_protobuf_library_was_given(content: dict[str, Any]) -> None:
    assert json.loads(convert(wire_of(content))[0], parse_int=float) == content


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (2147483647.0, "2147483647"),
        (2.0**53, "9007199254740992"),
        (2.0**60, "1152921504606847000"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1e-6, "0.000001"),
        (1.5e-7, "1.5e-7"),
        (0.00012, "0.00012"),
        (0.5, "0.5"),
        (-1234.25, "-1234.25"),
    ],
)
def test_numbers_are_printed_as_the_plugin_prints_them(number: float, text: str) -> None:
    assert convert(wire_of({"n": number}))[0] == f'{{"n":{text}}}'.encode()


@given(st.dictionaries(texts | st.just("code"), texts | values | st.builds(dict, code=texts), max_size=6))
def test_the_code_is_read_as_the_whole_event_has_it(content: dict[str, Any]) -> None:
    code = content.get("code")
    assert read_code(wire_of(content)) == (code if isinstance(code, str) else "")


@given(numbers)
def test_every_number_reads_back_as_the_same_double(number: float) -> None:
    back = json.loads(convert(wire_of({"n": number}))[0])["n"]
    assert float(back) == number


@pytest.mark.parametrize(("number", "text"), [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")])
def test_numbers_that_json_lacks_become_text_and_the_event_goes_on(number: float, text: str) -> None:
    message = struct_pb2.Struct()
    message.fields["n"].number_value = number
    assert json.loads(convert(message.SerializeToString())[0]) == {"n": text}


def test_the_uid_is_returned_and_an_event_without_one_gets_a_stable_id() -> None:
    assert convert(wire_of({"uid": "u1"}))[1] == "u1"
    body, uid = convert(wire_of({"b": 1, "a": [True, None]}))
    assert uid == ""
    assert body == b'{"a":[true,null],"b":1}'
    assert stable_id(body) == stable_id(convert(wire_of({"a": [True, None], "b": 1}))[0])


def test_controls_are_escaped_and_other_text_is_left_alone() -> None:
    assert convert(wire_of({"t": 'a"\\\n\x01<é€😀'}))[0] == '{"t":"a\\"\\\\\\n\\u0001<é€😀"}'.encode()


def test_nesting_beyond_the_limit_is_malformed_and_not_a_crash() -> None:
    wire = b""
    for _ in range(400):
        value = b"\x2a" + write_varint(len(wire)) + wire
        entry = b"\x0a\x01k\x12" + write_varint(len(value)) + value
        wire = b"\x0a" + write_varint(len(entry)) + entry
    with pytest.raises(MalformedEventError, match="nested"):
        convert(wire)


@pytest.mark.parametrize("wire", [b"", b"\x10\x01"])
def test_a_struct_without_a_field_is_no_event(wire: bytes) -> None:
    with pytest.raises(MalformedEventError, match="it is empty"):
        convert(wire)


@given(st.binary(max_size=200))
def test_odd_bytes_raise_nothing_but_a_malformed_event(wire: bytes) -> None:
    for read in (convert, read_code, read_event):
        try:
            read(wire)
        except MalformedEventError as error:
            assert str(error)  # noqa: PT017 - either outcome is right, a crash is not


@given(st.dictionaries(texts, values, max_size=4), st.data())
def test_a_truncated_struct_never_crashes(content: dict[str, Any], data: st.DataObject) -> None:
    wire = wire_of(content)
    cut = wire[: data.draw(st.integers(0, len(wire)))]
    try:
        convert(cut)
    except MalformedEventError as error:
        assert "cannot be decoded" in str(error)  # noqa: PT017 - either outcome is right, a crash is not


def test_a_body_takes_no_more_memory_than_it_shows() -> None:
    content = struct_pb2.Struct()
    content.update({"uid": "u", "text": "x" * 300})
    wire = content.SerializeToString()
    convert(wire)
    tracemalloc.start()
    try:
        kept = [convert(wire)[0] for _ in range(100)]
        assert tracemalloc.get_traced_memory()[0] < 100 * 2 * len(kept[0])
    finally:
        tracemalloc.stop()
