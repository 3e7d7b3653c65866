"""Every row of the decision table: what becomes of events by the answer, and by what is known of others."""

from __future__ import annotations

import pytest

from event_handler.pipeline.verdicts import (
    CHANCE,
    SEVERAL_REFUSED,
    TABLE,
    Action,
    Evidence,
    History,
    Kind,
    Others,
    Situation,
    decide,
    kind_of,
)
from event_handler.ports import Denied, Reject, Retry, Split

NEVER = None
# kind, and the failures and seconds after which one event is a dead letter: others taken, ending, earlier, unknown
PROOFS = [
    (Kind.TOO_LARGE, (3, 0), (5, 5), (5, 120), (20, 3600)),
    (Kind.CONTENT, (3, 0), (5, 5), (5, 120), (20, 3600)),
    (Kind.DENIED, (20, 60), (15, 60), (20, 600), NEVER),
    (Kind.FAILED, (100, 0), NEVER, NEVER, NEVER),
    (Kind.UNANSWERED, (100, 0), NEVER, NEVER, NEVER),
    (Kind.UNREACHABLE, NEVER, NEVER, NEVER, NEVER),
]
CELLS = [
    pytest.param(kind, others, proof, id=f"{kind.name}-{others.name}")
    for kind, *proofs in PROOFS
    for others, proof in zip(Others, proofs, strict=True)
]
FOR_EVER = (10_000, 30 * 86_400)


def one(kind: Kind, times: int) -> History:
    """An event refused alone so often, others being taken between, since second 0."""
    return History(0, 0, kind, alone=True, tries=times, apart=times)


def test_every_kind_has_a_row_and_every_row_a_test() -> None:
    assert set(TABLE) == set(Kind) == {kind for kind, *_ in PROOFS}


@pytest.mark.parametrize(("kind", "others", "proof"), CELLS)
def test_one_event_is_a_dead_letter_with_its_proof_and_not_a_try_or_second_earlier(
    kind: Kind, others: Others, proof: tuple[int, int] | None
) -> None:
    times, seconds = proof or FOR_EVER
    said = decide(kind, one(kind, times), Situation(others), seconds)
    assert (said is Action.DEAD_LETTER) is (proof is not None)
    assert decide(kind, one(kind, times - 1), Situation(others), seconds) is not Action.DEAD_LETTER
    if seconds:
        assert decide(kind, one(kind, times), Situation(others), seconds - 1) is not Action.DEAD_LETTER


@pytest.mark.parametrize("others", [others for others in Others if others is not Others.TAKEN])
@pytest.mark.parametrize("kind", Kind)
def test_when_many_different_events_are_refused_and_none_taken_it_is_the_receiver(kind: Kind, others: Others) -> None:
    times, seconds = FOR_EVER
    said = decide(kind, one(kind, times), Situation(others, refused=SEVERAL_REFUSED), seconds)
    assert said is not Action.DEAD_LETTER


@pytest.mark.parametrize(
    ("kind", "patience", "nobody", "taken"),
    [
        (Kind.TOO_LARGE, 1, Action.HALVE, Action.HALVE),
        (Kind.CONTENT, 1, Action.HALVE, Action.HALVE),
        (Kind.DENIED, 1, Action.NARROW, Action.HALVE),
        (Kind.FAILED, 4, Action.NARROW, Action.NARROW),
        (Kind.UNANSWERED, 1, Action.NARROW, Action.NARROW),
        (Kind.UNREACHABLE, 10_000, Action.WAIT, Action.WAIT),
    ],
)
def test_several_events_are_halved_or_narrowed_from_the_first_failure_that_tells(
    kind: Kind, patience: int, nobody: Action, taken: Action
) -> None:
    several = History(0, 0, kind, tries=patience)
    assert decide(kind, several, Situation(Others.UNKNOWN), 0.0) is nobody
    assert decide(kind, several, Situation(Others.TAKEN), 0.0) is taken
    if patience > 1:
        assert decide(kind, History(0, 0, kind, tries=patience - 1), Situation(Others.TAKEN), 0.0) is Action.WAIT


