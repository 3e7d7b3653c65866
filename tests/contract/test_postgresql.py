"""What is PostgreSQL's own: rows, repeats, what it cannot store, its refusals, TLS, servers that end or hang."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from event_handler.errors import SinkError
from event_handler.event import Event
from event_handler.ports import Delivered, Denied, Reject, Retry
from event_handler.sinks.postgresql import PostgresqlOptions, PostgresqlSink
from event_handler.sinks.postgresql.options import parsed, ssl_mode, system_authorities
from event_handler.sinks.postgresql.sink import DDL
from tests.contract.deliveries import events, eventually, verdict
from tests.contract.pki import make_pki
from tests.contract.postgresql_server import PASSWORD, Server, Table, no_postgresql, serving
from tests.event_samples import samples

needs_server = pytest.mark.skipif(bool(no_postgresql()), reason=no_postgresql())
pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if reason := no_postgresql():
        pytest.skip(reason)
    with serving() as started:
        yield started


@pytest.fixture
def table(server: Server) -> Iterator[Table]:
    yield Table(server)
    server.ask("DROP TABLE IF EXISTS teleport_events CASCADE")


def event(body: dict[str, Any] | bytes, id_: str = "u1", session_id: str = "", time: float = 1_790_000_000.5) -> Event:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return Event("user.login", id_, time, 3, raw, session_id)


async def said(at: Table, batch: list[Event], **options: Any) -> Any:
    sink = at.sink(**options)
    try:
        return await verdict(sink, batch)
    finally:
        await sink.close()


async def test_an_event_is_a_row_with_its_columns(table: Table) -> None:
    body = {
        "event": "user.login",
        "code": "T1000W",
        "user": 'a "\\ {},\n',
        "success": False,
        "cluster_name": "c",
        "sid": "s",
    }
    assert await said(table, [event(body), event({"user": ["x"], "success": "yes"}, "u2", "rec-1")]) == Delivered()
    first, second = table.server.ask("SELECT * FROM teleport_events ORDER BY uid")
    time = datetime.fromtimestamp(1_790_000_000.5, UTC)
    assert first == (time, "user.login", "T1000W", "u1", "s", 3, 'a "\\ {},\n', "c", False, body)
    assert second[4:9] == ("rec-1", 3, "", "", None)
    assert second[9] == {"user": ["x"], "success": "yes", "teleport_session_id": "rec-1"}


async def test_an_event_of_every_type_is_taken_and_stored_once(table: Table) -> None:
    batch = [event(body, body["uid"]) for body in samples()]
    sink = table.sink()
    assert len(batch) > 280
    assert [await verdict(sink, batch), await verdict(sink, batch), await verdict(sink, batch[:3] * 2)] == [
        Delivered()
    ] * 3
    await sink.close()
    assert table.server.ask("SELECT count(*) FROM teleport_events") == [(len(batch),)]


async def test_recorded_events_with_equal_content_are_told_apart_by_place_and_session(table: Table) -> None:
    batch = [Event("print", "same", 1.0, place, b"{}", session) for place in (1, 2) for session in ("a", "b")]
    assert await said(table, batch) == Delivered()
    assert table.server.ask("SELECT count(*) FROM teleport_events") == [(4,)]


async def test_a_nul_is_shown_and_an_escaped_backslash_is_left_alone(table: Table) -> None:
    raw = rb'{"a":"x\u0000y\u0000\u0000","b":"\\u0000","c":"\\\u0000","user":"n\u0000"}'
    assert await said(table, [event(raw, "id\0x")]) == Delivered()
    ((uid, user, body),) = table.server.ask("SELECT uid, username, body FROM teleport_events")
    assert (uid, user) == ("id␀x", "n␀")
    assert body == {"a": "x␀y␀␀", "b": "\\u0000", "c": "\\␀", "user": "n␀"}


@pytest.mark.parametrize(
    "bad",
    [
        event(b'{"a":"\\ud800"}', "bad"),
        event(b'{"a":1e999999}', "bad"),
        event(b"{", "bad"),
        event(b'{"a":"\xff\xfe"', "bad"),
        event({}, "".join(f"{n:04x}" for n in range(9000))),
    ],
    ids=["half a surrogate pair", "a number without end", "no JSON", "no UTF-8", "an id that no index takes"],
)
async def test_what_it_cannot_store_is_refused_alone(table: Table, bad: Event) -> None:
    good = [event({"n": n}, f"g{n}") for n in range(3)]
    sink = table.sink()
    for batch in ([*good, bad], [bad]):
        assert isinstance(await verdict(sink, batch), Reject)
    assert await verdict(sink, good) == Delivered()
    await sink.close()
    assert table.server.ask("SELECT count(*) FROM teleport_events") == [(3,)]


async def test_odd_times_numbers_and_texts_are_taken(table: Table) -> None:
    odd = [event({}, f"t{time}", time=time) for time in (-1e12, 0.0, 1e12, 4_102_444_800.123456)]
    odd += [event({"n": 2**63, "f": 1e308, "s": "😀\u2028\t\x1f"}, "n"), Event("é", "i", 0.0, -5, b"{}", "s/\\\"'")]
    assert await said(table, odd) == Delivered()
    assert table.server.ask("SELECT count(*) FROM teleport_events") == [(len(odd),)]


async def test_a_table_that_is_not_there_and_columns_that_differ_name_the_option(table: Table) -> None:
    found = await said(table, events(2), create_table=False)
    assert isinstance(found, Denied)
    assert "create-table" in found.reason
    assert "sinks.database.table" in found.reason
    table.server.ask("CREATE TABLE teleport_events (time text)")
    found = await said(table, events(2))
    assert isinstance(found, Denied)
    assert "compare the columns" in found.reason


async def test_a_constraint_and_a_missing_partition_are_about_the_table(table: Table) -> None:
    await said(table, events(1))
    table.server.ask("ALTER TABLE teleport_events ADD CHECK (event <> 'user.login')")
    found = await said(table, [event({})])
    assert isinstance(found, Denied)
    assert "constraint" in found.reason
    table.server.ask("DROP TABLE teleport_events")
    partitioned = DDL.format(table="teleport_events").strip() + " PARTITION BY RANGE (time)"
    table.server.ask(partitioned)
    found = await said(table, events(2))
    assert isinstance(found, Denied)
    assert "missing partition" in found.reason
    table.server.ask("CREATE TABLE other PARTITION OF teleport_events DEFAULT")
    assert [await said(table, events(2)), await said(table, events(2))] == [Delivered()] * 2
    assert table.server.ask("SELECT count(*) FROM other") == [(2,)]


async def test_a_user_without_the_right_is_told_to_be_granted_it(table: Table) -> None:
    await said(table, events(1))
    table.server.ask("DROP ROLE IF EXISTS handler")
    table.server.ask("CREATE ROLE handler LOGIN PASSWORD 'a-long-password'")
    as_handler = {"username": "handler", "password": "a-long-password"}
    found = await said(table, events(2), **as_handler)
    assert isinstance(found, Denied)
    assert "grant INSERT" in found.reason
    table.server.ask("GRANT INSERT ON teleport_events TO handler")
    assert await said(table, events(2), **as_handler) == Delivered(), "no other right is needed"


async def test_who_may_not_sign_in_is_told_which_options_to_check(table: Table) -> None:
    for options, words in (
        ({"password": "wrong-password"}, "sinks.database.password"),
        ({"username": "nobody-known"}, "sinks.database.username"),
        ({"url": table.server.url(database="no-such-database")}, "sinks.database.url"),
    ):
        found = await said(table, events(1), **options)
        assert isinstance(found, Retry)
        assert found.misconfigured
        assert words in found.reason
        assert PASSWORD not in found.reason


async def test_a_read_only_server_is_waited_for(table: Table) -> None:
    await said(table, events(1))
    table.server.ask("ALTER ROLE teleport SET default_transaction_read_only = on")
    sink = table.sink(create_table=False)
    try:
        found = await verdict(sink, events(1))
        assert isinstance(found, Retry)
        assert not found.misconfigured
        assert "replica" in found.reason
    finally:
        table.server.ask("ALTER ROLE teleport RESET default_transaction_read_only")
    assert await verdict(sink, events(1)) == Delivered(), "by a new connection"
    await sink.close()


async def test_an_answer_means_that_it_is_on_a_disk(table: Table) -> None:
    await said(table, events(1))
    table.server.ask("ALTER ROLE teleport SET synchronous_commit = off")
    table.server.ask(
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN NEW.code := current_setting('synchronous_commit'); RETURN NEW; END$$;"
        "CREATE TRIGGER tells BEFORE INSERT ON teleport_events FOR EACH ROW EXECUTE FUNCTION tell()"
    )
    try:
        await said(table, events(1, first=7))
    finally:
        table.server.ask("ALTER ROLE teleport RESET synchronous_commit")
        table.server.ask("DROP FUNCTION tell CASCADE")
    assert table.server.ask("SELECT code FROM teleport_events WHERE uid = 'e7'") == [("on",)]


async def test_a_connection_that_ended_while_nobody_used_it_costs_nothing(table: Table) -> None:
    sink = table.sink()
    await verdict(sink, events(1))
    table.server.ask(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'teleport-event-handler'"
    )
    assert await verdict(sink, events(1, first=1)) == Delivered()
    await sink.close()


async def test_a_crash_of_the_server_is_an_outage(table: Table) -> None:
    sink = table.sink()
    await verdict(sink, events(1))
    await asyncio.to_thread(table.server.stop, signal.SIGQUIT)
    found = await verdict(sink, events(1))
    assert isinstance(found, Retry)
    assert not found.misconfigured
    await table.start()
    assert await verdict(sink, events(2)) == Delivered()
    await sink.close()
    assert table.server.ask("SELECT count(*) FROM teleport_events") == [(2,)]


@pytest.mark.parametrize("how", ["time-out", "cancelled"])
@pytest.mark.usefixtures("nothing_left")
async def test_a_table_that_is_locked_holds_nobody_for_ever(table: Table, how: str) -> None:
    await said(table, events(1))
    import psycopg

    with psycopg.connect(table.server.url()) as holder:
        holder.execute("LOCK TABLE teleport_events")
        sink = table.sink(timeout=0.3 if how == "time-out" else 10.0)
        delivering = asyncio.create_task(sink.deliver(events(3)))
        if how == "cancelled":
            await asyncio.to_thread(_blocked, table.server)
            delivering.cancel()
            await asyncio.gather(delivering, return_exceptions=True)
            assert delivering.cancelled()
        else:
            found = await delivering
            assert isinstance(found, Retry)
            assert found.unanswered
        holder.rollback()
    assert await verdict(sink, events(3)) == Delivered()
    await sink.close()
    assert table.server.ask("SELECT count(*) FROM teleport_events") == [(3,)]


def _blocked(server: Server) -> None:
    """Wait until somebody waits for a lock."""
    while server.ask("SELECT count(*) FROM pg_locks WHERE NOT granted") == [(0,)]:
        pass


async def test_a_server_that_never_answers_is_given_up(table: Table) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://a:b@127.0.0.1:{silent.getsockname()[1]}/x"
        found = await said(table, events(1), url=url, timeout=0.3)
    assert isinstance(found, Retry)
    assert not found.misconfigured


async def test_no_more_connections_than_said(table: Table) -> None:
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'teleport-event-handler'"
    await eventually(lambda: table.server.ask(query) == [(0,)])
    sink = table.sink(max_connections=2)
    await asyncio.gather(*(verdict(sink, events(50, first=50 * n)) for n in range(8)))
    assert table.server.ask(query) == [(2,)]
    await sink.close()
    await eventually(lambda: table.server.ask(query) == [(0,)])


async def test_several_that_create_the_table_at_once_all_deliver(table: Table) -> None:
    sinks = [table.sink() for _ in range(4)]
    assert await asyncio.gather(*(verdict(sink, events(5)) for sink in sinks)) == [Delivered()] * 4
    for sink in sinks:
        await sink.close()
    assert table.server.ask("SELECT count(*) FROM teleport_events") == [(5,)]


async def test_a_table_in_a_schema_with_an_odd_name(table: Table) -> None:
    schema = "Au'dit x"
    table.server.ask(f'CREATE SCHEMA "{schema}"')
    assert await said(table, events(2), table=f"{schema}.Events; --") == Delivered()
    assert table.server.ask(f'SELECT count(*) FROM "{schema}"."Events; --"') == [(2,)]  # noqa: S608


async def test_a_password_that_is_replaced_in_its_file_is_used(table: Table, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("wrong-password\n")
    url = table.server.url(password="")
    sink = table.sink(url=url, password_file=str(file))
    assert isinstance(await verdict(sink, events(1)), Retry)
    file.write_text(f"{PASSWORD}\n")
    assert await verdict(sink, events(1)) == Delivered()
    await sink.close()


@needs_server
async def test_tls_with_a_client_certificate_and_what_goes_wrong_there(tmp_path: Path) -> None:
    pki, other = make_pki(tmp_path, "database"), make_pki(tmp_path, "other")
    files, strange = pki.client_files(), other.client_files()
    with serving(pki) as server:
        table = Table(server)
        tls = {"url": server.url("localhost"), "ca": files.ca, "cert": files.cert, "key": files.key}
        assert await said(table, events(2), **tls, min_tls="1.3") == Delivered()
        assert (
            await said(table, events(2), url=server.url("localhost"), cert=files.cert, key=files.key, sslmode="require")
            == Delivered()
        )
        for wrong in (
            {**tls, "ca": strange.ca},
            {**tls, "url": server.url("127.0.0.1")},
            {**tls, "cert": strange.cert, "key": strange.key},
            {"url": server.url("localhost"), "ca": files.ca},
            {"url": server.url("localhost"), "sslmode": "disable"},
            {"url": server.url("localhost"), "sslmode": "verify-full"},
        ):
            found = await said(table, events(1), **wrong)
            assert isinstance(found, Retry)
            assert found.misconfigured, found
            assert "sinks.database." in found.reason
        assert server.ask("SELECT count(*) FROM teleport_events") == [(2,)]


async def test_a_server_without_tls_gets_nothing_in_the_clear(table: Table, tmp_path: Path) -> None:
    files = make_pki(tmp_path, "database").client_files()
    found = await said(table, events(1), url=table.server.url("localhost"), ca=files.ca)
    assert isinstance(found, Retry)
    assert found.misconfigured
    assert "sinks.database.sslmode" in found.reason


@pytest.mark.parametrize(
    ("url", "options", "mode"),
    [
        ("postgresql://u@db.example.com/x", {}, "verify-full"),
        ("postgresql://u@127.0.0.1,db.example.com/x", {}, "verify-full"),
        ("postgresql://u@localhost/x", {}, "prefer"),
        ("postgresql:///x?host=/run/postgresql", {}, "prefer"),
        ("host=::1 dbname=x", {}, "prefer"),
        ("postgresql://u@localhost/x", {"ca": "/ca"}, "verify-full"),
        ("postgresql://u@db.example.com/x?sslmode=disable", {}, "disable"),
        ("postgresql://u@db.example.com/x", {"sslmode": "verify-ca"}, "verify-ca"),
        ("postgresql://u@db.example.com/x?sslmode=require", {"sslmode": "require"}, "require"),
    ],
)
def test_the_mode_of_tls(url: str, options: dict[str, Any], mode: str) -> None:
    assert ssl_mode(PostgresqlOptions(**options), parsed(url, "sinks.database.url"), "sinks.database") == mode


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "are missing"),
        ({"url": "postgresql://u:topsecret@h:port/x"}, "cannot be read"),
        ({"url": "postgresql://u:top/secret@h/x?nope=topsecret"}, "cannot be read"),
        ({"url": "host=h password=my topsecret"}, "cannot be read"),
        ({"url": "postgresql:///x"}, "names no host"),
        ({"url": "postgresql://u:topsecret@h/x?sslmode=prefer"}, "in the clear"),
        ({"url": "postgresql://u:topsecret@h/x?sslmode=disable", "sslmode": "require"}, "differ"),
        ({"url": "postgresql://u@h/x", "table": "a.b.c"}, "no name of a table"),
        ({"url": "postgresql://u@h/x", "cert": "/nowhere"}, "only one of"),
        ({"url": "postgresql://u@h/x", "ca": "/nowhere"}, "CA file"),
        ({"url": "postgresql://u@h/x", "password": "a", "password_file": "b"}, "both set"),
    ],
)
def test_options_that_cannot_be_used_are_told_without_a_secret(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SinkError, match=words) as raised:
        PostgresqlSink(PostgresqlOptions(**options), "database", "sinks.database")
    assert "topsecret" not in str(raised.value)


def test_files_beside_a_mode_without_tls_contradict_it(tmp_path: Path) -> None:
    files = make_pki(tmp_path, "database").client_files()
    with pytest.raises(SinkError, match=r"although sinks\.database\.ca is set"):
        PostgresqlSink(
            PostgresqlOptions(url="postgresql://u@h/x?sslmode=disable", ca=files.ca), "database", "sinks.database"
        )


def test_authorities_of_the_system_are_a_file_or_left_to_libpq() -> None:
    found = system_authorities()
    assert found == "system" or Path(found).is_file()


def test_the_guide_has_the_table_as_it_is_made() -> None:
    page = (Path(__file__).parents[2] / "docs" / "sinks" / "postgresql.md").read_text()
    assert DDL.format(table="teleport_events").strip() in page
