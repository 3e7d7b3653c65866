"""Turns what S3 answers into a verdict.

Facts: Amazon S3 API Reference, "Error responses" (codes).
"""

from __future__ import annotations

from event_handler.ports import Delivered, Denied, Retry, Split, Verdict
from event_handler.sinks.answers import judge, readable
from event_handler.sinks.aws_client import error_of
from event_handler.sinks.http import MISCONFIGURED_WAIT, Answer

S3_BUSY = frozenset(
    {"InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable", "SlowDown", "ThrottlingException"}
)
ENDED_KEY = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired"})  # of the credentials
KEY_CODES = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "NotSignedUp", "InvalidSecurity", *ENDED_KEY})
REGION_CODES = frozenset({"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"})
BUCKET_CODES = frozenset({"InvalidBucketName", "NoSuchBucket"})


def judge_put(answer: Answer, section: str) -> Verdict:
    """A verdict about an object that was sent."""
    code, message = error_of(answer)
    if 200 <= answer.status < 300:
        return Delivered()
    reason = f"the bucket answered {answer.status} {code or readable(answer.body)}"
    reason = f"{reason}: {message}" if message else reason.strip()
    if code == "EntityTooLarge" or answer.status == 413:
        return Split(reason)
    if code in S3_BUSY:
        return Retry(reason)
    if code == "RequestTimeTooSkewed":
        return Retry(f"{reason}; check the clock of this machine", MISCONFIGURED_WAIT, misconfigured=True)
    advice = _advice(code, section)
    if advice:
        return Denied(f"{reason}; {advice}")
    if answer.status == 403:
        return Denied(
            f"{reason}; the policy must allow s3:PutObject, and with KMS kms:GenerateDataKey: check {section}.bucket,"
            f" {section}.bucket-owner and {section}.role-arn"
        )
    if code and answer.status == 400:  # never about the events, of which S3 reads nothing
        return Denied(f"{reason}; check {section}.bucket and {section}.url")
    return judge(answer)


def _advice(code: str, section: str) -> str:
    if code in KEY_CODES:
        return f"check {section}.access-key-id and its secret"
    if code in REGION_CODES or code == "TemporaryRedirect":
        return f"the bucket is in another region: check {section}.region"
    if code in BUCKET_CODES:
        return f"create it, or check {section}.bucket"
    if code.startswith("KMS"):
        return f"check {section}.kms-key"
    if code == "NotImplemented":
        return f"this store cannot do it: check {section}.encryption and {section}.storage-class"
    if code == "InvalidStorageClass":
        return f"check {section}.storage-class"
    return ""
