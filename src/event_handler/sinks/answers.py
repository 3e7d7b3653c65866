"""Turns the status of an HTTP answer into a verdict, for every sink that speaks HTTP."""

from __future__ import annotations

from event_handler.ports import Delivered, Denied, Reject, Retry, Split, Verdict
from event_handler.sinks.http import retry_seconds
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


def readable(answer: bytes) -> str:
    """The beginning of an answer on one line."""
    return " ".join(answer[: 4 * REASON_LENGTH].decode("utf-8", "replace").split())[:REASON_LENGTH]
