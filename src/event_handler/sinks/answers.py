"""Turns the status of an HTTP answer into a verdict, for every sink that speaks HTTP, and reads its body."""

from __future__ import annotations

from typing import Any

import orjson

from event_handler.ports import Delivered, Denied, Partial, Reject, Retry, Split, Verdict
from event_handler.sinks.http import MISCONFIGURED_WAIT, retry_seconds
from event_handler.sinks.http_answer import Answer

REASON_LENGTH = 200  # characters of an answer that a log line shows
REJECTED = frozenset({400, 422})  # the receiver has looked at the content and does not want it
PASSING = frozenset(
    {408, 425, 429}
)  # of the 4xx; any other 4xx, and 3xx, 501 and 505, is mostly for a person to correct


def judge(answer: Answer) -> Verdict:
    """Turn a status into a verdict: any 2xx is success, also when the body was cut off, for the status has decided
    already.
    """
    status = answer.status
    if 200 <= status < 300:
        return Delivered()
    reason = f"the receiver answered {status} {readable(answer.body)}".strip()
    if status == 413:
        return Split(reason)
    if status in REJECTED:
        return Reject(reason)
    if status in PASSING or (status >= 500 and status not in (501, 505)):
        return Retry(reason, after=retry_seconds(answer.retry_after))
    return Denied(f"{reason}; check the URL and the receiver's access rules", after=retry_seconds(answer.retry_after))


def json_of(answer: Answer) -> Any:
    """What stands in an answer as JSON, None for anything else."""
    try:
        return orjson.loads(answer.body)
    except ValueError:
        return None


def unproven(answer: Answer | None, what: str) -> Retry:
    """A success by its status, of which it cannot be said `what`: that it names each event, for example."""
    if answer is None or not answer.complete:
        return Retry("the answer was cut off", unanswered=True)
    reason = f"it cannot be seen that {what}: {answer.status} {readable(answer.body)}".strip()
    return Retry(f"{reason}; check the option url", MISCONFIGURED_WAIT, misconfigured=True)


def partly(left: frozenset[int], verdict: Retry | Reject | Split | Partial) -> Partial:
    """What a verdict about a part of a batch means for the whole: the events in the places `left` come again."""
    if isinstance(verdict, Retry | Partial):
        return Partial(left, {}, verdict.reason, verdict.after, verdict.misconfigured)
    return Partial(left, {}, verdict.reason)


def readable(answer: bytes) -> str:
    """The beginning of an answer on one line."""
    return " ".join(answer[: 4 * REASON_LENGTH].decode("utf-8", "replace").split())[:REASON_LENGTH]
