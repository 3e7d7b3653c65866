"""Delivers to Amazon CloudWatch Logs, in the order of time and within the span of time that a request may have.

Facts: "PutLogEvents" in the CloudWatch Logs API reference, and the page of its quotas.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated

import orjson

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Limits, Partial, Reject, Retry, Split, Verdict
from event_handler.setting import Setting
from event_handler.sinks.aws_json import AwsJson, AwsJsonOptions, Said
from event_handler.sinks.fields import with_session
from event_handler.sinks.http import KEEPALIVE
from event_handler.sinks.registry import SinkType

LOG_REQUEST = 1_048_576  # bytes of all messages of a request, with 26 more for each
AROUND_MESSAGE = 26 + 110  # bytes beside the event: those 26, and the field with the session
LOG_EVENTS = 1500  # of a request; 10,000 are allowed, which only events of a hundred bytes would reach
LOG_BYTES = LOG_REQUEST - LOG_EVENTS * AROUND_MESSAGE
LOG_EVENT = LOG_REQUEST - AROUND_MESSAGE  # bytes of one event
LOG_AGE = 0.5  # seconds an incomplete batch waits for more events
LOG_SPAN = 24 * 3600 * 1000  # milliseconds from the first event of a request to its last one, at most
THERE = "ResourceAlreadyExistsException"
ABSENT = "ResourceNotFoundException"
ACCEPTED = "DataAlreadyAcceptedException"
TOO_OLD = {
    "tooOldLogEventEndIndex": "more than 14 days old, or older than the log group",
    "expiredLogEventEndIndex": "older than the retention of the log group",
}


class AwsCloudwatchOptions(AwsJsonOptions):
    """Which log group and stream, and whether they are made."""

    log_group: Annotated[str, Setting("text", "log group", required=True)] = ""
    log_stream: Annotated[str, Setting("text", "log stream in it")] = "teleport"
    create_group: Annotated[bool, Setting("flag", "make the log group when it is not there")] = False
    create_stream: Annotated[bool, Setting("flag", "make the log stream when it is not there")] = True


class AwsCloudwatchSink:
    """An `aws-cloudwatch` sink. Raises SinkError when the options cannot be used."""

    def __init__(self, options: AwsCloudwatchOptions, name: str, section: str, *, keepalive: float = KEEPALIVE) -> None:
        if not options.log_group or not options.log_stream:
            raise SinkError(f"{section}.log-group or {section}.log-stream is missing", "Set both.")
        self.name = name
        self.limits = Limits(LOG_EVENTS, LOG_BYTES, options.max_connections, LOG_AGE, event_bytes=LOG_EVENT)
        self._options = options
        self._section = section
        self._service = AwsJson(options, section, "logs", "Logs_20140328", resource="log-group", keepalive=keepalive)
        self._where = {"logGroupName": options.log_group, "logStreamName": options.log_stream}
        self._before = orjson.dumps(self._where)[:-1] + b',"logEvents":['

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        """Several requests where the events are more than a day apart, one after the other."""
        retry, rejected, why = set[int](), dict[int, str](), Retry("")
        failed: Retry | None = None
        left = list(within_days(events))[::-1]
        while left:
            places = left.pop()
            verdict = failed or await self._put([events[place] for place in places])
            if isinstance(verdict, Retry):
                why = failed = verdict
                retry.update(places)
            elif isinstance(verdict, Partial):
                rejected |= {places[place]: reason for place, reason in verdict.rejected.items()}
                retry |= {places[place] for place in verdict.retry}
                why = Retry(verdict.reason)
            elif isinstance(verdict, Reject | Split):
                if len(places) == len(events):
                    return verdict
                if len(places) == 1:
                    rejected[places[0]] = verdict.reason
                else:
                    middle = len(places) // 2
                    left += [places[middle:], places[:middle]]
        if not retry and not rejected:
            return Delivered()
        if len(retry) == len(events):
            return why
        return Partial(frozenset(retry), rejected, why.reason, why.after, why.misconfigured)

    async def _put(self, events: Sequence[Event]) -> Verdict:
        """Deliver events that are in order and within a day."""
        body = self._before + b",".join(map(_log_event, events)) + b"]}"
        said = await self._service.call("PutLogEvents", body)
        if said.code == ABSENT:
            if hindrance := await self._create(said):
                return hindrance
            said = await self._service.call("PutLogEvents", body)
        if said.code == ACCEPTED:
            return Delivered()
        if said.verdict:
            return said.verdict
        if said.content is None:
            return said.proves_nothing("is one of CloudWatch Logs")
        return judge_times(said.content.get("rejectedLogEventsInfo"), len(events))

    async def _create(self, absent: Said) -> Verdict | None:
        """Make what is absent and may be made, or say what keeps from it."""
        hindrance = absent.verdict
        steps = []
        if self._options.create_group:
            steps.append(("CreateLogGroup", {"logGroupName": self._options.log_group}))
        if self._options.create_stream:
            steps.append(("CreateLogStream", self._where))
        for action, what in steps:
            said = await self._service.call(action, orjson.dumps(what))
            hindrance = None if said.code == THERE else said.verdict
            if isinstance(hindrance, Retry) and said.code != ABSENT:
                reason = f"{action} is needed for {self._section}.log-group: {hindrance.reason}"
                return replace(hindrance, reason=reason)
        if isinstance(hindrance, Retry):
            more = f"{self._section}.create-group and {self._section}.create-stream tell what may be made"
            return replace(hindrance, reason=f"{hindrance.reason}; {more}")
        return hindrance

    async def reopen(self) -> None:
        self._service.reload()

    async def close(self) -> None:
        await self._service.close()


def within_days(events: Sequence[Event]) -> Iterator[list[int]]:
    """The places of the events in the order of their times, in groups none of which is longer than a day."""
    group: list[int] = []
    for place in sorted(range(len(events)), key=lambda place: events[place].time):
        if group and _milliseconds(events[place]) - _milliseconds(events[group[0]]) > LOG_SPAN:
            yield group
            group = []
        group.append(place)
    yield group


def _log_event(event: Event) -> bytes:
    message = orjson.dumps(with_session(event).decode())
    return b'{"timestamp":%d,"message":%b}' % (_milliseconds(event), message)


def _milliseconds(event: Event) -> int:
    """Times before 1970 are not taken: the event is refused as too old, and not the request for its form."""
    return max(0, round(event.time * 1000))


def judge_times(info: object, count: int) -> Verdict:
    """What was refused for its time: the first events, before an index, and the last ones, from an index on.

    AWS's reference says that the first index is of the first event that was taken, and also that it is of the last one
    that was refused: that event is sent again, for alone it gets a plain answer.
    """
    said = info if isinstance(info, dict) else {}
    rejected: dict[int, str] = {}
    retry: set[int] = set()
    for name, why in TOO_OLD.items():
        if isinstance(end := said.get(name), int):
            rejected |= dict.fromkeys(range(min(max(end, 1), count)), f"CloudWatch Logs refused the event: it is {why}")
            retry |= {end} if 0 < end < count else set()
    if isinstance(start := said.get("tooNewLogEventStartIndex"), int):
        why = "CloudWatch Logs refused the event: it is more than 2 hours in the future"
        rejected |= dict.fromkeys(range(max(0, start), count), why)
    retry -= set(rejected)
    if not retry and not rejected:
        return Delivered()
    return Partial(frozenset(retry), rejected, "CloudWatch Logs leaves open whether it took an event" if retry else "")


SINK = SinkType("Amazon CloudWatch Logs", AwsCloudwatchOptions, AwsCloudwatchSink)
