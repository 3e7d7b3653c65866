"""`storage show` and `storage export`, as a user types them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from event_handler.cli import cli
from event_handler.errors import StateError, UsageError
from event_handler.go_plugin.read import read
from event_handler.ports import Commit, DeadLetter, RecordingItem
from event_handler.state.sqlite import SqliteStore
from tests.support.checkpoints import places
from tests.unit.go_plugin.test_export_state import bulk_position
from tests.unit.go_plugin.test_import_state import START


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A storage directory with the state of one cluster, which no process works on."""
    store = SqliteStore(tmp_path / "example.test" / "fluentd")
    asyncio.run(store.claim("example.test"))
    bulk_position(store)
    asyncio.run(store.commit(Commit(dead_letters=[DeadLetter("fluentd", "refused", "user.login", "u", "", b"{}")])))
    store.close()
    return tmp_path


@pytest.fixture
def running(stopped: Path) -> Iterator[Path]:
    store = SqliteStore(stopped / "example.test" / "fluentd")
    yield stopped
    store.close()


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(cli, ["storage", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_show_tells_mode_position_chunks_recordings_and_dead_letters(running: Path) -> None:
    lines = run("show", f"--storage={running}").output.splitlines()
    assert {line[:20].strip(): line[21:] for line in lines} == {
        "cluster": "example.test",
        "sink": "fluentd",
        "file": str(running / "example.test" / "fluentd" / "state.db"),
        "start time": "2026-11-21T00:00:00Z",
        "read by": "bulk export",
        "days polled from": "2026-11-21",
        "chunks of 2026-11-21": "1 delivered, 1 begun",
        "chunks of 2026-11-24": "2 delivered, 0 begun",
        "recordings waiting": "3, 1 of them never tried",
        "dead letters": "1",
    }


def test_show_tells_how_far_a_search_is(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "example.test" / "fluentd")
    asyncio.run(store.commit(Commit(places({"search": repr(START + 60)}), notes={"mode": "search"}, start=START)))
    store.close()
    assert "delivered up to      2026-11-21T00:01:00Z\n" in run("show", f"--storage={tmp_path}").output


def test_export_writes_the_directory_of_the_address_in_the_configuration(stopped: Path) -> None:
    config = stopped / "teleport-event-handler.toml"
    config.write_text(f'storage = "{stopped}"\n[teleport]\naddr = "[::1]:3025"\n')
    output = run("export", "-c", config).output
    assert f"wrote {stopped / '::1_3025'}: 3 days, 3 recordings that wait, start time 2026-11-21T00:00:00Z" in output
    state = read(stopped / "::1_3025")
    assert state is not None
    assert len(state.days) == 3


def test_export_keeps_what_it_replaces(stopped: Path) -> None:
    run("export", f"--storage={stopped}", "--to", stopped / "plugin")
    output = run("export", f"--storage={stopped}", "--to", stopped / "plugin").output
    assert f"kept what was there in {stopped / 'plugin'}.before-export-" in output


def test_export_without_an_address_asks_for_one(stopped: Path) -> None:
    with pytest.raises(UsageError, match="Give --config, --teleport-addr or --to"):
        run("export", f"--storage={stopped}")


def test_export_is_refused_while_an_event_handler_runs(running: Path) -> None:
    with pytest.raises(StateError, match="another event handler"):
        run("export", f"--storage={running}", "--teleport-addr=a:1")
    assert not (running / "a_1").exists()


def test_several_states_are_shown_or_one_is_chosen(stopped: Path) -> None:
    for cluster, sink in (("other.test", "fluentd"), ("other.test", "file")):
        other = SqliteStore(stopped / cluster / sink)
        asyncio.run(other.commit(Commit(recordings=[RecordingItem("s", START, True, 0, 0.0, 0)])))
        other.close()
    assert run("show", f"--storage={stopped}").output.count("recordings waiting") == 3
    one = run("show", f"--storage={stopped}", "--cluster=other.test", "--sink=file").output
    assert "start time           not started yet" in one
    assert one.count("sink") == 1
    with pytest.raises(StateError, match=r"no state of the cluster third\.test in"):
        run("show", f"--storage={stopped}", "--cluster=third.test")
    with pytest.raises(UsageError, match=r"several clusters: example\.test, other\.test"):
        run("export", f"--storage={stopped}", "--teleport-addr=a:1")
    run("export", f"--storage={stopped}", "--teleport-addr=a:1", "--cluster=example.test")
    assert read(stopped / "a_1") is not None


def test_a_storage_without_state_and_a_damaged_state_are_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="there is no state in"):
        run("show", f"--storage={tmp_path}")
    directory = tmp_path / "example.test" / "fluentd"
    directory.mkdir(parents=True)
    (directory / "state.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StateError, match=r"the state in .*fluentd/state\.db is damaged"):
        run("show", f"--storage={tmp_path}")
