"""The s3 sink against a real MinIO: signatures, names, encryption that it refuses, and rights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from event_handler.event import Event
from event_handler.ports import Delivered, Denied
from event_handler.sinks.s3 import S3Options, S3Sink
from tests.contract.deliveries import verdict
from tests.contract.minio_server import Minio, no_minio, running
from tests.event_samples import samples

pytestmark = pytest.mark.skipif(bool(no_minio()), reason=no_minio())


@pytest.fixture(scope="module")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minio]:
    with running(tmp_path_factory.mktemp("minio")) as started:
        yield started


async def said(minio: Minio, batch: list[Event], **options: Any) -> Any:
    sink = S3Sink(S3Options(**{**minio.options(), **options}), "s3", "sinks.s3")
    try:
        return await verdict(sink, batch)
    finally:
        await sink.close()


def event(number: int) -> Event:
    return Event("print", f"e{number}", 1_790_000_000.5, number, orjson.dumps({"uid": f"e{number}"}))


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("prefix", ["all/{date}/", "odd name +&=@:é'()!*/{hour}/"])
async def test_an_event_of_every_type_is_stored_once(minio: Minio, compression: str, prefix: str) -> None:
    prefix = f"{compression}/{prefix}"
    batch = [Event(one["event"], one["uid"], 1_790_000_000.5, 0, orjson.dumps(one)) for one in samples()]
    before = minio.names()
    for _ in range(2):
        assert await said(minio, batch, compression=compression, prefix=prefix) == Delivered()
    (name,) = set(minio.names()) - set(before)
    assert name.startswith(prefix.replace("{date}", "2026-09-21").replace("{hour}", "14"))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"bucket": "no-such-bucket"}, "NoSuchBucket: The specified bucket does not exist; create it"),
        ({"secret_access_key": "wrong"}, "SignatureDoesNotMatch"),
        ({"access_key_id": "nobody"}, "InvalidAccessKeyId"),
        ({"encryption": "kms", "kms_key": "nothing"}, "check sinks.s3.encryption"),
    ],
    ids=["bucket", "secret", "key", "encryption"],
)
async def test_what_is_wrong_is_said(minio: Minio, options: dict[str, Any], named: str) -> None:
    answer = await said(minio, [event(1)], **options)
    assert isinstance(answer, Denied)
    assert named in answer.reason
