"""What a refusal is about, row by row, and that a reason names the field and never shows a value."""

from __future__ import annotations

import orjson
import pytest

from event_handler.ports import Delivered, Partial, Reject, Retry, Split
from event_handler.sinks.elasticsearch.answers import REFUSAL_LENGTH, judge_bulk, without_content
from event_handler.sinks.http import Answer

SHARDS = (
    "Validation Failed: 1: this action would add [2] total shards, but this cluster currently has [1]/[1] maximum "
    "shards open;"
)
ALIAS = "no write index is defined for alias [t]. The write index may be explicitly disabled using is_write_index=false"
STRICT = "mapping set to strict, dynamic introduction of [a] within [_doc] is not allowed"
IMMENSE = (
    'Document contains at least one immense term in field="f._value" (whose UTF8 encoding is longer than the max '
    "length 32766)"
)
ILLEGAL = "illegal_argument_exception"

CLUSTER = [
    (401, "security_exception", "missing authentication credentials for REST request [/t/_bulk]"),
    (403, "security_exception", "action [indices:data/write/bulk[s]] is unauthorized for user [writer]"),
    (403, "cluster_block_exception", "index [t] blocked by: [FORBIDDEN/8/index write (api)];"),
    (
        429,
        "cluster_block_exception",
        "index [t] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark];",
    ),
    (400, "index_closed_exception", "closed"),
    (404, "index_not_found_exception", "no such index [t] and [action.auto_create_index] is [false]"),
    (400, "invalid_index_name_exception", "Invalid index name [T], must be lowercase"),
    (400, "invalid_index_template_exception", "index_template [t] invalid"),
    (400, "validation_exception", SHARDS),
    (400, ILLEGAL, SHARDS),
    (400, ILLEGAL, ALIAS),
    (400, ILLEGAL, "Alias [t] has more than one index associated with it [t1, t2], can't execute a single index op"),
    (400, ILLEGAL, "pipeline with id [audit] does not exist"),
    (400, ILLEGAL, "only write ops with an op_type of create are allowed in data streams"),
    (400, ILLEGAL, "no matching index template found for data stream [t]"),
    (400, ILLEGAL, "unknown setting [index.no.such]"),
    (400, ILLEGAL, "Failed to parse value [x] for setting [index.number_of_shards] must be >= 1"),
    (400, ILLEGAL, "Failed to build analyzers: [thai]"),
]
MOMENT = [
    (408, "timeout_exception", ""),
    (409, "some_conflict_exception", ""),
    (429, "es_rejected_execution_exception", "rejected execution of coordinating operation"),
    (429, "circuit_breaking_exception", "[parent] Data too large"),
    (400, "resource_already_exists_exception", "index [t/abc] already exists"),
    (503, "unavailable_shards_exception", "[t][0] primary shard is not active"),
    (503, "process_cluster_event_timeout_exception", "failed to process cluster event (put-mapping) within 30s"),
    (500, "exception", ""),
]
DOCUMENT = [
    (400, "document_parsing_exception", "[1:15] failed to parse field [user] of type [long] in document with id 'u'"),
    (
        400,
        "mapper_parsing_exception",
        "object mapping for [a] tried to parse field [a] as object, but found a concrete value",
    ),
    (400, "strict_dynamic_mapping_exception", STRICT),
    (400, ILLEGAL, "Limit of total fields [1000] has been exceeded"),
    (400, ILLEGAL, "mapper [x] cannot be changed from type [text] to [long]"),
    (400, ILLEGAL, IMMENSE),
    (400, ILLEGAL, "data stream timestamp field [@timestamp] is missing"),
    (400, ILLEGAL, "field [zz] doesn't exist"),
    (400, "script_exception", "runtime error"),
    (500, "fail_processor_exception", "no"),
    (400, "something_new_exception", ""),
    (404, "document_missing_exception", ""),
]


