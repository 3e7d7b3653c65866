"""What is particular about the state in PostgreSQL: who may write, who has what, and what a lost answer means."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from event_handler.checkpoint import DONE, Chunk, ChunkCheckpoint, SearchCheckpoint
from event_handler.errors import StateError, StorageError
from event_handler.ports import Commit, DeadLetter, FailedLogin, RecordingItem, StateStore
from event_handler.state.directory import state_directory
from event_handler.state.places import places_in
from event_handler.state.postgresql import replica as membership
from event_handler.state.postgresql.replica import Replica
from event_handler.state.postgresql.session import Session, parameters_of, shown
from event_handler.state.postgresql.store import PostgresStore
from event_handler.state.sqlite import SqliteStore
from tests.contract.ports import free_ports
from tests.contract.postgresql_server import PASSWORD, USER, Server, no_postgresql, serving

pytestmark = pytest.mark.skipif(bool(no_postgresql()), reason=no_postgresql() or "-")
ONE, TWO = (Chunk(date(2026, 3, 5), name) for name in ("one", "two"))
LETTER = DeadLetter("siem", "refused", "user.login", "u", "", b"{}")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


@pytest.fixture
def url(server: Server) -> str:
    name = f"d{uuid4().hex}"
    server.ask(f"CREATE DATABASE {name}")
    return server.url(host="127.0.0.1", database=name)


class Pair:
    """Two replicas and their stores of one state."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.replicas: list[Replica] = []
        self.stores: list[PostgresStore] = []

    async def one_more(self) -> PostgresStore:
        replica = Replica(self.url, "a.test")
        await replica.join()
        self.replicas.append(replica)
        self.stores.append(await PostgresStore.open(self.url, "a.test", "siem", replica.epoch))
        return self.stores[-1]

    async def take_out(self, number: int) -> None:
        """As the others do with one that has not told for too long that it lives."""
        session = Session(self.url)
        await session.rows(
            "DELETE FROM teleport_event_handler.replicas WHERE epoch = %s", (self.replicas[number].epoch,)
        )
        session.close()

    def close(self) -> None:
        for replica in self.replicas:
            replica.close()
        for store in self.stores:
            store.close()


@pytest.fixture
async def pair(url: str) -> AsyncIterator[Pair]:
    made = Pair(url)
    await made.one_more()
    await made.one_more()
    yield made
    made.close()


async def test_a_chunk_belongs_to_one_replica_until_it_is_done(pair: Pair) -> None:
    first, second = pair.stores
    assert await first.take(ONE) == ""
    assert await second.take(ONE) is None
    assert await second.take(TWO) == ""
    await first.commit(Commit([ChunkCheckpoint(ONE, "a1:3")]))
    assert await second.take(ONE) is None
    await first.commit(Commit([ChunkCheckpoint(ONE, DONE)]))
    assert await second.take(ONE) == DONE
    await second.close_days(date(2026, 3, 6))
    assert await first.take(TWO) == DONE, "its day is closed"


async def test_of_a_replica_that_is_gone_everything_is_taken_over_with_what_it_had_delivered(pair: Pair) -> None:
    first, second = pair.stores
    assert await first.take(ONE) == ""
    assert await first.take_turn("reading")
    await first.commit(Commit([ChunkCheckpoint(ONE, "a1:3")], b"11111111", [RecordingItem("s", 1.0, True, 0, 0.0, 0)]))
    assert [item.session_id for item in await first.due_recordings(5.0, 9)] == ["s"]
    assert await second.due_recordings(5.0, 9) == []
    assert not await second.take_turn("reading")
    await pair.take_out(0)
    assert await second.taken_over_ids() == []
    assert await second.take(ONE) == "a1:3"
    assert await second.taken_over_ids() == [b"11111111"]
    assert await second.taken_over_ids() == [], "known by now"
    assert await second.take_turn("reading")
    assert [item.session_id for item in await second.due_recordings(5.0, 9)] == ["s"]


