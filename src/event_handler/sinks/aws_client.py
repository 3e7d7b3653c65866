"""Sends signed requests to one service of AWS, and takes credentials anew when those it has are of no use any more."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from yarl import URL

from event_handler.ports import Retry
from event_handler.sinks.answers import json_of, readable
from event_handler.sinks.aws_credentials import AwsAccess
from event_handler.sinks.aws_options import AwsOptions
from event_handler.sinks.aws_sts import element
from event_handler.sinks.http import ANSWER_LIMIT, KEEPALIVE, Answer


class AwsClient:
    """A client of a service. With an error of a code in `ended` the credentials have ended, with one in `refused` they
    are perhaps those of a key that was taken away.

    Raises SinkError for options that cannot be used.
    """

    def __init__(
        self,
        options: AwsOptions,
        section: str,
        service: str,
        content_type: str,
        *,
        ended: Collection[str],
        refused: Collection[str],
        keepalive: float = KEEPALIVE,
        answer_limit: int = ANSWER_LIMIT,
        status_only: bool = False,
    ) -> None:
        self.access = AwsAccess(options, section, service)
        self.url: URL = self.access.url(options.url)
        self._ended, self._refused = ended, refused
        self._client = options.client(
            section,
            {"Content-Type": content_type},
            keepalive=keepalive,
            answer_limit=answer_limit,
            status_only=status_only,
        )

    async def ask(self, method: str, url: URL, body: bytes, headers: Mapping[str, str]) -> Answer | Retry:
        """The answer, or why there is none. Credentials that have ended are taken anew once."""
        answer, number = await self._ask(method, url, body, headers)
        if _code(answer) in self._ended:
            self.access.renew(number)
            answer, number = await self._ask(method, url, body, headers)
        if _code(answer) in self._refused:  # others may be there by now
            self.access.renew(number)
        return answer

    async def _ask(self, method: str, url: URL, body: bytes, headers: Mapping[str, str]) -> tuple[Answer | Retry, int]:
        """The answer, and the number of the credentials that signed the request."""
        signed = await self.access.sign(method, url, body, headers)
        number = self.access.number
        if isinstance(signed, Retry):
            return signed, number
        return await self._client.request(method, url, body, signed), number

    def reload(self) -> None:
        self._client.reload()

    async def close(self) -> None:
        await self._client.close()
        await self.access.close()


def _code(answer: Answer | Retry) -> str:
    return "" if isinstance(answer, Retry) else error_of(answer)[0]


def error_of(answer: Answer) -> tuple[str, str]:
    """Code and message of an error, ("", "") for a success and for an answer that is none of AWS's.

    The code may stand behind a name space (`com.amazonaws.sqs#QueueDoesNotExist`) and before an address. What refuses
    a signature in front of a service may answer in XML.
    """
    if answer.status >= 300 and answer.body.lstrip().startswith(b"<?xml"):
        text = answer.body.decode("utf-8", "replace")
        return element(text, "Code"), readable(element(text, "Message").encode())
    said = (object_of(answer) or {}) if answer.status >= 300 else {}
    code = str(said.get("__type", "")).rpartition("#")[2].partition(":")[0].rpartition(".")[2]
    return code, readable(str(said.get("message") or said.get("Message") or "").encode())


def object_of(answer: Answer) -> dict[str, Any] | None:
    """The object that stands in an answer as JSON."""
    found = json_of(answer)
    return found if isinstance(found, dict) else None