def bulk(*items: tuple[int, str, str]) -> Answer:
    found = [{"create": {"status": status, "error": {"type": kind, "reason": why}}} for status, kind, why in items]
    return Answer(200, "", orjson.dumps({"errors": True, "items": found}), True)


def whole(status: int, kind: str, why: str) -> Answer:
    return Answer(status, "", orjson.dumps({"error": {"type": kind, "reason": why}, "status": status}), True)


@pytest.mark.parametrize(("status", "kind", "why"), CLUSTER)
def test_what_is_about_the_cluster_is_waited_out_and_said_in_full(status: int, kind: str, why: str) -> None:
    said = judge_bulk(bulk((status, kind, why)), 1)
    assert isinstance(said, Partial)
    assert (said.retry, dict(said.rejected), said.misconfigured) == (frozenset({0}), {}, True)
    assert f"answered {status} {kind} for a document: {why}; check the credentials" in said.reason


@pytest.mark.parametrize(("status", "kind", "why"), MOMENT)
def test_what_passes_is_sent_again(status: int, kind: str, why: str) -> None:
    said = judge_bulk(bulk((status, kind, why)), 1)
    assert isinstance(said, Partial)
    assert (said.retry, dict(said.rejected), said.misconfigured) == (frozenset({0}), {}, False)


@pytest.mark.parametrize(("status", "kind", "why"), DOCUMENT)
def test_what_is_about_the_document_is_rejected(status: int, kind: str, why: str) -> None:
    said = judge_bulk(bulk((status, kind, why)), 1)
    assert isinstance(said, Partial)
    assert not said.retry
    assert f"answered {status} {kind} for a document" in said.rejected[0]


@pytest.mark.parametrize(("status", "kind", "why"), [row for row in CLUSTER if row[0] == 400])
def test_a_request_that_is_refused_as_a_whole_for_the_clusters_sake_is_waited_out(
    status: int, kind: str, why: str
) -> None:
    said = judge_bulk(whole(status, kind, why), 2)
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert why in said.reason


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (whole(400, "parse_exception", "request body is required"), Reject),
        (whole(400, "resource_already_exists_exception", ""), Retry),
        (whole(413, "content_too_long", ""), Split),
        (whole(429, "circuit_breaking_exception", ""), Retry),
        (whole(503, "cluster_manager_not_discovered_exception", ""), Retry),
        (whole(401, "security_exception", ""), Retry),
        (whole(404, "index_not_found_exception", ""), Retry),
        (
            Answer(200, "", b'{"errors":false,"items":[{"create":{"status":201}},{"create":{"status":409}}]}', True),
            Partial,
        ),
        (Answer(502, "", b"<html>Bad Gateway</html>", True), Retry),
    ],
)
def test_other_answers_to_a_whole_request(answer: Answer, verdict: type) -> None:
    assert isinstance(judge_bulk(answer, 2), verdict)


def test_what_is_not_an_answer_of_elasticsearch_is_called_so() -> None:
    said = judge_bulk(Answer(400, "", b"error: invalid HTTP endpoint\n", True), 1)
    assert isinstance(said, Reject)
    assert "400 error: invalid HTTP endpoint" in said.reason
    assert "check the option url" in said.reason


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        (
            "failed to parse field [addr.remote] of type [ip] in document with id 'u-1'. Preview of field's value: "
            "'s3cret'",
            "failed to parse field [addr.remote] of type [ip] in document with id 'u-1'",
        ),
        ("[1:15] failed to parse: s3", "[1:15] failed to parse: s3"),
        (f"{IMMENSE}, which was skipped. The prefix of the first immense term is: '[115, "
         f"51]'", f"{IMMENSE}, which was skipped."),
        ("unable to parse date [s3cret]", "unable to parse date […"),
        ("unable to parse date [s3[c]r]et] twice", "unable to parse date […"),
        ("failed to parse date field [s3cret] with format [iso8601]", "failed to parse date field […"),
        ("Provided Grok expressions do not match field value: "
         "[s3cret]", "Provided Grok expressions do not match field value: […"),
        ('For input string: "s3cret"', 'For input string: "…'),
        ("'s3cret' is not an IP string literal.", "'…"),
        ("Failed to parse value [s3cret] as only [true] or [false] are allowed.", "Failed to parse value […"),
        ('Duplicate field \'user\'\n at [Source: (byte[])"{"user":"s3cret"}"; line: 1]', "Duplicate field 'user'"),
        ("field [zz] doesn't exist", "field [zz] doesn't exist"),
        ("Limit of total fields [1000] has been exceeded", "Limit of total fields [1000] has been exceeded"),
    ],
)  # fmt: skip
def test_a_reason_keeps_names_and_numbers_and_ends_where_a_value_may_begin(reason: str, shown: str) -> None:
    assert without_content(reason) == shown


