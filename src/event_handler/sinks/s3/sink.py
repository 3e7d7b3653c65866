"""Puts objects into a bucket: those of a batch side by side, and no event into two."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from time import monotonic

import structlog
from yarl import URL

from event_handler.errors import SinkError, StateError
from event_handler.event import Event
from event_handler.ports import Delivered, Limits, Notes, Retry, Verdict
from event_handler.sinks.answers import partly
from event_handler.sinks.aws_client import AwsClient, error_of
from event_handler.sinks.http import KEEPALIVE, PACK_ASIDE, Answer
from event_handler.sinks.s3.answers import ENDED_KEY, KEY_CODES, judge_put
from event_handler.sinks.s3.intents import Intent, Intents
from event_handler.sinks.s3.objects import ObjectFormat, checked_prefix, digest_of, groups, object_name, period_of
from event_handler.sinks.s3.options import OBJECT_ROOM, S3Options

# Objects in flight for each batch in flight: a batch of a sparse log may have hundreds, of an hour each, and a store
# that is asked for so many at once refuses some.
OBJECTS_A_BATCH = 4
SETTLED_AFTER = 5.0  # seconds after which an object that nobody sends any more is in the bucket, or never will be
NO_OBJECT_CODES = frozenset({"", "NoSuchKey"})  # codes of a 404 about an object
NO_LISTING_CODES = frozenset({"", "AccessDenied"})  # codes of a 403 to whom may not list the bucket
ENCRYPTIONS = {"s3": "AES256", "kms": "aws:kms"}

log = structlog.get_logger()


class S3Sink:
    """An `s3` sink. Raises SinkError when the options or the credentials in them cannot be used."""

    def __init__(
        self,
        options: S3Options,
        name: str,
        section: str,
        *,
        keepalive: float = KEEPALIVE,
        settled_after: float = SETTLED_AFTER,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        if not options.bucket:
            raise SinkError(f"{section}.bucket is missing", "Set it to the name of the bucket.")
        self.name = name
        self.limits = Limits(
            options.object_events,
            options.object_bytes,
            options.max_connections,
            options.object_age,
            room=OBJECT_ROOM,
        )
        self._section = section
        self._prefix = checked_prefix(options.prefix, f"{section}.prefix")
        self._period = period_of(self._prefix)
        self._format = ObjectFormat(options, section)
        self._client = AwsClient(
            options,
            section,
            "s3",
            self._format.content_type,
            ended=ENDED_KEY,
            refused=KEY_CODES - ENDED_KEY,
            keepalive=keepalive,
            status_only=True,
        )
        self._bucket = bucket_url(self._client.url, options)
        self._headers = about_objects(options, section, self._format.content_type)
        self._intents = Intents()
        self._puts = asyncio.Semaphore(OBJECTS_A_BATCH * options.max_connections)
        self._settled_after = settled_after
        self._clock = clock
        self._cannot_ask = False

    async def remember_in(self, notes: Notes) -> None:
        await self._intents.load(notes, self._clock())

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        digests = [digest_of(event) for event in events]
        objects = self._objects(events, digests, frozenset())
        for intent in self._intents.unknown(digests):
            if intent.name not in objects and (unsettled := await self._look(intent)) is not None:
                return unsettled
        if stored := self._intents.stored():
            objects = self._objects(events, digests, stored)
        try:
            intents = await self._intents.begin(
                {name: [digests[place] for place in places] for name, places in objects.items()}
            )
        except StateError as error:
            return Retry(f"cannot remember what is about to be sent: {error}")
        verdict = await self._put_all(events, intents, list(objects.values()))
        if isinstance(verdict, Delivered):
            self._intents.delivered(digests)
        return verdict

    def _objects(
        self, events: Sequence[Event], digests: Sequence[bytes], stored: frozenset[bytes]
    ) -> dict[str, list[int]]:
        """The places of the events of each object by its name, without those that are `stored`."""
        found = {}
        for group in groups(events, self._period):
            places = [place for place in group if digests[place] not in stored] if stored else group
            if places:
                chosen, of_chosen = [events[place] for place in places], [digests[place] for place in places]
                found[object_name(self._prefix, self._format.suffix, chosen, of_chosen)] = places
        return found

    async def _put_all(self, events: Sequence[Event], intents: Sequence[Intent], places: list[list[int]]) -> Verdict:
        """Send the objects of a batch side by side, for a sparse log has many small ones."""
        said = await asyncio.gather(
            *(
                self._put(intent, [events[place] for place in group])
                for intent, group in zip(intents, places, strict=True)
            )
        )
        failed = [
            (verdict, group) for verdict, group in zip(said, places, strict=True) if not isinstance(verdict, Delivered)
        ]
        if not failed:
            return Delivered()
        worst = max((verdict for verdict, _ in failed), key=lambda one: isinstance(one, Retry) and one.misconfigured)
        if len(intents) == 1 or (len(failed) == len(intents) and isinstance(worst, Retry)):
            return worst
        left = frozenset(place for _, group in failed for place in group)
        return partly(left, worst)  # what is too large comes again, alone at last

    async def _put(self, intent: Intent, events: Sequence[Event]) -> Verdict:
        try:
            large = sum(len(event.body) for event in events) >= PACK_ASIDE
            body = await asyncio.to_thread(self._format.body, events) if large else self._format.body(events)
            digest = hashlib.md5(body, usedforsecurity=False).digest()
            headers = {**self._headers, "Content-MD5": base64.b64encode(digest).decode()}
            async with self._puts:
                answer = await self._ask("PUT", intent.name, body, headers)
        except BaseException:
            intent.lost(self._clock())
            raise
        if isinstance(answer, Retry):
            if answer.unanswered:
                intent.lost(self._clock())
            else:
                intent.refused(self._clock())
            return answer
        said = judge_put(answer, self._section)
        if isinstance(said, Delivered):
            intent.settle()
        elif answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            intent.lost(self._clock())  # it may be there all the same
        else:
            intent.refused(self._clock())
        return said

    async def _look(self, intent: Intent) -> Retry | None:
        """Find out whether the bucket has the object of an intent; a Retry while that cannot be said."""
        answer = await self._ask("GET", intent.name, b"", {"Range": "bytes=0-0"})  # nothing but whether it is there
        if isinstance(answer, Retry):
            return answer
        if answer.status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            intent.found()
            return None
        code, _ = error_of(answer)
        absent = answer.status == HTTPStatus.NOT_FOUND and code in NO_OBJECT_CODES
        closed = answer.status == HTTPStatus.FORBIDDEN and code in NO_LISTING_CODES
        if not absent and not closed:  # about the key, the clock or the bucket, so that nothing is said of the object
            said = judge_put(answer, self._section)
            return said if isinstance(said, Retry) else Retry(f"the bucket does not say what it has: {answer.status}")
        if closed and not self._cannot_ask:
            self._cannot_ask = True
            log.warning(
                "the bucket does not say which objects it has, so events may be in two after a crash",
                sink=self.name,
                next_step="Allow s3:GetObject on its objects and s3:ListBucket on the bucket.",
            )
        wait = (intent.unknown_since or 0.0) + self._settled_after - self._clock()
        if wait > 0.0 and absent:
            return Retry("it is not known yet whether the last object has arrived", after=wait)
        intent.settle()
        return None

    async def _ask(self, method: str, name: str, body: bytes, headers: Mapping[str, str]) -> Answer | Retry:
        return await self._client.ask(method, self._bucket.joinpath(*name.split("/")), body, headers)

    async def reopen(self) -> None:
        self._client.reload()

    async def close(self) -> None:
        await self._client.close()


def bucket_url(service: URL, options: S3Options) -> URL:
    """Where the bucket is: in a host of its own at AWS, in the path behind an address of one's own."""
    in_path = bool(options.url) if options.path_style is None else options.path_style
    if in_path or (not options.url and "." in options.bucket):  # AWS's certificate has no name for a bucket with dots
        return service / options.bucket
    return service.with_host(f"{options.bucket}.{service.raw_host}")


def about_objects(options: S3Options, section: str, content_type: str) -> dict[str, str]:
    """The headers of every object. Raises SinkError for a key of KMS or of the bucket without that encryption."""
    if options.kms_key and options.encryption != "kms":
        raise SinkError(f"{section}.kms-key is set, and {section}.encryption is not kms", "Set both, or none.")
    if options.bucket_key and options.encryption != "kms":
        raise SinkError(f"{section}.bucket-key is set, and {section}.encryption is not kms", "Set both, or none.")
    named = {
        "Content-Type": content_type,
        "x-amz-server-side-encryption": ENCRYPTIONS.get(options.encryption, ""),
        "x-amz-server-side-encryption-aws-kms-key-id": options.kms_key,
        "x-amz-server-side-encryption-bucket-key-enabled": "true" if options.bucket_key else "",
        "x-amz-storage-class": options.storage_class,
        "x-amz-expected-bucket-owner": options.bucket_owner,
    }
    return {name: value for name, value in named.items() if value}
