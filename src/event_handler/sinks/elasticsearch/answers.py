"""Turns the answers of the bulk API into verdicts."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import orjson

from event_handler.ports import Delivered, Denied, Partial, Reject, Retry, Verdict
from event_handler.sinks.answers import REJECTED, judge, readable
from event_handler.sinks.http import MISCONFIGURED_WAIT, Answer

REFUSAL_LENGTH = (
    500  # characters of a reason; the longest field name that a mapping takes by default and the words around it
)
ALREADY_THERE = (
    409,
    "version_conflict_engine_exception",
)  # a document has this id: the answer to an earlier try was lost
# The word before a quote or bracket, that itself, and a number in it; an apostrophe within a word is neither.
QUOTED = re.compile(r"""(?:(\w+)\s*[:=]?\s*|(?<!\w))(\[|(?<!\w)["'])([\d:]+[]"'])?""")
# What stands in quotes after these words is a name, after all others it may be a piece of an event.
NAMING = frozenset(
    {"alias", "and", "field", "for", "id", "index", "mapper", "mapping", "name", "of", "parameter", "pipeline"}
) | frozenset({"processor", "to", "type", "within"})
CREATED, ERROR = b'"status":201', b'"error"'  # of a document in an answer
FOREIGN = "that is not how Elasticsearch or OpenSearch answer, check the option url"
PREVIEW = re.compile(r"\. Preview of field's value| The prefix of the first immense term| at \[Source")


class About(Enum):
    """What a refusal is about, as far as the answer tells."""

    DOCUMENT = "the document"  # whether it is the only one that is refused, others will show
    # all documents are refused alike until a person changes something
    CLUSTER = "the cluster, its rules or the user's rights"
    MOMENT = "the moment"  # it passes


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table; None fits everything. `reason` is searched for."""

    about: About
    status: range | None = None
    kinds: frozenset[str] | None = None
    reason: re.Pattern[str] | None = None

    def fits(self, status: int, kind: str, reason: str) -> bool:
        return (
            (self.status is None or status in self.status)
            and (self.kinds is None or kind in self.kinds)
            and (self.reason is None or self.reason.search(reason) is not None)
        )


def _row(about: About, status: int | range | None = None, kinds: str = "", reason: str = "") -> Row:
    statuses = range(status, status + 1) if isinstance(status, int) else status
    return Row(about, statuses, frozenset(kinds.split()) or None, re.compile(reason) if reason else None)


# The first row that fits counts. Seen at OpenSearch 2.11, 2.19 and 3.8; Elasticsearch says the same with types of the
# same names.
REFUSAL_TABLE = (
    _row(About.CLUSTER, 401),  # rights
    _row(About.CLUSTER, 403),  # rights, and blocks of an index
    _row(
        About.CLUSTER,
        None,
        "cluster_block_exception index_closed_exception index_not_found_exception invalid_index_name_exception",
    ),
    _row(About.CLUSTER, None, "invalid_index_template_exception invalid_alias_name_exception security_exception"),
    _row(About.MOMENT, None, "resource_already_exists_exception"),  # two requests made the index at the same time
    _row(About.DOCUMENT, None, "fail_processor_exception"),  # with 500: a pipeline that was told to refuse it
    _row(About.DOCUMENT, None, "illegal_argument_exception", "timestamp field"),
    _row(
        About.CLUSTER,
        None,
        "illegal_argument_exception validation_exception",
        r"^Validation Failed: 1: this action would add \[",
    ),
    _row(
        About.CLUSTER,
        None,
        "illegal_argument_exception",
        r"^no write index is defined for alias|^[Aa]lias \[.*\] has more than one",
    ),
    _row(About.CLUSTER, None, "illegal_argument_exception", r"^pipeline with id \[.*\] does not exist"),
    _row(
        About.CLUSTER,
        None,
        "illegal_argument_exception",
        r"^only write ops with an op_type of create|^no matching index template",
    ),
    _row(
        About.CLUSTER,
        None,
        "illegal_argument_exception",
        r"^unknown setting|^Failed to parse value .* for setting|^Failed to build",
    ),
    # OpenSearch Serverless, a collection of another type than search.
    _row(About.CLUSTER, None, "illegal_argument_exception", r"^Document ID is not supported"),
    _row(About.MOMENT, 408),
    _row(About.MOMENT, 409),
    _row(About.MOMENT, 429),
    _row(About.MOMENT, range(500, 600)),
    _row(About.DOCUMENT),  # a mapping that it does not fit, a limit that it passes, a script that it breaks
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Status, error type, reason and cause of what was refused.

    The reason, as the server wrote it, may hold a piece of the event.
    """

    status: int
    kind: str
    reason: str
    cause: str

    def about(self) -> About:
        return next(row.about for row in REFUSAL_TABLE if row.fits(self.status, self.kind, self.reason))

    def __str__(self) -> str:
        return f"{self.status} {self.kind}{self.why()}"

    def why(self) -> str:
        """The reason and its cause, each after a colon; of what is about the cluster all, of a document no value."""
        if self.about() is About.CLUSTER:
            return f": {_clipped(self.reason)}"
        reason = (
            "" if self.kind == "fail_processor_exception" else without_content(self.reason)
        )  # it is whatever the pipeline says
        return "".join(f": {part}" for part in (reason, self.cause) if part)


def judge_bulk(answer: Answer, count: int) -> Verdict:
    """Turn the answer to a bulk of `count` documents into a verdict."""
    if 200 <= answer.status < 300:
        return judge_items(answer, count)
    refusal = _whole(answer)
    if refusal is None:
        said = judge(answer)
        return Reject(f"{said.reason}; {FOREIGN}") if isinstance(said, Reject) else said
    if answer.status in REJECTED:
        if refusal.about() is About.CLUSTER:
            return _denied(f"the receiver answered {refusal}; check the credentials and the rights of their user")
        if refusal.about() is About.MOMENT:
            return Retry(f"the receiver answered {refusal}")
        return Reject(f"the receiver answered {refusal}")
    return judge(replace(answer, body=str(refusal).removeprefix(f"{answer.status} ").encode()))


def judge_items(answer: Answer, count: int) -> Verdict:
    """Turn the answer document by document into a verdict; one that does not name each of them proves nothing."""
    if answer.body.count(CREATED) == count and ERROR not in answer.body:  # as nearly always; a quote in a text has a \\
        return Delivered()
    items = _items(answer)
    if items is None or len(items) != count:
        cut = "" if answer.complete else " (the answer was cut off)"
        reason = (
            f"the answer names {'no' if items is None else len(items)} documents of {count}{cut}: "
            f"{readable(answer.body)}"
        )
        return Retry(f"{reason}; check the option url", MISCONFIGURED_WAIT, misconfigured=answer.complete)
    retry: dict[int, str] = {}
    rejected: dict[int, str] = {}
    misconfigured = ""
    for place, item in enumerate(items):
        if 200 <= item.status < 300 or (item.status, item.kind) == ALREADY_THERE:
            continue
        said = f"the receiver answered {item.status} {item.kind} for a document{item.why()}"
        match item.about():
            case About.CLUSTER:
                retry[place] = misconfigured = f"{said}; check the credentials and the rights of their user"
            case About.MOMENT:
                retry[place] = said
            case About.DOCUMENT:
                rejected[place] = said
    if not retry and not rejected:
        return Delivered()
    why = misconfigured or next(iter(retry.values()), "")
    return Partial(frozenset(retry), rejected, why, misconfigured=bool(misconfigured))


def is_foreign(answer: Answer) -> bool:
    """Whether a refusal is not one of Elasticsearch or OpenSearch, which say in JSON what is wrong."""
    return answer.status in (400, 404, 405) and _whole(answer) is None


def refusal_text(answer: Answer) -> str:
    """What a refused request was answered, without content."""
    refusal = _whole(answer)
    return str(refusal) if refusal else f"{answer.status} {readable(answer.body)}".strip()


def without_content(reason: str) -> str:
    """The reason up to the first thing in quotes or brackets that may come from an event: only names and numbers are
    kept.
    """
    reason = PREVIEW.split(reason, maxsplit=1)[0]
    for found in QUOTED.finditer(reason):
        word, _, number = found.groups()
        named = word in NAMING and not reason[: found.start(2)].rstrip().endswith("date field")
        if not named and not number:
            reason = f"{reason[: found.end(2)]}…"
            break
    return _clipped(reason)


def _clipped(reason: str) -> str:
    text = " ".join(reason.split())
    return text if len(text) <= REFUSAL_LENGTH else f"{text[: REFUSAL_LENGTH - 1]}…"


def _denied(reason: str) -> Denied:
    return Denied(reason)


def _items(answer: Answer) -> list[Refusal] | None:
    """What is said of each document, or None when this is not an answer of a bulk API."""
    try:
        found = [next(iter(item.values())) for item in orjson.loads(answer.body)["items"]]
        return [_refusal(int(item["status"]), item.get("error", {})) for item in found]
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return None


def _whole(answer: Answer) -> Refusal | None:
    """Why the whole request was refused, None when the answer does not look like one of either product."""
    try:
        said = orjson.loads(answer.body)
        error = said["error"]
        return _refusal(answer.status, error if isinstance(error, dict) else {"reason": str(error)})
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _refusal(status: int, error: dict[str, Any]) -> Refusal:
    return Refusal(status, str(error.get("type", "")), str(error.get("reason", "")), _cause(error.get("caused_by")))


def _cause(cause: object) -> str:
    """The type of the innermost cause, and its reason up to the first thing in quotes or brackets, which may be a
    value.
    """
    if not isinstance(cause, dict):
        return ""
    inner = _cause(cause.get("caused_by"))
    if inner:
        return inner
    reason = re.split(r"""\[|"|(?<!\w)'""", str(cause.get("reason") or ""), maxsplit=1)[0].strip().rstrip(":")
    return f"{cause.get('type', '')}: {reason}"[:REFUSAL_LENGTH].rstrip(": ")
