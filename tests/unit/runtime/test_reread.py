"""Filters that changed are told with the position, and --reread-from goes back to a time, once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from event_handler.checkpoint import DONE
from event_handler.ports import Commit, RecordingItem
from event_handler.runtime.reread import before_reading
from event_handler.state.keys import CLOSED_DAYS, FIRST_DAY, FLOOR, LAST_ID
from event_handler.state.keys import SEARCH as STREAM
from event_handler.state.sqlite import SqliteStore
from tests.support.checkpoints import places, positions, read_position, remember

NOTHING = {"types": (), "skip-event-types": (), "skip-session-types": ("print",)}


def at(day: int, hour: int = 0) -> datetime:
    return datetime(2026, 3, day, hour, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made = SqliteStore(tmp_path)
    asyncio.run(made.commit(Commit(start=at(2, 12).timestamp())))
    yield made
    made.close()


def told(store: SqliteStore, types: tuple[str, ...] = (), asked: datetime | None = None) -> list[str]:
    with capture_logs() as lines:
        asyncio.run(before_reading(store, "fluentd", {**NOTHING, "types": types}, asked))
    return [line["event"] for line in lines]


def searched(store: SqliteStore, until: datetime) -> None:
    asyncio.run(store.commit(Commit(places({STREAM: repr(until.timestamp())}), notes={"mode": "search"})))


def exported(store: SqliteStore, first: str = "2026-03-05") -> None:
    chunks = {f"bulk/2026-03-{day:02}/c": DONE if day < 9 else "a1:7" for day in range(5, 10)}
    asyncio.run(
        store.commit(
            Commit(places(chunks), notes={"mode": "bulk", FIRST_DAY: first, CLOSED_DAYS: "2026-03-06 2026-03-08"})
        )
    )


def test_filters_are_told_when_they_changed_and_not_before_anything_was_read(store: SqliteStore) -> None:
    assert told(store, ("user.logn*",)) == []
    assert told(store, ("user.login",)) == []
    searched(store, at(9))
    assert told(store, ("user.login",)) == []
    with capture_logs() as lines:
        asyncio.run(
            before_reading(
                store, "fluentd", {**NOTHING, "types": ("user.login", "scp"), "skip-session-types": ()}, None
            )
        )
    (line,) = lines
    assert line["event"].startswith("filters changed since the last start")
    assert (line["position"], line["changed"]) == ("2026-03-09T00:00:00Z", "types, skip-session-types")
    assert "--reread-from" in line["next_step"]
    assert told(store, ("scp", "user.login", "scp"), None)[0].startswith("filters changed")  # the list of sessions did
    assert told(store, ("user.login", "scp")) == []  # the order of entries is of no account


def test_a_state_of_an_earlier_version_has_no_filters_to_compare_with(store: SqliteStore) -> None:
    exported(store)
    assert told(store, ("scp",)) == []
    assert told(store)[0].startswith("filters changed")


@pytest.mark.parametrize("text", ["{", "[]", "7", "null"])
def test_lists_that_cannot_be_read_are_written_again(store: SqliteStore, text: str) -> None:
    searched(store, at(9))
    asyncio.run(remember(store, "filters", text))
    assert told(store, ("scp",)) == []
    assert told(store)[0].startswith("filters changed")


def test_a_search_goes_back_once(store: SqliteStore) -> None:
    searched(store, at(9))
    assert told(store, asked=at(4))[0].startswith("reading goes back")
    assert asyncio.run(read_position(store)) == at(4).timestamp()
    searched(store, at(9, 5))
    assert told(store, asked=at(4))[0].startswith("reading went back to --reread-from at an earlier start")
    assert asyncio.run(read_position(store)) == at(9, 5).timestamp()
    assert told(store, asked=at(5))[0].startswith("reading goes back")
    assert asyncio.run(read_position(store)) == at(5).timestamp()


def test_a_search_never_goes_forward(store: SqliteStore) -> None:
    searched(store, at(9))
    told(store, asked=at(20))
    assert asyncio.run(read_position(store)) == at(9).timestamp()


def test_a_position_of_the_go_plugin_is_left_behind_too(store: SqliteStore) -> None:
    searched(store, at(9))
    asyncio.run(store.commit(Commit(notes={FLOOR: repr(at(8).timestamp()), LAST_ID: "x"})))
    told(store, asked=at(4))
    assert (float(asyncio.run(store.note(FLOOR))), asyncio.run(store.note(LAST_ID))) == (at(4).timestamp(), "")
    assert asyncio.run(read_position(store)) == at(4).timestamp()


@pytest.mark.parametrize(
    ("asked", "first", "left", "closed"),
    [
        (at(7, 13), "2026-03-05", ["05", "06"], "2026-03-06"),
        (at(4), "2026-03-04", [], ""),
        (at(9, 23), "2026-03-05", ["05", "06", "07", "08"], "2026-03-06 2026-03-08"),
    ],
)
def test_bulk_export_reads_the_days_from_then_on_again(
    store: SqliteStore, asked: datetime, first: str, left: list[str], closed: str
) -> None:
    exported(store)
    assert told(store, asked=asked)[0].startswith("reading goes back")
    assert (asyncio.run(store.note(FIRST_DAY)), asyncio.run(store.note(CLOSED_DAYS))) == (first, closed)
    assert sorted(asyncio.run(positions(store, "bulk/"))) == [f"bulk/2026-03-{day}/c" for day in left]


@pytest.mark.parametrize("mode", ["search", "bulk"])
def test_it_goes_back_to_the_start_time_at_most_and_says_so(store: SqliteStore, mode: str) -> None:
    searched(store, at(9)) if mode == "search" else exported(store)
    said = told(store, asked=at(1))
    assert said[0].startswith("--reread-from is before the time at which reading began")
    assert said[1].startswith("reading goes back")
    if mode == "search":
        assert asyncio.run(read_position(store)) == at(2, 12).timestamp()
    else:
        assert asyncio.run(store.note(FIRST_DAY)) == "2026-03-02"


def test_recordings_that_were_announced_since_are_asked_for_again(store: SqliteStore) -> None:
    searched(store, at(9))
    announced = {"early": at(3), "late": at(6), "waiting": at(7)}
    items = [RecordingItem(name, moment.timestamp(), True, 0, 1e12, 0) for name, moment in announced.items()]
    asyncio.run(store.commit(Commit(places({"recording/late": "17"}), recordings=items)))
    for name in ("early", "late"):
        asyncio.run(store.recording_done(name))
    told(store, asked=at(4))
    assert {item.session_id: item.next_index for item in asyncio.run(store.due_recordings(1.0, 9))} == {
        "late": 0,
        "waiting": 0,
    }


@pytest.mark.parametrize("started", [True, False])
def test_before_anything_was_read_there_is_nothing_to_go_back_to(tmp_path: Path, started: bool) -> None:
    store = SqliteStore(tmp_path)
    if started:
        asyncio.run(remember(store, "start_time", "0.0"))
    assert told(store, asked=at(4))[0].startswith("nothing was read yet")
    store.close()
