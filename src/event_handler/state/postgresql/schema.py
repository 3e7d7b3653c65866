"""The tables in the schema `teleport_event_handler`, made and migrated by whichever replica starts first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

from event_handler.errors import StorageError

if TYPE_CHECKING:
    import psycopg

SCHEMA = "teleport_event_handler"
TABLES_VERSION = 1
_LOCK = 0x7465_6C65_7068  # of pg_advisory_xact_lock, while tables are made
_MAKE_ALL: tuple[LiteralString, ...] = (
    "CREATE TABLE teleport_event_handler.version (number integer NOT NULL)",
    # `letters` numbers the dead letters of a state.
    """CREATE TABLE teleport_event_handler.states (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, cluster text NOT NULL, sink text NOT NULL,
  created double precision NOT NULL, letters bigint NOT NULL DEFAULT 0, UNIQUE (cluster, sink))""",
    # A running process. Its number is its epoch: whoever is not in here any more can write nothing.
    """CREATE TABLE teleport_event_handler.replicas (
  epoch bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, cluster text NOT NULL, name text NOT NULL,
  started timestamptz NOT NULL DEFAULT now(), expires timestamptz NOT NULL, report jsonb)""",
    # The number of a replica's last commit, by which one whose answer was lost is known to have happened or not.
    """CREATE TABLE teleport_event_handler.commits (
  epoch bigint REFERENCES teleport_event_handler.replicas ON DELETE CASCADE,
  state integer REFERENCES teleport_event_handler.states ON DELETE CASCADE, number bigint NOT NULL,
  PRIMARY KEY (epoch, state))""",
    # Who reads what. The epoch of one that is gone becomes NULL: what it had begun is taken over.
    """CREATE TABLE teleport_event_handler.claims (
  state integer REFERENCES teleport_event_handler.states ON DELETE CASCADE, unit text,
  epoch bigint REFERENCES teleport_event_handler.replicas ON DELETE SET NULL, PRIMARY KEY (state, unit))""",
    "CREATE INDEX ON teleport_event_handler.claims (epoch)",
    """CREATE TABLE teleport_event_handler.facts (
  state integer REFERENCES teleport_event_handler.states ON DELETE CASCADE, name text, value text NOT NULL,
  PRIMARY KEY (state, name))""",
    """CREATE TABLE teleport_event_handler.positions (
  state integer REFERENCES teleport_event_handler.states ON DELETE CASCADE, stream text COLLATE "C",
  position text NOT NULL, PRIMARY KEY (state, stream))""",
    """CREATE TABLE teleport_event_handler.delivered (
  state integer REFERENCES teleport_event_handler.states ON DELETE CASCADE,
  number bigint GENERATED ALWAYS AS IDENTITY, epoch bigint, count integer NOT NULL, ids bytea NOT NULL,
  PRIMARY KEY (state, number))""",
    """CREATE TABLE teleport_event_handler.recordings (
  state integer REFERENCES teleport_event_handler.states ON DELETE CASCADE, session_id text,
  announced double precision NOT NULL CHECK (announced <> 'NaN'), uploaded boolean NOT NULL,
  attempts integer NOT NULL DEFAULT 0, next_try double precision NOT NULL, next_index bigint NOT NULL DEFAULT 0,
  looks integer NOT NULL DEFAULT 0, done double precision, begun boolean NOT NULL DEFAULT false,
  epoch bigint REFERENCES teleport_event_handler.replicas ON DELETE SET NULL, PRIMARY KEY (state, session_id))""",
    "CREATE INDEX ON teleport_event_handler.recordings (state, next_try) WHERE done IS NULL",
    "CREATE INDEX ON teleport_event_handler.recordings (state, done) WHERE done IS NOT NULL",
    "CREATE INDEX ON teleport_event_handler.recordings (epoch) WHERE epoch IS NOT NULL",
    """CREATE TABLE teleport_event_handler.dead_letters (
  state integer REFERENCES teleport_event_handler.states ON DELETE CASCADE, number bigint,
  time double precision NOT NULL, sink text NOT NULL, reason text NOT NULL, type text NOT NULL, id text NOT NULL,
  session_id text NOT NULL, body bytea NOT NULL, event_time double precision, event_index bigint NOT NULL DEFAULT 0,
  retry boolean NOT NULL DEFAULT false, PRIMARY KEY (state, number))""",
    """CREATE TABLE teleport_event_handler.failed_logins (
  state integer REFERENCES teleport_event_handler.states ON DELETE CASCADE, id text, moment double precision NOT NULL,
  who text NOT NULL, PRIMARY KEY (state, id))""",
    "CREATE INDEX ON teleport_event_handler.failed_logins (state, who, moment)",
    """CREATE TABLE teleport_event_handler.locks_to_make (
  state integer REFERENCES teleport_event_handler.states ON DELETE CASCADE, "user" text, login text,
  PRIMARY KEY (state, "user", login))""",
)
# From each version to the next one; the first makes everything.
_STEPS: tuple[tuple[LiteralString, ...], ...] = (_MAKE_ALL,)


async def migrate(connection: psycopg.AsyncConnection[Any], shown: str) -> None:
    """Make what is missing, in the transaction that runs. Raises StorageError for tables of a newer version."""
    if await _version(connection) == TABLES_VERSION:
        return
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    found = await _version(connection)
    if found > TABLES_VERSION:
        raise StorageError(
            f"the state in {shown} is of a newer version (tables of version {found}, known are {TABLES_VERSION})",
            "Run the version of the event handler that made them, or name another database.",
        )
    if not found:
        await connection.execute("CREATE SCHEMA IF NOT EXISTS teleport_event_handler")
    for step in _STEPS[found:]:
        for statement in step:
            await connection.execute(statement)
    await connection.execute("DELETE FROM teleport_event_handler.version")
    await connection.execute("INSERT INTO teleport_event_handler.version VALUES (%s)", (TABLES_VERSION,))


async def _version(connection: psycopg.AsyncConnection[Any]) -> int:
    # Of the catalogue's rows: a look by name is answered from a cache that knows nothing of tables made meanwhile.
    cursor = await connection.execute(
        "SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = 'teleport_event_handler' AND tablename = 'version'"
    )
    if await cursor.fetchone() is None:
        return 0
    row = await (await connection.execute("SELECT number FROM teleport_event_handler.version")).fetchone()
    return int(row[0]) if row else 0
