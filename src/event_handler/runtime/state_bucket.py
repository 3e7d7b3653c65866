"""The bucket of `storage = "s3://bucket/prefix?region=…"`: signed requests with the credentials that AWS's tools find.

Facts: Amazon S3 API Reference, "PutObject" (If-Match, If-None-Match, 409, 412); User Guide, "Conditional writes".
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from pydantic import ValidationError

from event_handler.errors import ConfigurationError, SinkError, StateError, StorageError
from event_handler.ports import Retry
from event_handler.sinks.answers import readable
from event_handler.sinks.aws_client import AwsClient, error_of
from event_handler.sinks.http import Answer
from event_handler.sinks.s3.answers import ENDED_KEY, KEY_CODES
from event_handler.sinks.s3.options import S3Options
from event_handler.sinks.s3.sink import about_objects, bucket_url
from event_handler.state.bucket import ChangedError

LARGEST_STATE = 1 << 30  # bytes; more is not kept in memory
STATE_TYPE = "application/gzip"
PARAMETERS: Final = {  # of the URL, with the fields of the options of an s3 sink
    name.replace("_", "-"): name
    for name in (
        *("region", "path_style", "profile", "role_arn", "external_id", "sts_endpoint", "ca"),
        *("encryption", "kms_key", "bucket_key", "bucket_owner"),
    )
} | {"endpoint": "url"}
RIGHTS_ON_THE_BUCKET = (
    "Allow s3:GetObject and s3:PutObject on its objects and s3:ListBucket on the bucket, and with KMS its key."
)


class S3Bucket:
    """A Bucket. Raises ConfigurationError for a URL that cannot be used."""

    def __init__(self, storage: str) -> None:
        options, self._prefix = _read(storage)
        self.place = storage.partition("?")[0].rstrip("/")
        try:
            self._client = AwsClient(
                options,
                "storage",
                "s3",
                STATE_TYPE,
                ended=ENDED_KEY,
                refused=KEY_CODES - ENDED_KEY,
                answer_limit=LARGEST_STATE,
            )
            self._headers = about_objects(options, "storage", STATE_TYPE)
        except SinkError as error:
            raise ConfigurationError(_of_the_url(error.message), _of_the_url(error.hint)) from None
        self._bucket = bucket_url(self._client.url, options)

    async def read(self, name: str) -> tuple[bytes, str] | None:
        answer = await self._ask("GET", name, b"", {})
        code, _ = error_of(answer)
        if answer.status == HTTPStatus.NOT_FOUND and code in ("", "NoSuchKey"):
            return None
        if answer.status != HTTPStatus.OK:
            raise self._refused("read", answer)
        if not answer.complete or not answer.etag:
            raise StateError(f"the state in {self.place} came only in part", "Check the way to the bucket.")
        return answer.body, answer.etag

    async def write(self, name: str, content: bytes, version: str) -> str:
        condition = {"If-Match": version} if version else {"If-None-Match": "*"}
        answer = await self._ask("PUT", name, content, {**self._headers, **condition})
        code, _ = error_of(answer)
        if answer.status == HTTPStatus.PRECONDITION_FAILED:
            raise ChangedError
        if answer.status == HTTPStatus.NOT_FOUND and version and code in ("", "NoSuchKey"):
            raise ChangedError
        if answer.status != HTTPStatus.OK:
            raise self._refused("written", answer)
        if not answer.etag:
            raise StorageError(f"the bucket {self.place} gives no ETag", "Use Amazon S3, or what speaks its protocol.")
        return answer.etag

    async def close(self) -> None:
        await self._client.close()

    async def _ask(self, method: str, name: str, body: bytes, headers: dict[str, str]) -> Answer:
        url = self._bucket.joinpath(*filter(None, f"{self._prefix}/{name}".split("/")))
        answer = await self._client.ask(method, url, body, headers)
        if isinstance(answer, Retry):
            kind = StorageError if answer.misconfigured else StateError
            raise kind(
                f"the bucket {self.place} cannot be reached ({_of_the_url(answer.reason)})",
                "Check the URL in storage and the way to the bucket.",
            )
        return answer

    def _refused(self, what: str, answer: Answer) -> StateError:
        code, message = error_of(answer)
        said = f"{code}: {message}" if code else readable(answer.body)
        text = f"the state in {self.place} cannot be {what} (the bucket answered {answer.status} {said})"
        if answer.status == HTTPStatus.NOT_IMPLEMENTED:
            return StorageError(text, "Use a bucket with conditional writes (Amazon S3, MinIO, R2).")
        if code == "NoSuchBucket" or 300 <= answer.status < 400:
            return StorageError(text, "Create the bucket, or correct its name, region and endpoint in storage.")
        if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return StorageError(text, RIGHTS_ON_THE_BUCKET)
        return StateError(text, "Check the bucket.")


def _read(storage: str) -> tuple[S3Options, str]:
    """The options in a URL, and how the names of the objects begin."""
    url = urlsplit(storage)
    if not url.netloc or "@" in url.netloc or url.fragment:
        raise ConfigurationError(
            "storage names no bucket", "Write s3://bucket/prefix; keys stand in AWS_ACCESS_KEY_ID, or in files."
        )
    given = dict(parse_qsl(url.query, keep_blank_values=True))
    if unknown := sorted(given.keys() - PARAMETERS.keys()):
        raise ConfigurationError(
            f"storage has the parameter {unknown[0]}, which is not known", f"There are {', '.join(sorted(PARAMETERS))}."
        )
    values = {PARAMETERS[name]: value for name, value in given.items()}
    try:
        return S3Options.model_validate({"bucket": url.netloc, "compression": "none", **values}), url.path.strip("/")
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0]).replace("_", "-")
        raise ConfigurationError(f"storage has a {name} that is not allowed", "Correct it.") from None


def _of_the_url(text: str) -> str:
    """What an s3 sink says of its options, about the parameters of the URL."""
    return text.replace("storage.url", "storage?endpoint").replace("storage.", "storage?")