def test_a_receiver_that_fails_at_most_things_makes_no_batch_smaller_until_chance_is_unlikely() -> None:
    unlikely = next(tries for tries in range(1, 100) if 0.75**tries <= CHANCE)
    batch = History(0, 0, Kind.FAILED, tries=unlikely - 1, overloaded=True, all_taken=25, all_failed=75)
    assert decide(Kind.FAILED, batch, Situation(Others.UNKNOWN), 0.0) is Action.WAIT
    batch.tries = unlikely
    assert decide(Kind.FAILED, batch, Situation(Others.UNKNOWN), 0.0) is Action.NARROW


@pytest.mark.parametrize(
    ("kind", "order", "without"),
    [
        (Kind.TOO_LARGE, Action.SET_ASIDE, Action.SET_ASIDE),
        (Kind.CONTENT, Action.SET_ASIDE, Action.SET_ASIDE),
        (Kind.DENIED, Action.WAIT, Action.SET_ASIDE),
        (Kind.FAILED, Action.WAIT, Action.SET_ASIDE),
        (Kind.UNANSWERED, Action.WAIT, Action.SET_ASIDE),
        (Kind.UNREACHABLE, Action.WAIT, Action.WAIT),
    ],
)
def test_who_may_stand_aside_for_others(kind: Kind, order: Action, without: Action) -> None:
    history = History(0, 0, kind, alone=True, tries=6)
    assert decide(kind, history, Situation(Others.UNKNOWN), 0.0) is without
    assert decide(kind, history, Situation(Others.UNKNOWN, order=True), 0.0) is order
    assert decide(kind, history, Situation(Others.UNKNOWN, aside=True), 0.0) is Action.WAIT


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [
        (Split("413"), Kind.TOO_LARGE),
        (Reject("400"), Kind.CONTENT),
        (Denied("403"), Kind.DENIED),
        (Retry("503"), Kind.FAILED),
        (Retry("time-out", unanswered=True), Kind.UNANSWERED),
        (Retry("TLS", misconfigured=True), Kind.UNREACHABLE),
    ],
)
def test_every_verdict_is_of_one_kind(verdict: Retry | Reject | Split, kind: Kind) -> None:
    assert kind_of(verdict) is kind


def test_what_passes_by_itself_counts_against_an_event_only_while_more_is_taken_than_failed() -> None:
    evidence = Evidence()
    history = History(0, 0)
    evidence.took(0.0)
    history.failed_again(Kind.FAILED, True, evidence, 1.0)
    assert (history.tries, history.apart) == (1, 1)
    evidence.failed += 1
    evidence.took(2.0)
    history.failed_again(Kind.FAILED, True, evidence, 3.0)
    assert (history.tries, history.apart) == (2, 1)
    evidence.took(4.0)
    history.failed_again(Kind.CONTENT, True, evidence, 5.0)
    assert (history.tries, history.apart) == (1, 1)


def test_an_overload_in_between_takes_nothing_from_what_was_counted_of_refusals() -> None:
    evidence, history = Evidence(), History(0, 0)
    for now, kind in enumerate((Kind.CONTENT, Kind.FAILED, Kind.CONTENT, Kind.UNANSWERED, Kind.FAILED, Kind.CONTENT)):
        evidence.took(now)
        history.failed_again(kind, True, evidence, float(now))
    assert (history.kind, history.tries, history.apart, history.since) == (Kind.CONTENT, 3, 3, 0.0)
    assert decide(Kind.CONTENT, history, Situation(Others.TAKEN), 6.0) is Action.DEAD_LETTER
    history.failed_again(Kind.UNANSWERED, True, evidence, 7.0)
    assert (history.tries, history.since) == (4, 1.0)


def test_what_was_counted_of_a_batch_does_not_count_for_its_last_event() -> None:
    evidence, history = Evidence(), History(0, 0)
    for now, kind in enumerate((Kind.CONTENT, Kind.FAILED)):
        history.failed_again(kind, False, evidence, float(now))
    history.failed_again(Kind.CONTENT, True, evidence, 5.0)
    assert (history.tries, history.since) == (1, 5.0)