async def test_a_replica_that_was_taken_out_can_write_nothing(pair: Pair) -> None:
    first, second = pair.stores
    assert await first.take(ONE) == ""
    await second.commit(Commit([SearchCheckpoint(5.0)], recordings=[RecordingItem("s", 1.0, True, 0, 0.0, 0)]))
    await pair.take_out(0)
    for write in (
        first.commit(Commit([SearchCheckpoint(9.0)], b"11111111", dead_letters=[LETTER])),
        first.take(TWO),
        first.take_turn("reading"),
        first.due_recordings(5.0, 9),
        first.recording_done("s"),
        first.recording_later("s", 9.0, counted=True),
        first.recording_given_up(LETTER),
        first.close_days(date(2026, 3, 6)),
        first.add_failed_logins([FailedLogin("e", 1.0, "alice")]),
        first.lock_made("alice", "root"),
    ):
        with pytest.raises(StateError, match="this replica was taken out by the others"):
            await write
    assert (await second.progress()).searched == 5.0
    assert (await second.delivered_ids(), await second.dead_letters()) == ([], 0)


async def test_one_is_taken_out_only_when_it_has_not_told_that_it_lives(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def report() -> dict[str, object]:
        return {"delivered": 1}

    monkeypatch.setattr(membership, "BEAT", 0.05)
    monkeypatch.setattr(membership, "LIVES", 1.0)
    beating = [asyncio.create_task(replica.run(report)) for replica in pair.replicas]
    await asyncio.sleep(1.5)
    assert not any(replica.lost.is_set() for replica in pair.replicas)
    beating[0].cancel()

    async def alone() -> bool:
        return [one.epoch for one in await pair.replicas[1].others()] == [pair.replicas[1].epoch]

    await eventually(alone)
    late = asyncio.create_task(pair.replicas[0].run(report))
    await asyncio.wait_for(pair.replicas[0].lost.wait(), 30)
    for task in (late, *beating):
        task.cancel()
    await asyncio.gather(late, *beating, return_exceptions=True)


async def test_one_that_stands_still_in_a_transaction_is_taken_out_all_the_same(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends its transaction, and the lock on its row with it."""
    with suppress(psycopg.Error), psycopg.connect(pair.url) as still:
        still.execute("SET idle_in_transaction_session_timeout = '1s'")
        still.execute("SELECT 1 FROM teleport_event_handler.replicas WHERE epoch = %s FOR KEY SHARE", (1,))
        session = Session(pair.url)
        await session.rows("UPDATE teleport_event_handler.replicas SET expires = now() - interval '1s' WHERE epoch = 1")
        session.close()

        async def gone() -> bool:
            await pair.replicas[1]._beat("{}")
            return len(await pair.replicas[1].others()) == 1

        assert not await gone()
        await eventually(gone)


async def test_a_commit_whose_answer_was_lost_keeps_a_dead_letter_once(url: str) -> None:
    """The connection is cut behind the commit: it has happened, and nobody was told."""
    pair = Pair(url)
    store = await pair.one_more()
    letters = [LETTER, LETTER]
    store._session.close()
    run = store._session.run

    async def cut(work: object) -> object:
        await run(work)  # type: ignore[arg-type]
        raise StateError("the connection was cut")

    store._session.run = cut  # type: ignore[method-assign, assignment]
    with pytest.raises(StateError):
        await store.commit(Commit([SearchCheckpoint(1.0)], b"11111111", dead_letters=letters))
    store._session.run = run  # type: ignore[method-assign]
    await store.commit(Commit([SearchCheckpoint(2.0)], b"1111111122222222", dead_letters=[*letters, LETTER]))
    assert await store.dead_letters() == 3
    assert (await store.progress()).searched == 2.0
    pair.close()


async def test_a_commit_that_did_not_happen_is_written_by_the_next_one(server: Server) -> None:
    with serving() as own:
        pair = Pair(own.url(host="127.0.0.1"))
        store = await pair.one_more()
        await asyncio.to_thread(own.stop, signal.SIGQUIT)
        with pytest.raises(StateError, match="is not usable"):
            await store.commit(Commit(dead_letters=[LETTER]))
        await asyncio.to_thread(own.start)
        await store.commit(Commit(dead_letters=[LETTER]))
        assert await store.dead_letters() == 1
        pair.close()


async def test_a_failover_that_loses_the_last_transactions_lets_reading_begin_again(tmp_path: Path) -> None:
    """The standby never had them when the primary is lost: a recording that was announced in one is forgotten,
    and would never be asked for if reading went on.
    """
    lost = asyncio.Event()
    with tempfile.TemporaryDirectory(prefix="pg-") as directory, serving() as primary:
        standby = await asyncio.to_thread(primary.standby, Path(directory))
        await asyncio.to_thread(standby.start)
        try:
            ports = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
            url = f"postgresql://{USER}:{PASSWORD}@{ports}/postgres"
            replica = Replica(url, "a.test")
            await replica.join()
            store = await PostgresStore.open(url, "a.test", "siem", replica.epoch, lost)
            await store.commit(Commit([SearchCheckpoint(1.0)]))

            async def followed() -> bool:
                query = "SELECT count(*) FROM teleport_event_handler.positions"
                try:
                    return await asyncio.to_thread(standby.ask, query) == [(1,)]
                except psycopg.Error:
                    return False

            await eventually(followed)
            await asyncio.to_thread(standby.ask, "ALTER SYSTEM SET primary_conninfo = ''")
            await asyncio.to_thread(standby.ask, "SELECT pg_reload_conf()")

            async def cut_off() -> bool:
                return await asyncio.to_thread(standby.ask, "SELECT count(*) FROM pg_stat_wal_receiver") == [(0,)]

            await eventually(cut_off)
            await store.commit(Commit([SearchCheckpoint(2.0)], recordings=[RecordingItem("s", 1.0, True, 0, 0.0, 0)]))
            await asyncio.to_thread(primary.stop, signal.SIGQUIT)
            await asyncio.to_thread(standby.ask, "SELECT pg_promote()")
            with suppress(StateError):  # the connection to the primary is found to be gone
                await store.commit(Commit([SearchCheckpoint(3.0)]))
            with pytest.raises(StateError, match="has lost what it had confirmed"):
                await store.commit(Commit([SearchCheckpoint(3.0)]))
            assert lost.is_set()
            assert (await store.progress()).searched == 1.0
            store.close()
            replica.close()
        finally:
            standby.stop()


async def test_a_read_only_server_is_told_and_waited_for(url: str, server: Server) -> None:
    pair = Pair(url)
    store = await pair.one_more()
    name = url.rpartition("/")[2]
    server.ask(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    store._session.close()
    with pytest.raises(StateError, match="read-only transaction"):
        await store.commit(Commit([SearchCheckpoint(1.0)]))
    server.ask(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    store._session.close()
    await store.commit(Commit([SearchCheckpoint(1.0)]))
    pair.close()


async def test_tables_of_a_newer_version_are_left_alone(url: str, server: Server) -> None:
    (await PostgresStore.open(url, "a.test", "siem")).close()
    with psycopg.connect(url) as database:
        database.execute("UPDATE teleport_event_handler.version SET number = 99")
    with pytest.raises(StorageError, match=r"of a newer version \(tables of version 99"):
        await PostgresStore.open(url, "a.test", "siem")


async def test_tables_that_many_replicas_make_at_once_are_made_once(url: str) -> None:
    stores = await asyncio.gather(*(PostgresStore.open(url, "a.test", f"s{n % 2}") for n in range(6)))
    for store in stores:
        store.close()
    assert [place.name for place in await asyncio.to_thread(places_in, url)] == ["a.test/s0", "a.test/s1"]


@pytest.mark.parametrize(
    ("of", "said"),
    [
        ({"password": "wrong-password"}, "password authentication failed"),
        ({"user": "nobody", "password": "wrong-password"}, "authentication failed"),
        ({"database": "nothere"}, 'database "nothere" does not exist'),
    ],
)
async def test_what_only_a_person_can_change_is_said_without_the_password(
    server: Server, of: dict[str, str], said: str
) -> None:
    with pytest.raises(StorageError) as raised:
        await PostgresStore.open(server.url(host="127.0.0.1", **of), "a.test", "siem")
    assert said in str(raised.value)
    assert "wrong-password" not in str(raised.value)
    assert PASSWORD not in str(raised.value)


async def test_a_server_that_is_away_is_no_matter_for_a_person() -> None:
    with pytest.raises(StateError) as raised:
        await PostgresStore.open(f"postgresql://u:p@127.0.0.1:{free_ports(1)[0]}/d", "a.test", "siem")
    assert not isinstance(raised.value, StorageError)


def test_tls_is_verified_unless_the_url_says_otherwise() -> None:
    assert parameters_of("postgresql://u@db.example.com/d")["sslmode"] == "verify-full"
    assert parameters_of("postgresql://u@db.example.com/d?sslmode=require")["sslmode"] == "require"
    assert "sslmode" not in parameters_of("postgresql://u@localhost/d")
    assert parameters_of("postgresql://u@a.test,b.test/d")["target_session_attrs"] == "read-write"
    assert shown("postgresql://u:secret@a.test:5433,b.test/d") == "postgresql://a.test:5433,b.test:5432/d"


async def filled(store: StateStore) -> None:
    await store.claim("a.test")
    await store.begin(5.0)
    await store.commit(
        Commit(
            [ChunkCheckpoint(ONE, "a1:3"), SearchCheckpoint(7.25)],
            b"1111111122222222",
            [RecordingItem("s", 1.5, True, 0, 0.0, 0), RecordingItem("t", 1.5, False, 0, 9.0, 0)],
            [LETTER, DeadLetter("siem", "a \N{SNOWMAN}", "t", "i", "s", b"\0\xff", 1.5, 2)],
            {"note": "text"},
        )
    )
    await store.commit(Commit(ids=b"33333333"))
    await store.recording_done("s")
    await store.add_failed_logins([FailedLogin("e", 1.0, "alice")])
    await store.lock_due("bob", "bob", "root")


async def moved(source: str, target: str) -> str:
    """What the command printed."""
    command = (sys.executable, "-m", "event_handler", "storage", "move", "--from", source, "--to", target)
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT)
    return (await process.communicate())[0].decode()


async def eventually(so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await so():
            await asyncio.sleep(0.02)


async def test_a_state_is_carried_over_both_ways(url: str, tmp_path: Path) -> None:
    store = SqliteStore(state_directory(tmp_path / "one", "a.test", "siem"))
    await filled(store)
    store.close()

    there = await moved(str(tmp_path / "one"), url)
    assert "a.test/siem: " in there, there
    assert "2 delivered" in there
    assert "2 dead letters" in there
    assert PASSWORD not in there
    assert "there is a state in" in await moved(str(tmp_path / "one"), url)
    back = await moved(url, str(tmp_path / "two"))
    assert back.splitlines()[0] == there.splitlines()[0]
    again = SqliteStore(state_directory(tmp_path / "two", "a.test", "siem"))
    progress = await again.progress()
    assert (progress.chunks, progress.searched, await again.start()) == ({ONE: "a1:3"}, 7.25, 5.0)
    assert await again.delivered_ids() == [b"1111111122222222", b"33333333"]
    assert [item.session_id for item in await again.unfinished_recordings()] == ["t"]
    assert (await again.dead_letters(), await again.note("note")) == (2, "text")
    assert await again.locks_due() == [("bob", "root")]
    again.close()


async def test_nothing_is_moved_while_somebody_works_there(url: str, tmp_path: Path, pair: Pair) -> None:
    await filled(pair.stores[0])
    assert "works on" in await moved(pair.url, str(tmp_path))
    assert not list(tmp_path.rglob("state.db"))


PGBOUNCER = shutil.which("pgbouncer")


@pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")
async def test_a_pooler_that_hands_out_connections_by_the_transaction_may_stand_between(
    server: Server, url: str, tmp_path: Path
) -> None:
    port, name = free_ports(1)[0], url.rpartition("/")[2]
    (tmp_path / "users").write_text(f'"{USER}" "{PASSWORD}"\n')
    (tmp_path / "pgbouncer.ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={server.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nauth_type = plain\nauth_file = {tmp_path}/users\npool_mode = transaction\n"
        f"default_pool_size = 2\nunix_socket_dir =\n"
    )
    for path in (tmp_path, *tmp_path.parents[:2], *tmp_path.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    command = [str(PGBOUNCER), "-q", "-u", "nobody", str(tmp_path / "pgbouncer.ini")]
    pooler = await asyncio.create_subprocess_exec(*command, stdout=DEVNULL, stderr=DEVNULL)
    try:
        pair = Pair(f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}/{name}")

        async def joined() -> bool:
            try:
                await pair.one_more()
            except StateError:
                return False
            return True

        await eventually(joined)
        await pair.one_more()
        first, second = pair.stores
        assert await first.take(ONE) == ""
        await asyncio.gather(
            *(first.commit(Commit([ChunkCheckpoint(ONE, f"a1:{n}")], b"%08d" % n)) for n in range(20)),
            *(second.commit(Commit(ids=b"%08d" % n)) for n in range(20)),
        )
        assert await second.take(ONE) is None
        assert len(await first.delivered_ids()) == 40
        pair.close()
    finally:
        pooler.terminate()
        await pooler.wait()
