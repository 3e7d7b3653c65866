"""What a wheel has compiled gives the same results as the files that it was made of, for every event and for every
odd byte.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2
from hyperframe.frame import DataFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from event_handler import about
from event_handler.errors import MalformedEventError
from event_handler.simulator.events import Generator
from event_handler.teleport.transport import frames
from event_handler.teleport.wire import decode as pure
from event_handler.teleport.wire.messages import write_message, write_text
from tests.unit.pipeline import selecting
from tests.unit.sinks import encoding
from tests.unit.teleport.wire.test_decode import texts, values

pytestmark = pytest.mark.proof

ROOT = Path(__file__).parents[3]
HEADERS = Path(sysconfig.get_path("include")) / "Python.h"

needs_compiler = pytest.mark.skipif(
    not (shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]) and HEADERS.exists()),
    reason="no C compiler with Python's headers on this machine, so a wheel is pure Python here",
)


def build(directory: Path, **environment: str) -> zipfile.ZipFile:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(directory),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True, env={"PATH": "/usr/bin:/bin", **environment})
    return zipfile.ZipFile(next(directory.glob("*.whl")))


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    aside = tmp_path_factory.mktemp("aside")
    build(directory, TMPDIR=str(aside)).extractall(directory)
    assert list(aside.iterdir()) == []  # a build leaves nothing behind
    return directory


@pytest.fixture(scope="session")
def wheel(unpacked: Path) -> Iterator[dict[str, ModuleType]]:
    sys.path.append(str(unpacked))  # where what all compiled files share lies
    try:
        yield {name: load(unpacked, name) for name in ("wire.decode", "transport.frames")}
    finally:
        sys.path.remove(str(unpacked))


def load(directory: Path, name: str) -> ModuleType:
    """A compiled module, while the one of that name that was imported stays what it is."""
    package, _, module = name.partition(".")
    (library,) = (directory / "event_handler" / "teleport" / package).glob(f"{module}.*.so")
    spec = importlib.util.spec_from_file_location(f"event_handler.teleport.{name}", library)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_a_wheel_without_a_compiler_is_pure_python_and_knows_its_commit(tmp_path: Path) -> None:
    wheel = build(tmp_path, EVENT_HANDLER_PURE_PYTHON="1")
    assert wheel.filename is not None
    assert wheel.filename.endswith("-py3-none-any.whl")
    assert not [name for name in wheel.namelist() if name.endswith(".so")]
    if about.commit():
        assert wheel.read("event_handler/commit.txt").decode().strip() == about.commit()


@pytest.fixture(scope="session")
def compiled(wheel: dict[str, ModuleType]) -> ModuleType:
    return wheel["wire.decode"]


@needs_compiler
@given(pieces=st.lists(st.binary(max_size=60) | st.just(DataFrame(1, b"event").serialize()), max_size=8))
def test_frames_are_joined_the_same(wheel: dict[str, ModuleType], pieces: list[bytes]) -> None:
    ours, theirs = frames.FrameJoiner(), wheel["transport.frames"].FrameJoiner()
    for piece in pieces:
        try:
            joined = ours.join(piece)
        except ValueError as refused:
            with pytest.raises(ValueError, match=f"^{refused}$"):
                theirs.join(piece)
            return
        assert theirs.join(piece) == joined
        assert wheel["transport.frames"].split_messages(joined) == frames.split_messages(joined)


@needs_compiler
def test_the_compiled_decoder_is_compiled_and_this_one_is_not(compiled: ModuleType) -> None:
    assert compiled.COMPILED
    assert not pure.COMPILED


def outcome(read: Callable[[bytes], object], wire: bytes) -> object:
    """What `read` makes of `wire`, in a form that can be compared."""
    try:
        made = read(wire)
    except MalformedEventError as error:
        return str(error)
    return (
        [getattr(made, name) for name in ("type", "id", "time", "index", "content")]
        if hasattr(made, "content")
        else made
    )


READERS = (
    "convert",
    "read_code",
    "read_event",
    "read_exported",
    "read_page",
    "read_fields",
    "event_time",
    "event_id",
    "event_place",
)


def assert_same(compiled: ModuleType, wire: bytes) -> None:
    for name in READERS:
        assert outcome(getattr(compiled, name), wire) == outcome(getattr(pure, name), wire), name


@needs_compiler
@given(content=st.dictionaries(texts, values, max_size=6))
def test_structs_become_the_same_json(compiled: ModuleType, content: dict[str, Any]) -> None:
    message = struct_pb2.Struct()
    json_format.ParseDict(content, message)
    assert_same(compiled, message.SerializeToString())


@needs_compiler
@given(number=st.floats())
def test_numbers_are_printed_the_same(compiled: ModuleType, number: float) -> None:
    message = struct_pb2.Struct()
    message.fields["n"].number_value = number
    assert_same(compiled, message.SerializeToString())


@needs_compiler
@settings(max_examples=300)
@given(wire=st.binary(max_size=120))
def test_odd_bytes_come_to_the_same(compiled: ModuleType, wire: bytes) -> None:
    assert_same(compiled, wire)


@needs_compiler
@settings(max_examples=300)
@given(seed=st.integers(0, 1000), data=st.data())
def test_damaged_events_come_to_the_same(compiled: ModuleType, seed: int, data: st.DataObject) -> None:
    wire = bytearray(Generator("sim.test", seed).event(1_764_000_000.5).wire)
    for _ in range(data.draw(st.integers(0, 3))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    event = bytes(wire[: data.draw(st.integers(0, len(wire)))])
    assert_same(compiled, event)
    assert_same(compiled, event[event.find(b"\x2a") + 3 :])  # about the Struct alone
    assert_same(compiled, write_message(1, event) + write_text(2, "cursor"))


Asks = Callable[[Any], Any]


@contextmanager
def compiled_process(module: str, unpacked: Path) -> Iterator[tuple[str, Asks]]:
    """What `module` says first, and its answers: in a process of its own, whose events are all of compiled classes."""
    command = [sys.executable, "-m", module]
    paths = os.pathsep.join([str(unpacked), str(ROOT)])
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": paths},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        answers, orders = process.stdout, process.stdin

        def asks(order: Any) -> Any:
            orders.write(json.dumps(order) + "\n")
            orders.flush()
            return json.loads(answers.readline())

        yield answers.readline().strip(), asks
        orders.close()


@pytest.fixture(scope="session")
def compiled_selects(unpacked: Path) -> Iterator[Asks]:
    with compiled_process("tests.unit.pipeline.selecting", unpacked) as (file, selects):
        assert file.endswith(".so")
        yield selects


@pytest.fixture(scope="session")
def compiled_encodes(unpacked: Path) -> Iterator[Asks]:
    with compiled_process("tests.unit.sinks.encoding", unpacked) as (files, encodes):
        assert all(file.endswith(".so") for file in json.loads(files))
        yield encodes


def log_of(seed: int) -> list[bytes]:
    """A short log: events that announce recordings among others, a copy, an event that is cut off, and one without
    an id.
    """
    generator = Generator("sim.test", seed)
    _, log, recording = generator.session(1_764_000_000.5, uploaded=True)
    wires = [
        event.wire for event in (*log, *recording, generator.event(1_764_000_001.5), generator.event(1_764_000_002.0))
    ]
    struct = struct_pb2.Struct()
    struct.update({"event": "user.login", "code": "T1000I", "sid": 7})
    return [
        *wires,
        wires[0],
        wires[-1][:-9],
        write_text(1, "session.upload") + write_message(5, struct.SerializeToString()),
    ]


kinds = st.sampled_from(
    ["session.start", "session.upload", "session.*", "!session.end", "T2004I", "user.login", "print"]
)
runs = st.lists(st.tuples(st.sampled_from(["", "s-1"]), st.lists(st.integers(0, 40), max_size=12)), max_size=5)


@needs_compiler
@given(
    seed=st.integers(0, 1000),
    runs=runs,
    kept=st.integers(1, 20),
    lists=st.fixed_dictionaries(
        {name: st.lists(kinds, max_size=2) for name in ("types", "skip_types", "skip_session_types")}
    ),
)
def test_the_same_events_are_selected(
    compiled_selects: Asks, seed: int, runs: list[tuple[str, list[int]]], kept: int, lists: dict[str, Any]
) -> None:
    log = [b64encode(wire).decode() for wire in log_of(seed)]
    chosen = [(session_id, [log[place % len(log)] for place in places]) for session_id, places in runs]
    order = {"runs": chosen, "kept": kept, "lists": lists}
    assert compiled_selects(order) == json.loads(json.dumps(selecting.selected(order)))


names = st.sampled_from(["code", "user", "sid", "success", "cluster_name", "addr.remote", "labels", "login", "message"])
bodies = st.dictionaries(names | texts, values, max_size=6).map(json.dumps)
times = st.floats(0.0, 4e9) | st.floats(-1e18, 1e18)
short = st.sampled_from(["user.login", "s-1", "", 'a"]\n\\', "é"]) | texts


@needs_compiler
@settings(max_examples=300)
@given(
    kind=short, uid=short, time=times, index=st.integers(0, 2**62), body=bodies, session=st.sampled_from(["", "s-1"])
)
def test_sinks_encode_an_event_the_same(
    compiled_encodes: Asks, kind: str, uid: str, time: float, index: int, body: str, session: str
) -> None:
    order = [kind, uid, time, index, body, session]
    assert compiled_encodes(order) == encoding.encoded(order)
