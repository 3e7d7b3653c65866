"""Renamed files are packed beside the deliveries, and a crash leaves each of them once."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from event_handler.sinks.lines import LineFile
from event_handler.sinks.packing import Compression, zstd_module


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.ndjson"


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


def content(file: Path) -> bytes:
    unpack = {".gz": gzip.decompress, ".zst": zstd_module().decompress}.get(file.suffix, bytes)
    return bytes(unpack(file.read_bytes()))


def filled(path: Path, compression: Compression, lines: int, keep: int = 3) -> None:
    """Each line makes the file rotate."""
    file = LineFile(path, max_bytes=10, keep=keep, compression=compression)
    for number in range(lines):
        file.append(b'{"line":%d}\n' % number)
    file.close()
    file.finish()


@pytest.mark.parametrize(("compression", "suffix"), [("none", ""), ("gzip", ".gz"), ("zstd", ".zst")])
def test_the_newest_are_kept_in_their_order(path: Path, compression: Compression, suffix: str) -> None:
    filled(path, compression, 6)
    assert names(path) == ["events.ndjson", *(f"events.ndjson.{number}{suffix}" for number in (1, 2, 3))]
    kept = [content(path.with_name(f"events.ndjson.{number}{suffix}")) for number in (3, 2, 1)]
    assert kept == [b'{"line":%d}\n' % number for number in (2, 3, 4)]
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}


def test_another_packing_leaves_older_files_as_they_are(path: Path) -> None:
    filled(path, "gzip", 3)
    filled(path, "none", 1)
    assert names(path) == ["events.ndjson", "events.ndjson.1", "events.ndjson.2.gz", "events.ndjson.3.gz"]
    assert content(path.with_name("events.ndjson.2.gz")) == b'{"line":1}\n'


def test_what_a_crash_left_twice_is_left_once_by_the_next_rotation(path: Path) -> None:
    filled(path, "gzip", 2)
    path.with_name("events.ndjson.1").write_bytes(b'{"line":0}\n')  # packed, and not yet deleted
    path.with_name("events.ndjson.1.gz.part").write_bytes(b"half")
    filled(path, "gzip", 1)
    assert names(path) == ["events.ndjson", "events.ndjson.1.gz", "events.ndjson.2.gz"]
    assert content(path.with_name("events.ndjson.2.gz")) == b'{"line":0}\n'


def test_what_a_crash_left_unpacked_is_packed_by_the_next_rotation(path: Path) -> None:
    path.with_name("events.ndjson.1").write_bytes(b'{"line":0}\n')
    filled(path, "gzip", 2)
    assert content(path.with_name("events.ndjson.2.gz")) == b'{"line":0}\n'


def test_a_file_that_cannot_be_packed_stays_and_is_said(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    filled(path, "gzip", 2)
    assert names(path) == ["events.ndjson", "events.ndjson.1"]
    assert "cannot be packed and stays as it is" in "".join(capsys.readouterr())


def test_only_one_is_kept_where_one_is_asked_for(path: Path) -> None:
    filled(path, "gzip", 4, keep=1)
    assert names(path) == ["events.ndjson", "events.ndjson.1.gz"]
