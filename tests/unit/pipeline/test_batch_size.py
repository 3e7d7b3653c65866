"""The size of batches follows what a simulated receiver answers, on a clock of its own."""

from __future__ import annotations

from event_handler.pipeline.batch_size import LONGEST_RAISE, RAISE_AFTER, RECENT, START_BYTES, BatchSize

MOST = 1024 * 1024
PER_BYTE = 1e-7  # seconds


class Receiver:
    """There is always more to send. It answers a batch in `seconds`, and one above `most` bytes not at all."""

    def __init__(self) -> None:
        self.now = 0.0
        self.size = BatchSize(MOST, lambda: self.now)
        self.most = MOST
        self.per_byte = PER_BYTE
        self.patience = 30.0
        self.unanswered = 0

    def send(self, size: int = 0) -> int:
        size, sent = size or self.size.limit, self.now
        seconds = 0.01 + size * self.per_byte
        if size > self.most or seconds > self.patience:
            self.now += self.patience
            self.unanswered += 1
            self.size.failed(size, sent)
        else:
            self.now += seconds
            self.size.answered(size, sent, full=True)
        return self.size.limit

    def send_for(self, seconds: float) -> list[int]:
        end, limits = self.now + seconds, []
        while self.now < end:
            limits.append(self.send())
        return limits


def test_the_first_batches_are_small_and_answers_at_once_quadruple_them_up_to_the_limit_of_the_sink() -> None:
    receiver = Receiver()
    limits = [receiver.size.limit, *(receiver.send() for _ in range(8))]
    assert limits == [min(START_BYTES * 4**n, MOST) for n in range(9)]
    assert BatchSize(100, lambda: 0.0).limit == 100


def test_answers_that_are_quick_and_not_at_once_double_the_batches() -> None:
    receiver = Receiver()
    receiver.per_byte = 2.0 / START_BYTES
    assert receiver.send() == 2 * START_BYTES


def test_batches_that_are_not_full_teach_nothing_about_larger_ones() -> None:
    receiver = Receiver()
    receiver.size.answered(100, 0.0, full=False)
    assert receiver.size.limit == START_BYTES


def test_what_is_slow_for_each_byte_is_kept_within_the_time_out_without_meeting_it() -> None:
    receiver = Receiver()
    receiver.per_byte = 0.08 / 200  # seconds; 80 ms an event
    receiver.send_for(3600.0)
    assert receiver.unanswered == 0
    assert receiver.size.limit >= START_BYTES / 2


def test_a_receiver_that_becomes_slow_is_sent_less_before_it_meets_the_time_out() -> None:
    receiver = Receiver()
    receiver.send_for(10.0)
    receiver.per_byte = 15.0 / MOST
    receiver.send_for(60.0)
    assert receiver.unanswered == 0
    assert receiver.size.limit == MOST // 2


def test_above_a_size_that_gets_no_answer_nothing_is_sent_but_a_rare_try() -> None:
    for most in (300, 10_000, 50_000, 100_000):
        receiver = Receiver()
        receiver.most = most
        receiver.patience = 1.0
        receiver.send_for(20.0)
        before = receiver.unanswered
        limits = receiver.send_for(3600.0)
        assert receiver.unanswered - before < 12, most
        assert sorted(limits)[len(limits) // 2] > most / 4, most


def test_an_outage_leaves_nothing_and_the_size_is_back_with_a_few_answers() -> None:
    receiver = Receiver()
    receiver.send_for(10.0)
    receiver.now += RECENT + 1.0
    receiver.most = 0
    for _ in range(40):
        receiver.send()
    assert receiver.size.limit == 1
    receiver.most = MOST
    assert [receiver.send() for _ in range(21)][-1] == MOST


def test_one_loss_of_a_large_batch_costs_a_single_smaller_one() -> None:
    receiver = Receiver()
    receiver.send_for(10.0)
    receiver.now += RECENT + 1.0
    receiver.size.failed(MOST, receiver.now)
    assert receiver.size.limit == MOST // 2
    assert receiver.send() == MOST


def test_a_batch_that_fails_while_others_as_large_are_answered_says_nothing_about_the_size() -> None:
    receiver = Receiver()
    receiver.send_for(10.0)
    receiver.now += RECENT / 2
    receiver.size.failed(MOST // 2, receiver.now - 1.0)
    assert receiver.size.limit == MOST


def test_batches_that_were_under_way_when_the_size_was_lowered_do_not_lower_it_again() -> None:
    receiver = Receiver()
    receiver.send_for(10.0)
    sent = receiver.now
    receiver.now += RECENT + 1.0
    for _ in range(8):
        receiver.size.failed(MOST, sent)
    assert receiver.size.limit == MOST // 2


def test_a_ceiling_is_forgotten_when_a_batch_of_the_size_that_failed_is_answered() -> None:
    receiver = Receiver()
    receiver.most = 100_000
    receiver.send_for(60.0)
    receiver.most = MOST
    receiver.send_for(LONGEST_RAISE + RAISE_AFTER)
    assert receiver.size.limit == MOST
