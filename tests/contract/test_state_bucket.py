"""A state in a bucket: what is written when, and that no other process overwrites it; at our own server and MinIO."""

from __future__ import annotations

import asyncio
import gzip
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from time import monotonic

import pytest

from event_handler.checkpoint import SearchCheckpoint
from event_handler.errors import ConfigurationError, StateError, StorageError
from event_handler.ports import Commit
from event_handler.runtime.state_bucket import S3Bucket
from event_handler.state import bucket as module
from event_handler.state import schema
from event_handler.state.bucket import BucketStore, object_of, read_only
from event_handler.state.moving import move
from event_handler.state.places import places_in
from event_handler.state.sqlite import FILE, SqliteStore
from tests.contract.minio_server import BUCKET as MINIO_BUCKET
from tests.contract.minio_server import REGION, ROOT, Minio, no_minio, running
from tests.contract.state_bucket import BUCKET, StateBucket, state_bucket

NAME = object_of("a.test", "fluentd")
NEVER = 3600.0  # seconds between two writes
needs_minio = pytest.mark.skipif(bool(no_minio()), reason=no_minio() or "-")


@pytest.fixture(autouse=True)
def keys_of_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ROOT.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ROOT.secret_key)


@pytest.fixture
def server() -> Iterator[StateBucket]:
    with state_bucket() as made:
        yield made


@pytest.fixture(scope="module")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minio]:
    with running(tmp_path_factory.mktemp("minio")) as made:
        yield made


@pytest.fixture(params=["own", pytest.param("minio", marks=needs_minio)])
def url(request: pytest.FixtureRequest, server: StateBucket) -> str:
    """An empty place in a bucket."""
    if request.param == "own":
        return server.url("teleport/states")
    minio = request.getfixturevalue("minio")
    return f"s3://{MINIO_BUCKET}/{abs(hash(request.node.name))}?endpoint={minio.url}&region={REGION}"


async def opened(
    url: str, interval: float = NEVER, lost: asyncio.Event | None = None, *, counter: str = "", epoch: int = 0
) -> BucketStore:
    chosen = lost or asyncio.Event()
    return await BucketStore.open(S3Bucket(url), NAME, interval, chosen, counter=counter, epoch=epoch)


@asynccontextmanager
async def crashing(store: BucketStore) -> AsyncIterator[BucketStore]:
    """At the end of the block nothing is written any more."""
    try:
        yield store
    finally:
        store.close()
        await store._bucket.close()


@asynccontextmanager
async def ending(store: BucketStore) -> AsyncIterator[BucketStore]:
    try:
        yield store
    finally:
        await store.finish()
        store.close()


async def searched(url: str) -> float | None:
    """Up to when the log was read, as the bucket has it."""
    found = await read_only(S3Bucket(url), NAME)
    assert found is not None
    with closing(found):
        return (await found.progress()).searched


async def test_after_a_crash_it_is_as_it_was_at_the_last_write(url: str) -> None:
    async with crashing(await opened(url, 0.1)) as store:
        await store.commit(Commit([SearchCheckpoint(1.0)]))
        async with asyncio.timeout(20):
            while await searched(url) != 1.0:
                await asyncio.sleep(0.02)
    async with crashing(await opened(url)) as store:
        await store.commit(Commit([SearchCheckpoint(2.0)], ids=b"12345678"))
    async with ending(await opened(url)) as store:
        assert (await store.progress()).searched == 1.0
        assert await store.delivered_ids() == []
        await store.commit(Commit([SearchCheckpoint(3.0)]))
    assert await searched(url) == 3.0


async def test_notes_and_the_start_are_written_before_anybody_relies_on_them(url: str) -> None:
    async with crashing(await opened(url)) as store:
        await store.begin(5.0)
    async with crashing(await opened(url)) as store:
        assert await store.start() == 5.0
        await store.commit(Commit(notes={"s3-intent-1": "an object"}))
    async with crashing(await opened(url)) as store:
        assert await store.note("s3-intent-1") == "an object"


async def test_a_first_start_that_is_cut_off_begins_at_its_own_time(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "time", lambda: 1000.0)
    async with crashing(await opened(url)):
        pass
    async with crashing(await opened(url)) as store:
        assert await store.begin(None) == 1000.0


