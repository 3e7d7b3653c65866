"""Finds the AWS credentials to sign with, in the order of AWS's own tools, and fetches others before they end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from time import time

import structlog
from yarl import URL

from event_handler.errors import SinkError
from event_handler.ports import Retry
from event_handler.sinks.aws_metadata import Found
from event_handler.sinks.aws_options import AwsLoginOptions, region_of, service_url
from event_handler.sinks.aws_signing import AwsCredentials, signed
from event_handler.sinks.aws_sources import Source, sources
from event_handler.sinks.aws_sts import Sts
from event_handler.sinks.http import MISCONFIGURED_WAIT

AGAIN_AFTER = 30.0  # seconds until it is tried again to renew credentials that are still good

log = structlog.get_logger()


class AwsAccess:
    """Signs the requests of a sink to one service. `section` is the sink's table, for errors.

    Raises SinkError for options that cannot be used.
    """

    def __init__(
        self,
        options: AwsLoginOptions,
        section: str,
        service: str,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._options = options
        self._section = section
        self._service = service
        self.region = region_of(options, section, environment)
        sts_url = service_url(options, "sts", self.region, options.sts_endpoint, f"{section}.sts-endpoint")
        self._sts = Sts(options, sts_url, self.region, section)
        self._keeper = Keeper(sources(options, section, environment, self._sts), section)
        if options.role_arn:
            self._keeper = Keeper([Role(self._keeper, self._sts, options)], section)
        elif options.external_id:
            raise SinkError(f"{section}.external-id is set without {section}.role-arn", "Set both.")

    def url(self, given: str) -> URL:
        """Where the service is asked: what was `given` in the option `url`, or AWS's address. Raises SinkError."""
        return service_url(self._options, self._service, self.region, given, f"{self._section}.url")

    async def sign(self, method: str, url: URL, body: bytes, headers: Mapping[str, str]) -> Mapping[str, str] | Retry:
        """The headers of a request with its signature, or why there are no credentials. It is an `http.Sign`."""
        credentials = await self._keeper.get()
        if isinstance(credentials, Retry):
            return credentials
        moment = datetime.now(UTC)
        return signed(credentials, self.region, self._service, moment, method, url, body, headers)

    @property
    def number(self) -> int:
        """How often credentials were found: the number of those that are kept."""
        return self._keeper.found

    def renew(self, number: int) -> None:
        """The service does not take the credentials of that number: look for others, unless there are some already."""
        if number == self._keeper.found:
            self._keeper.forget()

    async def close(self) -> None:
        await self._sts.close()


class Keeper:
    """Keeps the credentials of the first source that has some, until it is time to renew them.

    `found` counts how often it got some.
    """

    def __init__(self, sources: Sequence[Source], section: str) -> None:
        self._sources = sources
        self._section = section
        self._kept: AwsCredentials | None = None
        self.found = 0
        self._not_before = 0.0
        self._asking = asyncio.Lock()

    async def get(self) -> AwsCredentials | Retry:
        async with self._asking:
            now = time()
            kept = self._kept
            if kept is not None and (now < kept.renew or (now < self._not_before and now < kept.expires)):
                return kept
            found = await self._look()
            if isinstance(found, AwsCredentials):
                self._kept = found
                self.found += 1
            elif kept is not None and time() < kept.expires:
                self._not_before = now + AGAIN_AFTER
                log.warning("AWS credentials cannot be renewed, the old ones stay while they last", error=found.reason)
                return kept
            return found

    def forget(self) -> None:
        self._kept = None
        for source in self._sources:
            if isinstance(source, Role):
                source.keeper.forget()

    async def _look(self) -> AwsCredentials | Retry:
        tried = []
        for source in self._sources:
            found = await source.find()
            if not isinstance(found, str):
                return found
            tried.append(f"{source.name} ({found})")
        reason = f"there are no AWS credentials for {self._section}; tried: {', '.join(tried)}"
        return Retry(reason, MISCONFIGURED_WAIT, misconfigured=True)


class Role:
    """A role that is assumed with the credentials of another keeper."""

    name = "role-arn"

    def __init__(self, keeper: Keeper, sts: Sts, options: AwsLoginOptions) -> None:
        self.keeper = keeper
        self._sts = sts
        self._options = options

    async def find(self) -> Found:
        found = await self.keeper.get()
        if isinstance(found, Retry):
            return found
        return await self._sts.assume_role(found, self._options.role_arn, self._options.external_id)
