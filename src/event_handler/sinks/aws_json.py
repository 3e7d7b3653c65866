"""Calls the services of AWS that speak JSON, and judges their errors, which have the same names in all of them.

Facts: "AWS JSON 1.0 protocol" of Smithy, and "Common Error Types" of each service's API reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal

from event_handler.ports import Delivered, Denied, Reject, Retry, Split, Verdict
from event_handler.setting import Setting
from event_handler.sinks.answers import judge, partly, readable, unproven
from event_handler.sinks.aws_client import AwsClient, error_of, object_of
from event_handler.sinks.aws_options import AwsOptions
from event_handler.sinks.http import KEEPALIVE, MISCONFIGURED_WAIT, Answer

AWS_ANSWER_LIMIT = 1024 * 1024  # bytes; 500 refusals with their reasons are some 200 KiB


class AwsJsonOptions(AwsOptions):
    """Of all options of AWS, those of a service that speaks JSON: it unpacks no bodies."""

    compression: Annotated[Literal["none"], Setting("choice", "bodies go out as they are: AWS unpacks none")] = "none"


class About(Enum):
    """What an error is about, as far as its code tells."""

    MOMENT = "the moment"  # it passes
    CREDENTIALS = "the credentials"  # they are of no use any more, others may be
    RIGHTS = "the credentials' rights"
    RESOURCE = "the stream, queue or group"
    SIZE = "the size of the request"
    CONTENT = "the content"


CODES = {
    about: frozenset(codes.split())
    for about, codes in {
        About.MOMENT: "InternalError InternalFailure InternalServerError InternalServiceError LimitExceededException"
        " OverLimit PriorRequestNotComplete ProvisionedThroughputExceededException RequestLimitExceeded"
        " RequestThrottled RequestTimeout ServiceUnavailable ServiceUnavailableException Throttling"
        " ThrottlingException TooManyRequestsException KMSThrottlingException KmsThrottled"
        " OperationAbortedException",
        About.CREDENTIALS: "ExpiredToken ExpiredTokenException RequestExpired TokenRefreshRequired",
        About.RIGHTS: "AccessDenied AccessDeniedException IncompleteSignature IncompleteSignatureException"
        " InvalidAccessKeyId InvalidClientTokenId InvalidSecurity InvalidSignatureException InvalidKMSResourceException"
        " KMSAccessDeniedException KMSDisabledException KMSInvalidStateException KMSNotFoundException KMSOptInRequired"
        " KmsAccessDenied KmsDisabled KmsInvalidKeyUsage KmsInvalidState KmsNotFound KmsOptInRequired"
        " MissingAuthenticationToken MissingAuthenticationTokenException NotAuthorized OptInRequired"
        " SignatureDoesNotMatch SubscriptionRequiredException UnrecognizedClientException",
        About.RESOURCE: "NonExistentQueue QueueDoesNotExist QueueDeletedRecently ResourceNotFoundException"
        " InvalidAddress InvalidSourceException UnsupportedOperation",
        About.SIZE: "BatchRequestTooLong RequestEntityTooLarge RequestEntityTooLargeException",
        About.CONTENT: "InvalidArgumentException InvalidMessageContents InvalidParameterException"
        " InvalidParameterValue SerializationException ValidationError ValidationException",
    }.items()
}
ABOUT = {code: about for about, codes in CODES.items() for code in codes}
CLOCK = "Signature expired", "Signature not yet current"  # how the message begins when the clocks differ
NOT_PASSING = frozenset({About.CREDENTIALS, About.RIGHTS, About.RESOURCE})  # until a person changes something


@dataclass(frozen=True, slots=True)
class Said:
    """What an action was answered: the object of a 2xx answer, None where it is none, or the code of an error and what
    that means for the events.
    """

    content: dict[str, Any] | None
    code: str
    verdict: Verdict | None
    answer: Answer | None = None

    def proves_nothing(self, what: str) -> Retry:
        """A Retry because of a 2xx answer of which it cannot be said that it `what`."""
        return unproven(self.answer, f"the answer {what}")


class AwsJson:
    """A service: `target` begins the names of its actions, `resource` is the option that names where events go.

    Raises SinkError for options that cannot be used.
    """

    def __init__(
        self,
        options: AwsOptions,
        section: str,
        service: str,
        target: str,
        *,
        resource: str,
        version: str = "1.1",
        keepalive: float = KEEPALIVE,
    ) -> None:
        self._section = section
        self._resource = f"{section}.{resource}"
        self._target = target
        self._type = f"application/x-amz-json-{version}"
        self._client = AwsClient(
            options,
            section,
            service,
            self._type,
            ended=CODES[About.CREDENTIALS],
            refused=CODES[About.RIGHTS],
            keepalive=keepalive,
            answer_limit=AWS_ANSWER_LIMIT,
        )

    async def call(self, action: str, body: bytes) -> Said:
        """What an action was answered."""
        headers = {"Content-Type": self._type, "X-Amz-Target": f"{self._target}.{action}"}
        answer = await self._client.ask("POST", self._client.url, body, headers)
        if isinstance(answer, Retry):
            return Said(None, "", answer)
        if 200 <= answer.status < 300:
            return Said(object_of(answer), "", None, answer)
        code, message = error_of(answer)
        return Said(None, code, self._judge(answer, code, message), answer)

    def _judge(self, answer: Answer, code: str, message: str) -> Verdict:
        """What an error means for the events. One whose name is not known is no reason to drop them."""
        if not code:
            return judge(answer)
        reason = f"the service answered {answer.status} {code}: {message}".rstrip(": ")
        about = ABOUT.get(code)
        if about is About.SIZE:
            return Split(reason)
        if about is About.CONTENT:
            return Reject(reason)
        if about is About.MOMENT or (about is None and answer.status >= 500):
            return Retry(reason)
        return self.refused(code, reason, message)

    def refused(self, code: str, reason: str, message: str = "") -> Retry:
        """A Retry that tells a person what to check."""
        about = ABOUT.get(code)
        if about is About.CREDENTIALS:
            return Retry(f"{reason}; renew the credentials of {self._section}", MISCONFIGURED_WAIT, misconfigured=True)
        if message.startswith(CLOCK):
            return Retry(f"{reason}; check the clock of this machine", MISCONFIGURED_WAIT, misconfigured=True)
        if about is About.RESOURCE:
            return Retry(
                f"{reason}; check {self._resource} and {self._section}.region", MISCONFIGURED_WAIT, misconfigured=True
            )
        advice = "check the access key and what its policy allows"
        return Denied(f"{reason}; {advice} ({self._section}.access-key-id, {self._section}.role-arn)")

    def reload(self) -> None:
        self._client.reload()

    async def close(self) -> None:
        await self._client.close()


def of_records(service: AwsJson, said: Said, count: int, name: str, done: str) -> Verdict:
    """A verdict for an answer whose list `name` has, for each record, `done` in it or an ErrorCode."""
    records = (said.content or {}).get(name)
    if not isinstance(records, list) or len(records) != count or not all(isinstance(one, dict) for one in records):
        return said.proves_nothing(f"names each of the {count} records")
    failed = {place: one for place, one in enumerate(records) if one.get("ErrorCode") or not one.get(done)}
    if not failed:
        return Delivered()
    worst = max(failed.values(), key=lambda one: ABOUT.get(one.get("ErrorCode")) in NOT_PASSING)
    code, message = str(worst.get("ErrorCode", "")), readable(str(worst.get("ErrorMessage", "")).encode())
    reason = f"{len(failed)} of {count} records were not taken: {code} {message}".rstrip()
    why = service.refused(code, reason) if ABOUT.get(code) in NOT_PASSING else Retry(reason)
    if len(failed) == count:
        return why
    return partly(frozenset(failed), why)
