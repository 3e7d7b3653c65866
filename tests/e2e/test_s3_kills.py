"""The real process delivers to a bucket through kills and lost answers: nothing is lost, no event is in two objects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.contract.minio_server import Minio, no_minio, running
from tests.contract.receiver import Exchange, answer, receiving
from tests.contract.s3_bucket import Bucket
from tests.e2e.kills import FEW, MANY, deliver_through_kills

TABLE = """
[sinks.archive]
type = "s3"
bucket = "audit"
url = "{url}"
region = "us-east-1"
access-key-id = "{key}"
secret-access-key = "{secret}"
object-age = "200ms"
object-events = 300
"""
KILLS = [FEW, pytest.param(MANY, marks=pytest.mark.soak)]


@asynccontextmanager
async def faulty(bucket: Bucket) -> AsyncIterator[str]:
    """The bucket's address. Of its answers to objects a tenth is an error, and a tenth is lost behind the object."""

    async def step(exchange: Exchange) -> None:
        if exchange.method == "PUT" and bucket.puts % 10 == 4:
            await bucket.busy(exchange)
        elif exchange.method == "PUT" and bucket.puts % 10 == 9:
            await bucket.stored_and_lost(exchange)
        else:
            said = bucket(await exchange.read_body())
            await answer(said.status, said.body)(exchange)

    async with receiving(bucket, None) as receiver:
        receiver.otherwise = step
        yield receiver.url


@pytest.mark.parametrize("kills", KILLS)
async def test_no_event_is_lost_and_none_is_in_two_objects(tmp_path: Path, kills: int) -> None:
    bucket = Bucket()
    async with faulty(bucket) as url:
        tables = TABLE.format(url=url, key="AKIDEXAMPLE", secret="a-secret-of-s3")
        expected, log = await deliver_through_kills(tmp_path, tables, lambda: bucket.puts, kills, apart=2)
    assert sorted(bucket.ids()) == sorted(expected)
    assert "a-secret-of-s3" not in log


@pytest.mark.skipif(bool(no_minio()), reason=no_minio())
@pytest.mark.parametrize("kills", KILLS)
async def test_so_it_is_with_a_real_minio(tmp_path: Path, kills: int) -> None:
    with running(tmp_path) as minio:
        keys = minio.options()
        tables = TABLE.format(url=minio.url, key=keys["access_key_id"], secret=keys["secret_access_key"])
        expected, _ = await deliver_through_kills(
            tmp_path, tables, lambda: objects(minio), kills, apart=1, events=1000 * kills
        )
        assert sorted(await asyncio.to_thread(minio.ids)) == sorted(expected)


def objects(minio: Minio) -> int:
    return len(minio.names())