async def test_whoever_opens_it_takes_it_over_and_the_one_before_writes_no_more(url: str) -> None:
    lost = asyncio.Event()
    async with crashing(await opened(url, 0.1, lost)) as slept:
        await slept.commit(Commit([SearchCheckpoint(1.0)]))
        async with ending(await opened(url)) as taken:
            await taken.commit(Commit([SearchCheckpoint(9.0)]))
            await slept.commit(Commit([SearchCheckpoint(2.0)]))
            await asyncio.wait_for(lost.wait(), 20)
            with pytest.raises(StateError, match=r"another process has taken over the state in s3://"):
                await slept.commit(Commit([SearchCheckpoint(3.0)]))
            with pytest.raises(StateError, match="another process has taken over"):
                await slept.finish()
    assert await searched(url) == 9.0


async def test_an_old_epoch_takes_nothing_from_a_newer_one_of_the_same_counter(url: str) -> None:
    async with ending(await opened(url, counter="lease", epoch=7)) as newer:
        lost = asyncio.Event()
        with pytest.raises(StateError, match="a newer replica works on the state"):
            await opened(url, lost=lost, counter="lease", epoch=6)
        assert lost.is_set()
        await newer.commit(Commit([SearchCheckpoint(4.0)]))
    for counter, epoch in (("lease", 8), ("a lease that was made again", 1), ("", 0)):
        async with ending(await opened(url, counter=counter, epoch=epoch)) as store:
            assert (await store.progress()).searched == 4.0


async def test_of_those_that_open_it_at_once_one_has_it_at_the_end(url: str) -> None:
    members = await asyncio.gather(*(opened(url, lost=asyncio.Event()) for _ in range(4)), return_exceptions=True)
    kept = [one for one in members if isinstance(one, BucketStore)]
    for number, store in enumerate(kept):
        await store.commit(Commit([SearchCheckpoint(float(number))]))
    ended = await asyncio.gather(*(store.finish() for store in kept), return_exceptions=True)
    for store in kept:
        store.close()
    assert all(isinstance(one, StateError) for one in [*members, *ended] if isinstance(one, Exception))
    assert sum(one is None for one in ended) == 1


@pytest.mark.parametrize("cluster", ["Ünïcode cluster", "a/b", "..", "50%"])
async def test_a_cluster_of_any_name_has_an_object(url: str, cluster: str) -> None:
    name = object_of(cluster, "siem")
    for expected in (None, 1.0):
        store = await BucketStore.open(S3Bucket(url), name, NEVER, asyncio.Event())
        assert (await store.progress()).searched == expected
        await store.commit(Commit([SearchCheckpoint(1.0)]))
        await store.finish()
        store.close()


async def test_no_name_of_a_cluster_leads_out_of_the_prefix(server: StateBucket) -> None:
    for cluster in ("..", ".", "a/../../b"):
        store = await BucketStore.open(S3Bucket(server.url("mine")), object_of(cluster, "siem"), NEVER, asyncio.Event())
        await store.finish()
        store.close()
    assert len(server.objects) == 3
    assert all(name.startswith(f"/{BUCKET}/mine/") for name in server.objects)


async def test_an_answer_that_gets_lost_is_no_other_process(server: StateBucket) -> None:
    url, lost = server.url(), asyncio.Event()
    async with ending(await opened(url, 0.1, lost)) as store:
        for number in range(3):
            server.lost = 1
            await store.commit(Commit([SearchCheckpoint(float(number))]))
            async with asyncio.timeout(20):
                while server.lost:
                    await asyncio.sleep(0.02)
        await store.commit(Commit([SearchCheckpoint(9.0)]))
    assert not lost.is_set()
    assert await searched(url) == 9.0


async def test_an_object_that_was_removed_is_written_again(server: StateBucket) -> None:
    url = server.url()
    async with ending(await opened(url)) as store:
        server.objects.clear()
        await store.commit(Commit([SearchCheckpoint(1.0)]))
    assert await searched(url) == 1.0


async def test_while_the_bucket_is_away_delivery_goes_on_up_to_a_bound_and_then_waits(
    server: StateBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNWRITTEN_FOR", 0.5)
    monkeypatch.setattr(module, "LONGEST_WRITE_WAIT", 0.1)
    url = server.url()
    async with ending(await opened(url, 0.1)) as store:
        server.away = True
        began, number = monotonic(), 0
        while monotonic() - began < 0.4:
            number += 1
            await store.commit(Commit([SearchCheckpoint(float(number))]))
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)
        with pytest.raises(StateError, match=r"could not be written for \d+ s"):
            await store.commit(Commit([SearchCheckpoint(999.0)]))
        server.away = False
        async with asyncio.timeout(20):
            while await searched(url) != number:
                await asyncio.sleep(0.02)
        await store.commit(Commit([SearchCheckpoint(1000.0)]))
    assert await searched(url) == 1000.0


