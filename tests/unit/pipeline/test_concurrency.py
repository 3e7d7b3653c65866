"""The limit follows what a simulated receiver can take, on a clock of its own."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

from event_handler.pipeline.concurrency import START, Concurrency

QUICK = 0.25  # seconds of an answer; a binary fraction, so that equal times give equal averages


class Receiver:
    """Answers each request after `seconds` (of the requests in flight), or cannot take it where `refuses` says so."""

    def __init__(self, ceiling: int) -> None:
        self.now = 0.0
        self.concurrency = Concurrency(ceiling, lambda: self.now)
        self.seconds: Callable[[int], float] = lambda _: QUICK
        self.refuses: Callable[[int], bool] = lambda _: False
        self._open: list[tuple[float, int, float, bool]] = []
        self._number = 0

    def send(self) -> None:
        sent = self.concurrency.sent()
        load = self.concurrency.in_flight
        self._number += 1
        heapq.heappush(self._open, (self.now + self.seconds(load), self._number, sent, self.refuses(load)))

    def answer(self) -> None:
        self.now, _, sent, refused = heapq.heappop(self._open)
        if refused:
            self.concurrency.refused(sent)
        else:
            self.concurrency.answered(sent)

    def backlog(self, answers: int) -> int:
        """There is always more to send. Returns the limit after so many answers."""
        for _ in range(answers):
            while self.concurrency.free > 0:
                self.send()
            self.answer()
        return self.concurrency.limit

    def trickle(self, answers: int) -> int:
        """One request at a time."""
        for _ in range(answers):
            self.send()
            self.answer()
        return self.concurrency.limit


def test_the_first_requests_are_few_and_the_ceiling_of_the_user_is_never_passed() -> None:
    assert Concurrency(64).limit == START
    assert Concurrency(3).limit == 3
    assert Receiver(ceiling=3).backlog(1000) == 3
    assert Receiver(ceiling=20).backlog(10_000) == 20


def test_the_limit_grows_quickly_while_the_answers_stay_quick() -> None:
    receiver = Receiver(ceiling=64)
    limits = [receiver.backlog(receiver.concurrency.limit) for _ in range(10)]
    assert limits == [8, 10, 12, 15, 18, 22, 27, 33, 41, 51]


def test_once_it_was_lowered_the_limit_grows_by_one_a_round_trip() -> None:
    receiver = Receiver(ceiling=64)
    high = receiver.backlog(100)
    receiver.concurrency.refused(receiver.concurrency.sent())
    limits = [receiver.concurrency.limit, *(receiver.backlog(1) for _ in range(1000))]
    assert limits[0] == high // 2
    assert {after - before for before, after in itertools.pairwise(limits)} == {0, 1}
    assert limits[-1] > high


def test_a_limit_that_is_not_used_does_not_grow() -> None:
    assert Receiver(ceiling=64).trickle(1000) == START


def test_a_refusal_halves_the_limit_once_for_all_that_was_in_flight() -> None:
    receiver = Receiver(ceiling=64)
    receiver.backlog(1000)
    while receiver.concurrency.in_flight:
        receiver.answer()
    before = receiver.concurrency.limit
    receiver.refuses = lambda _: True
    while receiver.concurrency.free > 0:
        receiver.send()
    while receiver.concurrency.in_flight:
        receiver.answer()
    assert receiver.concurrency.limit == before // 2


def test_an_outage_leaves_one_request_and_what_comes_after_grows_again() -> None:
    receiver = Receiver(ceiling=64)
    receiver.backlog(1000)
    receiver.refuses = lambda _: True
    assert receiver.backlog(500) == 1
    receiver.refuses = lambda _: False
    assert receiver.backlog(5000) > START


def test_a_receiver_that_refuses_above_a_number_is_kept_near_it() -> None:
    receiver = Receiver(ceiling=64)
    receiver.refuses = lambda load: load > 20
    receiver.backlog(500)
    limits = [receiver.backlog(1) for _ in range(2000)]
    assert max(limits) <= 21
    assert sum(limits) / len(limits) > 12


def test_answers_that_slow_down_lower_the_limit() -> None:
    receiver = Receiver(ceiling=64)
    before = receiver.backlog(2000)
    receiver.seconds = lambda _: 4 * QUICK
    assert min(receiver.backlog(1) for _ in range(2 * before + 1)) < before


def test_one_answer_a_little_late_among_equal_ones_changes_nothing() -> None:
    receiver = Receiver(ceiling=20)
    receiver.backlog(2000)
    receiver.seconds = lambda _: QUICK * 1.01
    assert min(receiver.backlog(1) for _ in range(200)) == 20


def test_a_slow_moment_of_a_receiver_that_has_nothing_to_do_is_no_reason_to_send_less() -> None:
    receiver = Receiver(ceiling=64)
    receiver.trickle(100)
    receiver.seconds = lambda _: 10 * QUICK
    assert receiver.trickle(100) == START


def test_what_says_nothing_about_the_load_changes_nothing() -> None:
    concurrency = Concurrency(64)
    for _ in range(100):
        concurrency.sent()
        concurrency.told_nothing()
    assert (concurrency.limit, concurrency.in_flight) == (START, 0)
