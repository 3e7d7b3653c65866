"""Background work that ends by an error is told and begun again, and a wish to stop is obeyed at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from event_handler.errors import ConfigurationError, StateError
from event_handler.runtime import supervise as module
from event_handler.runtime.supervise import supervise


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)


class Work:
    """Fails with each of `errors` in turn, then returns."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.runs = 0

    async def __call__(self) -> None:
        self.runs += 1
        if self.errors:
            raise self.errors.pop(0)


async def test_every_kind_of_error_is_told_with_the_facts_and_the_work_begun_again() -> None:
    work = Work(
        StateError("the disk is full", "Make room."),
        AttributeError("no attribute"),
        ExceptionGroup("group", [KeyError("k")]),
    )
    with capture_logs() as lines:
        await supervise("the work", work, sink="fluentd")
    assert work.runs == 4
    assert [line["event"] for line in lines] == ["the work failed and is started again"] * 3
    assert [line["error"] for line in lines] == [
        "the disk is full. Make room.",
        "AttributeError: no attribute",
        "KeyError: 'k'",
    ]
    assert {line["sink"] for line in lines} == {"fluentd"}
    assert {line["log_level"] for line in lines} == {"error"}


async def test_pauses_grow_up_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.003)
    with capture_logs() as lines:
        await supervise("the work", Work(*[ValueError()] * 4))
    assert [line["pause_s"] for line in lines] == [0.001, 0.002, 0.003, 0.003]


async def test_after_long_work_an_error_counts_as_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEADY", 0.0)
    with capture_logs() as lines:
        await supervise("the work", Work(*[ValueError()] * 3), most=2)
    assert [line["pause_s"] for line in lines] == [0.001] * 3


async def test_the_last_of_the_most_errors_and_a_final_one_are_raised_bare() -> None:
    with pytest.raises(KeyError), capture_logs() as lines:
        await supervise("the work", Work(ValueError(), ValueError(), ExceptionGroup("group", [KeyError()])), most=3)
    assert len(lines) == 2
    with pytest.raises(ConfigurationError), capture_logs() as lines:
        await supervise(
            "the work", Work(ExceptionGroup("group", [ConfigurationError("wrong")])), final=(ConfigurationError,)
        )
    assert lines == []


async def waiting() -> None:
    await asyncio.Event().wait()


async def failing() -> None:
    raise KeyError


async def stubborn() -> None:
    try:
        await waiting()
    finally:
        raise ValueError


@pytest.mark.parametrize(
    ("work", "ending"), [(waiting, asyncio.CancelledError), (failing, asyncio.CancelledError), (stubborn, ValueError)]
)
async def test_a_wish_to_stop_is_obeyed_during_work_during_a_pause_and_while_it_is_failing(
    work: Callable[[], Awaitable[None]], ending: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 3600.0)
    with capture_logs():
        task = asyncio.create_task(supervise("the work", work))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(ending):
            await task
