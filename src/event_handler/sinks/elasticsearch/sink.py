"""Delivers to Elasticsearch 8 and 9 or to OpenSearch with the bulk API, so that an event sent twice is stored once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from urllib.parse import quote

import structlog
from yarl import URL

from event_handler.event import Event
from event_handler.ports import Limits, Retry, Verdict
from event_handler.sinks.elasticsearch.answers import is_foreign, judge_bulk
from event_handler.sinks.elasticsearch.documents import bulk_lines
from event_handler.sinks.elasticsearch.install import Installer
from event_handler.sinks.elasticsearch.login import ElasticsearchLogin
from event_handler.sinks.elasticsearch.options import ElasticsearchOptions, check_target
from event_handler.sinks.http import KEEPALIVE, Answer

BULK_EVENTS = 1000  # documents of a request; Elastic advises 1,000 to 5,000, and a lost answer repeats all of them
BULK_BYTES = (
    4 * 1024 * 1024
)  # bytes; even doubled by quoting they stay below the 10 MiB that small OpenSearch nodes of AWS take
# seconds an incomplete batch waits for more events; a bulk of a few costs the cluster as much as one of hundreds
BULK_AGE = 0.5
BULK_ANSWER_LIMIT = 8 * 1024 * 1024  # bytes; 1,000 refusals with their reasons are below 1 MiB
FOREIGN_BEFORE_PLAIN = (
    2  # refusals that are not Elasticsearch's, before the plain path is tried; one may be about an event
)
# All that is read of an answer.
ANSWER_FIELDS = "errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by"

log = structlog.get_logger()


class ElasticsearchSink:
    """An `elasticsearch` sink. `keepalive` is how long an idle connection is kept, in seconds.

    Raises SinkError when the options contradict one another or the TLS files cannot be used.
    """

    def __init__(
        self,
        options: ElasticsearchOptions,
        name: str = "elasticsearch",
        section: str = "forward.elasticsearch",
        *,
        keepalive: float = KEEPALIVE,
    ) -> None:
        self.name = name
        self._options = options
        self.limits = Limits(BULK_EVENTS, BULK_BYTES, options.max_connections, BULK_AGE)
        self._base = options.address(options.url, f"{section}.url")
        targets = (
            check_target(options.target, f"{section}.target"),
            check_target(options.session_target, f"{section}.session-target"),
        )
        self._login = ElasticsearchLogin(options, section, self._base)
        self._client = options.client(
            section,
            {"Content-Type": "application/x-ndjson", "Accept": "application/json", **self._login.headers()},
            keepalive=keepalive,
            answer_limit=BULK_ANSWER_LIMIT,
            sign=self._login.sign,
        )
        install = options.template == "install"
        self._installer = Installer(self._client, self._base, targets, section) if install else None
        # A path with the target also works where `rest.action.multi.allow_explicit_index` forbids to name it in the
        # lines, but some receivers, as Fluent Bit, know the plain path only.
        self._in_path = True
        self._foreign = 0  # refusals there that were not Elasticsearch's
        self._path_works = False  # it has taken a request there, so a refusal is not about the path

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        if self._login.changed():
            for name, value in self._login.headers().items():
                self._client.set_header(name, value)
        if self._installer and (hindrance := await self._installer.ensure()):
            return hindrance
        target = self._options.session_target if events[0].session_id else self._options.target
        answer = await self._send(events, target, in_path=self._in_path)
        if isinstance(answer, Retry):
            return answer
        if answer.status in (401, 403):
            self._login.refused()
        if self._in_path and not self._path_works:
            self._foreign += is_foreign(answer)
            if is_foreign(answer) and self._foreign >= FOREIGN_BEFORE_PLAIN:
                return await self._try_plain_path(events, target, answer)
            self._path_works = 200 <= answer.status < 300
        return judge_bulk(answer, len(events))

    async def _send(self, events: Sequence[Event], target: str, *, in_path: bool) -> Answer | Retry:
        body = await asyncio.to_thread(bulk_lines, events, self._options.document, "" if in_path else target)
        return await self._client.post(bulk_url(self._base, target if in_path else ""), body)

    async def _try_plain_path(self, events: Sequence[Event], target: str, first: Answer) -> Verdict:
        """Send to `/_bulk` what `/<target>/_bulk` was refused by something that is not Elasticsearch.

        Keep to it if that is taken.
        """
        answer = await self._send(events, target, in_path=False)
        if isinstance(answer, Answer) and 200 <= answer.status < 300:
            said = judge_bulk(answer, len(events))
            if not isinstance(said, Retry):
                self._in_path = False
                log.info(
                    "the receiver takes bulk requests at /_bulk only, the index is named in each action line from now "
                    "on"
                )
                return said
        return judge_bulk(first, len(events))

    async def reopen(self) -> None:
        self._client.reload()

    async def close(self) -> None:
        await self._client.close()
        await self._login.close()


def bulk_url(base: URL, target: str) -> URL:
    """`/<target>/_bulk`, or `/_bulk` without a target, below the path of `base` and with its query."""
    place = f"/{quote(target, safe='')}" if target else ""
    path = f"{base.raw_path.rstrip('/')}{place}/_bulk"
    return base.with_path(path, encoded=True, keep_query=True).update_query(filter_path=ANSWER_FIELDS)
