"""What becomes of a batch by what Redis answers to each of its commands.

Facts: Redis's "ACL", "Replication", "Cluster specification" and "Persistence" pages for the words that errors begin
with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from event_handler.ports import Delivered, Partial, Retry, Verdict
from event_handler.sinks.http import MISCONFIGURED_WAIT

# What may pass by itself. OOM: the memory is full; READONLY: a replica, after a failover; MISCONF: it cannot save.
REDIS_PASSING = frozenset(
    {"OOM", "READONLY", "LOADING", "MISCONF", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "ASK", "BUSY", "NOREPLICAS"}
)
REDIS_STEP = {
    "WRONGTYPE": "the key holds something else than a stream: check {section}.stream and session-stream",
    "NOPERM": "let the user add to the streams (+xadd, +wait, ~teleport:*)",
    "NOAUTH": "check {section}.username and password",
    "WRONGPASS": "check {section}.username and password",
    "CROSSSLOT": "check {section}.stream",
}


def code_of(error: Exception) -> str:
    """The word that an error begins with, which the client keeps apart, or has made a class of."""
    kept = getattr(error, "status_code", None)
    by_class = {
        "OutOfMemoryError": "OOM",
        "ReadOnlyError": "READONLY",
        "BusyLoadingError": "LOADING",
        "NoPermissionError": "NOPERM",
        "AuthenticationError": "NOAUTH",
        "AuthenticationWrongNumberOfArgsError": "NOAUTH",
        "ClusterDownError": "CLUSTERDOWN",
        "MasterDownError": "MASTERDOWN",
        "TryAgainError": "TRYAGAIN",
        "AskError": "ASK",
        "MovedError": "MOVED",
        "ClusterCrossSlotError": "CROSSSLOT",
    }
    return kept or by_class.get(type(error).__name__) or str(error).partition(" ")[0]


def refusal(error: Exception, section: str) -> Retry:
    """What an error of the server means for the command that it answers."""
    code, words = code_of(error), " ".join(str(error).split())[:200]
    said = words if words.startswith(code) else f"{code} {words}"
    if code in REDIS_PASSING:
        return Retry(f"Redis answered {said}")
    step = REDIS_STEP.get(code, "check {section}.url, db, username and password").format(section=section)
    return Retry(f"Redis answered {said}; {step}", MISCONFIGURED_WAIT, misconfigured=True)


def judge_answers(answers: Sequence[Any], count: int, trouble: Retry | None, section: str) -> Verdict:
    """`answers` are ids of entries or errors, in the order of the events, fewer than `count` when the connection has
    ended, for which `trouble` is why.
    """
    refused = {place: answer for place, answer in enumerate(answers) if isinstance(answer, Exception)}
    again = frozenset(refused).union(range(len(answers), count))
    if not again:
        return Delivered()
    why = refusal(next(iter(refused.values())), section) if refused else trouble or Retry("Redis gave no answer")
    if len(again) == count:
        return why
    return Partial(again, {}, why.reason, why.after)