def test_a_field_with_a_long_name_is_named_in_full() -> None:
    name = ".".join(["a_long_part_of_a_name"] * 15)
    reason = f"object mapping for [{name}] tried to parse field [x] as object, but found a concrete value"
    assert name in without_content(reason)
    assert len(without_content(f"field [{'n' * 2000}]")) == REFUSAL_LENGTH


def caused(cause: dict[str, object]) -> Answer:
    error = {"type": "mapper_parsing_exception", "reason": "failed to parse", "caused_by": cause}
    return Answer(200, "", orjson.dumps({"items": [{"create": {"status": 400, "error": error}}]}), True)


@pytest.mark.parametrize(
    ("cause", "shown"),
    [
        (
            {"type": ILLEGAL, "reason": "field name cannot be an empty string"},
            f"{ILLEGAL}: field name cannot be an empty string",
        ),
        ({"type": ILLEGAL, "reason": 'For input string: "s3cret"'}, f"{ILLEGAL}: For input string"),
        (
            {"type": "a", "reason": "b", "caused_by": {"type": "date_time_parse_exception", "reason": None}},
            "date_time_parse_exception",
        ),
        ({"type": ILLEGAL, "reason": "failed to parse date field [s3cret]"}, f"{ILLEGAL}: failed to parse date field"),
    ],
)
def test_the_cause_is_shown_without_a_value(cause: dict[str, object], shown: str) -> None:
    said = judge_bulk(caused(cause), 1)
    assert isinstance(said, Partial)
    assert (
        said.rejected[0]
        == f"the receiver answered 400 mapper_parsing_exception for a document: failed to parse: {shown}"
    )


def test_what_a_pipeline_was_told_to_say_is_not_shown() -> None:
    said = judge_bulk(bulk((500, "fail_processor_exception", "user s3cret is odd")), 1)
    assert isinstance(said, Partial)
    assert said.rejected[0] == "the receiver answered 500 fail_processor_exception for a document"


def test_documents_are_judged_each_for_itself() -> None:
    answer = bulk((201, "", ""), MOMENT[2], DOCUMENT[0], (409, "version_conflict_engine_exception", "exists"))
    said = judge_bulk(answer, 4)
    assert isinstance(said, Partial)
    assert (said.retry, list(said.rejected), said.misconfigured) == (frozenset({1}), [2], False)
    assert judge_bulk(bulk((201, "", ""), (409, "version_conflict_engine_exception", "exists")), 2) == Delivered()


@pytest.mark.parametrize(
    ("items", "delivered"),
    [
        ([(201, "", "")] * 3, True),
        ([(201, "", "")] * 2, False),  # of three
        ([(201, "", "")] * 4, False),
        ([(201, "", "")] * 2 + [(400, "mapper_parsing_exception", '"status":201')], False),
    ],
)
def test_a_bulk_is_delivered_when_every_document_of_it_was_created(
    items: list[tuple[int, str, str]], delivered: bool
) -> None:
    assert isinstance(judge_bulk(bulk(*items), 3), Delivered) is delivered