async def test_the_end_does_not_wait_for_ever_and_says_what_is_not_written(
    server: StateBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_FINISH", 0.3)
    async with crashing(await opened(server.url())) as store:
        await store.commit(Commit([SearchCheckpoint(1.0)]))
        server.slow = 5.0
        with pytest.raises(StateError, match="cannot be written"):
            await store.finish()


async def test_a_bucket_that_ignores_conditions_is_refused_and_keeps_the_state(server: StateBucket) -> None:
    async with ending(await opened(server.url())) as store:
        await store.commit(Commit([SearchCheckpoint(1.0)]))
    server.deaf = True
    with pytest.raises(StorageError, match=r"ignores If-Match.*Use one with conditional writes"):
        await opened(server.url())
    assert await searched(server.url()) == 1.0


async def test_what_a_person_has_to_do_is_said(server: StateBucket) -> None:
    with pytest.raises(StorageError, match=r"NoSuchBucket.*Create the bucket"):
        await opened(server.url().replace(f"s3://{BUCKET}/", "s3://another/"))
    server.closed = True
    with pytest.raises(StorageError, match=r"AccessDenied.*s3:GetObject and s3:PutObject.*s3:ListBucket"):
        await opened(server.url())
    server.closed, server.away = False, True
    with pytest.raises(StateError, match="503 SlowDown"):
        await opened(server.url())


async def test_an_object_that_is_no_state_is_never_replaced(server: StateBucket) -> None:
    async with ending(await opened(server.url())):
        pass
    (place,) = server.objects
    whole, version = server.objects[place]
    for damage in (b"", whole[: len(whole) // 2], b"something else", gzip.compress(b"x" * 5000)):
        server.objects[place] = damage, version
        with pytest.raises(StorageError, match=rf"s3://{BUCKET}/.* is damaged.*--start-time"):
            await opened(server.url())
        assert server.objects[place][0] == damage


async def test_a_state_from_a_volume_goes_on_in_a_bucket_and_back(server: StateBucket, tmp_path: Path) -> None:
    on_disk = SqliteStore(tmp_path)
    await on_disk.begin(5.0)
    await on_disk.commit(Commit([SearchCheckpoint(7.0)]))
    on_disk.close()
    place = f"/{BUCKET}/{NAME}"
    server.objects[place] = gzip.compress((tmp_path / FILE).read_bytes()), '"copied"'
    async with ending(await opened(server.url())) as store:
        assert (await store.start(), (await store.progress()).searched) == (5.0, 7.0)
        await store.commit(Commit([SearchCheckpoint(8.0)]))
    back = tmp_path / "back"
    back.mkdir(mode=0o700)
    (back / FILE).write_bytes(gzip.decompress(server.objects[place][0]))
    with closing(sqlite3.connect(back / FILE)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    again = SqliteStore(back)
    assert (await again.progress()).searched == 8.0
    again.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3:///prefix", "names no bucket"),
        ("s3://key:secret@bucket/prefix?region=x", "names no bucket"),
        ("s3://bucket/prefix?regoin=x", "the parameter regoin, which is not known.*region"),
        ("s3://bucket/prefix?region=x&path-style=perhaps", "path-style that is not allowed"),
        ("s3://bucket/prefix?region=NO%20REGION", r"storage\?region"),
        ("s3://bucket/prefix?region=x&endpoint=ftp://x", r"storage\?endpoint is not a URL"),
        ("s3://bucket/prefix?region=x&kms-key=k", r"storage\?kms-key is set"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as raised:
        S3Bucket(url)
    assert "secret@" not in str(raised.value)


async def test_commands_that_cannot_work_on_a_bucket_say_so_and_make_no_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    on_disk = tmp_path / "a.test" / "fluentd"
    SqliteStore(on_disk).close()
    with pytest.raises(StateError, match=r"not looked at where it is \(s3://states/x\)"):
        places_in("s3://states/x?region=x")
    with pytest.raises(StateError, match=r"not moved into a bucket \(s3://states/x\)"):
        await move(places_in(str(tmp_path))[0], "s3://states/x?region=x")
    assert [one.name for one in tmp_path.iterdir()] == ["a.test"]
