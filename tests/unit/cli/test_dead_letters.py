"""`dead-letter` on a state with letters: told apart by name, shown whole, sent again, dropped."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from time import process_time

import orjson
import pytest
from click.testing import CliRunner

from event_handler.cli import cli
from event_handler.errors import EventHandlerError, StateError, UsageError
from event_handler.event import Event
from event_handler.pipeline.dead_letters import DeadLetterRetry
from event_handler.ports import (
    RECORDINGS,
    Commit,
    DeadLetter,
    Delivered,
    Limits,
    Partial,
    RecordingItem,
    Reject,
    Retry,
    Verdict,
)
from event_handler.state.dead_letters import DeadLetters
from event_handler.state.sqlite import SqliteStore
from event_handler.teleport.wire.raw import restored

REFUSED = DeadLetter("fluentd", "the receiver answered 400 no", "user.login", "u1", "", b'{"uid":"u1"}')
OTHER = DeadLetter("fluentd", "the receiver answered 422 no", "user.create", "u2", "", b'{"uid":"u2"}')


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    for sink, kept in (("fluentd", [REFUSED, OTHER]), ("file", [REFUSED])):
        store = SqliteStore(tmp_path / "example.test" / sink)
        asyncio.run(store.commit(Commit(dead_letters=kept)))
        store.close()
    return tmp_path


def call(storage: Path, *words: str) -> str:
    result = CliRunner().invoke(cli, ["dead-letter", *words, f"--storage={storage}"], standalone_mode=False)
    if isinstance(result.exception, EventHandlerError):
        raise result.exception
    assert result.exception is None, result.output
    return result.output


def test_letters_are_listed_with_names_that_tell_them_apart(storage: Path) -> None:
    lines = call(storage, "list").splitlines()
    assert [line.split()[0] for line in lines] == [
        "example.test/file/1",
        "example.test/fluentd/1",
        "example.test/fluentd/2",
    ]
    assert "user.login" in lines[0]
    assert "answered 400" in lines[0]
    assert len(call(storage, "list", "--sink=file").splitlines()) == 1


def test_a_letter_is_shown_with_its_event(storage: Path) -> None:
    shown = orjson.loads(call(storage, "show", "fluentd/2"))
    assert shown["event"] == {"uid": "u2"}
    assert shown["reason"] == OTHER.reason
    assert [orjson.loads(line)["event"] for line in call(storage, "list", "--json").splitlines()] == [
        {"uid": "u1"},
        {"uid": "u1"},
        {"uid": "u2"},
    ]


def test_more_letters_than_the_memory_holds_can_be_listed_and_dropped(storage: Path) -> None:
    store = SqliteStore(storage / "example.test" / "large")
    for number in range(40):
        asyncio.run(
            store.commit(
                Commit(
                    dead_letters=[DeadLetter("large", "refused", "t", str(number), "", b'"' + b"x" * 1_000_000 + b'"')]
                )
            )
        )
    store.close()
    tracemalloc.start()
    try:
        letters = DeadLetters(storage / "example.test" / "large" / "state.db")
        assert sum(len(letter.body) > 1_000_000 for letter in letters.all()) == 40
        assert call(storage, "drop", "--sink=large", "--all") == "40 of example.test/large dropped\n"
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_as_many_letters_as_there_may_be_are_dropped_in_moments(storage: Path) -> None:
    store = SqliteStore(storage / "example.test" / "many")
    asyncio.run(store.commit(Commit(dead_letters=[DeadLetter("many", "refused", "t", "u", "", b"{}")] * 30_000)))
    store.close()
    began = process_time()
    assert call(storage, "drop", "--sink=many", "--all") == "30000 of example.test/many dropped\n"
    assert process_time() - began < 10  # each compared with each takes minutes


def test_letters_are_dropped_by_name_or_all_of_them(storage: Path) -> None:
    assert call(storage, "drop", "fluentd/1") == "1 of example.test/fluentd dropped\n"
    assert [line.split()[0] for line in call(storage, "list").splitlines()] == [
        "example.test/file/1",
        "example.test/fluentd/2",
    ]
    call(storage, "drop", "--all")
    assert call(storage, "list") == ""


def test_what_is_not_clear_is_asked_and_changes_nothing(storage: Path) -> None:
    with pytest.raises(UsageError, match=r"1 could be example\.test/file/1 or example\.test/fluentd/1"):
        call(storage, "drop", "1")
    with pytest.raises(UsageError, match="there is no dead letter 9"):
        call(storage, "retry", "9")
    with pytest.raises(UsageError, match="which dead letters"):
        call(storage, "drop")
    with pytest.raises(UsageError, match="which dead letters"):
        call(storage, "drop", "--all", "fluentd/1")
    with pytest.raises(StateError, match="there is no state"):
        call(storage / "nowhere", "list")
    assert len(call(storage, "list").splitlines()) == 3


class Sink:
    """Takes what it is told to take."""

    name = "fluentd"
    limits = Limits(10, 10_000, 1, 0.0)

    def __init__(self, *verdicts: Verdict) -> None:
        self.verdicts = list(verdicts)
        self.sent: list[Event] = []

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        self.sent.extend(events)
        return self.verdicts.pop(0)

    async def reopen(self) -> None:
        return None

    async def close(self) -> None:
        return None


async def tried_once(sink: Sink, store: SqliteStore) -> None:
    """As at the end of a run to the last event."""
    end = asyncio.Event()
    end.set()
    await DeadLetterRetry(sink, store, restored, lambda event: None, look_every=0.01, after_failure=0.02).run(end)


async def retried(sink: Sink, store: SqliteStore) -> None:
    """Run until nothing is to be sent again."""
    running = asyncio.create_task(
        DeadLetterRetry(sink, store, restored, lambda event: None, look_every=0.01, after_failure=0.02).run(
            asyncio.Event()
        )
    )
    async with asyncio.timeout(20):
        while await store.dead_letters_to_retry():
            await asyncio.sleep(0.005)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_running_handler_sends_them_again_and_keeps_what_is_refused_again(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(storage / "example.test" / "fluentd")
    call(storage, "retry", "--sink=fluentd", "--all")
    assert "(to be sent again)" in call(storage, "list", "--sink=fluentd")
    sink = Sink(Retry("away"), Retry("away"), Delivered(), Reject("still no"))
    await retried(sink, store)
    assert [event.id for event in sink.sent] == ["u1", "u2", "u1", "u2"]
    left = call(storage, "list", "--sink=fluentd")
    assert left.split()[0] == "example.test/fluentd/2"
    assert "still no" in left
    assert "again" not in left
    store.close()


async def test_a_collector_that_fails_is_not_flooded_with_letters(storage: Path) -> None:
    store = SqliteStore(storage / "example.test" / "fluentd")
    call(storage, "retry", "--sink=fluentd", "--all")
    sink = Sink(*[Retry("away")] * 100)
    running = asyncio.create_task(
        DeadLetterRetry(sink, store, restored, lambda event: None, look_every=0.001).run(asyncio.Event())
    )
    await asyncio.sleep(0.2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [event.id for event in sink.sent] == ["u1", "u2"]
    store.close()


async def test_a_recording_that_was_given_up_is_asked_for_again(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore(storage / "example.test" / "recorded")
    letter = DeadLetter(RECORDINGS, "never appeared", "", "s", "s", b'{"sid":"s"}')
    await store.commit(Commit(recordings=[RecordingItem("s", 1.0, True, 0, 0.0, 0)], dead_letters=[letter]))
    await store.recording_done("s")
    call(storage, "retry", "recorded/1")
    await retried(Sink(), store)
    assert await store.dead_letters() == 0
    assert [item.session_id for item in await store.due_recordings(2.0, 5)] == ["s"]
    store.close()


async def test_the_letter_of_a_recording_that_nobody_can_ask_for_stays_and_its_event_is_not_sent_twice(
    storage: Path,
) -> None:
    store = SqliteStore(storage / "example.test" / "recorded")
    await store.commit(
        Commit(dead_letters=[DeadLetter(RECORDINGS, "no session id", "session.upload", "u", "", b'{"uid":"u"}')])
    )
    call(storage, "retry", "recorded/1")
    sink = Sink(Delivered())
    await tried_once(sink, store)
    assert sink.sent == []
    assert "no session id" in call(storage, "list", "--sink=recorded")
    assert await store.dead_letters_to_retry() == []
    store.close()


async def test_a_letter_that_is_refused_in_an_answer_event_by_event_is_kept_with_that_reason(storage: Path) -> None:
    store = SqliteStore(storage / "example.test" / "file")
    call(storage, "retry", "file/1")
    await tried_once(Sink(Partial(frozenset(), {0: "still no field"})), store)
    assert await store.dead_letters_to_retry() == []
    assert "still no field" in call(storage, "list", "--sink=file")
    store.close()


async def test_a_sink_that_fails_by_itself_does_not_end_the_retries(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(storage / "example.test" / "file")
    call(storage, "retry", "file/1")
    sink = Sink()  # it has no verdict: an IndexError
    running = asyncio.create_task(
        DeadLetterRetry(sink, store, restored, lambda event: None, look_every=0.01, after_failure=0.02).run(
            asyncio.Event()
        )
    )
    await asyncio.sleep(0.05)
    sink.verdicts.append(Delivered())
    async with asyncio.timeout(20):
        while await store.dead_letters():
            await asyncio.sleep(0.005)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    store.close()


async def test_letters_that_are_asked_for_while_a_run_goes_on_are_tried_before_it_ends(storage: Path) -> None:
    store = SqliteStore(storage / "example.test" / "fluentd")
    sink, end = Sink(Delivered(), Delivered()), asyncio.Event()
    running = asyncio.create_task(
        DeadLetterRetry(sink, store, restored, lambda event: None, look_every=0.01, after_failure=0.02).run(end)
    )
    await asyncio.sleep(0.02)
    call(storage, "retry", "--sink=fluentd", "--all")
    end.set()
    async with asyncio.timeout(20):
        await running
    assert [event.id for event in sink.sent] == ["u1", "u2"]
    store.close()


async def test_letters_behind_many_that_the_sink_takes_not_now_are_tried_as_well(storage: Path) -> None:
    store = SqliteStore(storage / "example.test" / "many")
    await store.commit(
        Commit(dead_letters=[DeadLetter("many", "refused", "t", str(number), "", b"{}") for number in range(35)])
    )
    call(storage, "retry", "--sink=many", "--all")
    sink = Sink(*[Retry("away")] * 30, *[Delivered()] * 5)
    await tried_once(sink, store)
    assert await store.dead_letters() == 30
    store.close()


async def test_bytes_that_can_be_decoded_by_now_are_sent_and_others_stay(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(storage / "example.test" / "odd")
    bodies = [b'{"undecodable":"CgpsYXRlci50eXBlKgkKBwoBbhICCAA="}', b'{"undecodable":"//8="}', b'{"undecodable":"?"}']
    await store.commit(
        Commit(dead_letters=[DeadLetter("fluentd", "odd", "", str(n), "", body) for n, body in enumerate(bodies)])
    )
    call(storage, "retry", "--sink=odd", "--all")
    sink = Sink(Delivered())
    await retried(sink, store)
    assert [(event.type, event.body) for event in sink.sent] == [("later.type", b'{"n":null}')]
    assert [line.split()[0] for line in call(storage, "list", "--sink=odd").splitlines()] == [
        f"example.test/odd/{n}" for n in (2, 3)
    ]
    store.close()


def letter_of(body: bytes, time: float | None = None, index: int = 0, session_id: str = "") -> DeadLetter:
    return DeadLetter("fluentd", "refused", "t", "u", session_id, body, time, index)


@pytest.mark.parametrize(
    ("letter", "time", "index"),
    [
        (letter_of(b'{"time":"2026-11-21T10:20:30Z","ei":9}', 5.25, 3, "s"), 5.25, 3),
        (letter_of(b'{"time":"2026-11-21T10:20:30Z","ei":9}', 0.0), 0.0, 0),
        (letter_of(b'{"time":"2026-11-21T10:20:30Z","ei":9}', session_id="s"), 1_795_256_430.0, 9),
        (letter_of(b'{"time":"2026-11-21T10:20:30.5Z"}'), 1_795_256_430 + 500_000_000 / 1e9, 0),
        (letter_of(b'{"time":"2026-11-21T10:20:30.123456789Z"}'), 1_795_256_430 + 123_456_789 / 1e9, 0),
        (letter_of(b'{"time":"2026-11-21T10:20:30.1234567891234Z"}'), 1_795_256_430 + 123_456_789 / 1e9, 0),
        (letter_of(b'{"time":"2026-11-21T11:20:30.25+01:00","ei":2}'), 1_795_256_430.25, 2),
        (letter_of(b'{"time":"0001-01-01T00:00:00Z"}'), -62_135_596_800.0, 0),
        (letter_of(b'{"time":"yesterday","ei":"x"}'), 0.0, 0),
        (letter_of(b'{"time":5,"ei":null}'), 0.0, 0),
        (letter_of(b'{"time":"2026-13-45T10:20:30Z"}'), 0.0, 0),
        (letter_of(b"{}"), 0.0, 0),
    ],
)
async def test_a_letter_is_sent_again_with_the_time_and_the_place_of_its_event(
    tmp_path: Path, letter: DeadLetter, time: float, index: int
) -> None:
    store = SqliteStore(tmp_path)
    await store.commit(Commit(dead_letters=[letter]))
    DeadLetters(tmp_path / "state.db").retry([1])
    sink = Sink(Delivered())
    await tried_once(sink, store)
    assert [(event.time, event.index, event.session_id) for event in sink.sent] == [(time, index, letter.session_id)]
    store.close()


async def test_letters_that_are_delivered_are_counted_where_their_events_belong(storage: Path) -> None:
    store = SqliteStore(storage / "example.test" / "fluentd")
    call(storage, "retry", "--sink=fluentd", "--all")
    told: list[str] = []
    end = asyncio.Event()
    end.set()
    await DeadLetterRetry(
        Sink(Delivered(), Reject("still no")), store, restored, lambda event: told.append(event.id)
    ).run(end)
    assert told == ["u1"]
    assert await store.dead_letter_totals() == (1, len(OTHER.body))
    store.close()


def test_a_look_for_letters_and_their_totals_cost_the_same_however_many_there_are(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    asyncio.run(store.commit(Commit(dead_letters=[REFUSED] * 20_000)))
    DeadLetters(tmp_path / "state.db").retry([19_999])
    steps: list[None] = []
    store._db.set_progress_handler(lambda: steps.append(None), 100)  # every hundred instructions of SQLite's
    assert [number for number, _ in asyncio.run(store.dead_letters_to_retry())] == [19_999]
    assert asyncio.run(store.dead_letter_totals()) == (20_000, 20_000 * len(REFUSED.body))
    assert len(steps) < 5
    DeadLetters(tmp_path / "state.db").drop(range(1, 10_001))
    assert asyncio.run(store.dead_letter_totals()) == (10_000, 10_000 * len(REFUSED.body))
    store.close()


def test_letters_that_come_while_all_are_dropped_stay(storage: Path) -> None:
    store = SqliteStore(storage / "example.test" / "fluentd")
    letters = DeadLetters(storage / "example.test" / "fluentd" / "state.db")
    numbers = letters.numbers()
    first = next(numbers)
    asyncio.run(store.commit(Commit(dead_letters=[REFUSED])))
    assert letters.drop([first, *numbers]) == 2
    assert [line.split()[0] for line in call(storage, "list", "--sink=fluentd").splitlines()] == [
        "example.test/fluentd/3"
    ]
    store.close()


def test_what_is_gone_meanwhile_is_not_counted(storage: Path) -> None:
    letters = DeadLetters(storage / "example.test" / "fluentd" / "state.db")
    assert letters.retry([1, 77]) == 1
    assert letters.drop([1, 1, 77]) == 1
