"""Turns the answers of Google's APIs into verdicts.

Facts: Google's "Errors" (google.rpc.Code), and the error reference of Pub/Sub.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from event_handler.ports import Denied, Retry, Verdict
from event_handler.sinks.answers import judge, readable
from event_handler.sinks.http import retry_seconds
from event_handler.sinks.http_answer import Answer

ABOUT_NAME = ("invalid resource name", "resource name given", "log type", "[topics] name")


def judge_google(answer: Answer, check: Mapping[int, str]) -> Verdict:
    """Turn an answer into a verdict. `check` says for a status what of the settings to look at; 404 is also for a 400
    whose message is about a name in the path.
    """
    verdict = judge(answer)
    status = answer.status
    if status == 400 and any(words in message(answer.body).lower() for words in ABOUT_NAME):
        status = 404
    if status not in check or 200 <= answer.status < 300:
        return verdict
    after = verdict.after if isinstance(verdict, Retry) else retry_seconds(answer.retry_after)
    said = message(answer.body) or readable(answer.body)
    return Denied(f"the receiver answered {answer.status} {readable(said.encode())}; check {check[status]}", after)


def message(body: bytes) -> str:
    """The message of an error with its status, as Google writes it; "" for anything else."""
    try:
        error: Any = orjson.loads(body)["error"]
        return f"{error['status']}: {error['message']}"
    except (ValueError, KeyError, TypeError):
        return ""
