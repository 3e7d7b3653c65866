"""One connection to the database of the state, made again when it was lost, and what its errors mean.

Nothing of a session outlives a transaction (no SET, no prepared statement, no lock of the session), so that a pooler
may stand in between, also one that hands out connections by the transaction.

Facts: PostgreSQL's documentation, "Database Connection Control Functions", "Error Codes"; PgBouncer's, "Features".
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString, TypeVar

from event_handler import redact
from event_handler.errors import StateError, StorageError
from event_handler.state.bucket import is_bucket

if TYPE_CHECKING:
    import psycopg

SCHEMES = ("postgresql://", "postgres://")
CONNECT_WITHIN = "5"  # seconds; a primary that is gone is looked for again soon
ANSWERS_WITHIN = 20.0  # seconds for a transaction, its connection made before it; longer than any of ours takes
# How long the server waits for a process that stands still in the middle of a transaction: whoever takes over from it
# waits as long for its locks.
STANDS_STILL = "3s"
STATEMENT = "15s"
BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
# SQLSTATE and what libpq says that only a person can change.
FOR_A_PERSON = ("28", "3D", "42501", "42P", "0A", "3F")
SIGN_IN_TEXTS = (
    "authentication failed",
    "no password supplied",
    "does not exist",
    "no pg_hba.conf entry",
    "certificate",
)

R = TypeVar("R")


def is_database(storage: str) -> bool:
    """Whether `storage` is the URL of a database, and not a directory."""
    return storage.startswith(SCHEMES)


def parameters_of(url: str) -> dict[str, Any]:
    """What libpq is given. Raises StorageError for a URL that it does not understand.

    TLS is verified unless the URL says otherwise, or leads to this machine.
    """
    from psycopg import Error
    from psycopg.conninfo import conninfo_to_dict

    try:
        given = conninfo_to_dict(url)
    except Error:
        raise StorageError(
            "the storage is no URL that PostgreSQL understands", "Write it as postgresql://user@host:5432/database."
        ) from None
    redact.know([str(given["password"])] if given.get("password") else [])
    hosts = str(given.get("hostaddr") or given.get("host") or "").split(",")
    if "sslmode" not in given and not all(map(_is_here, hosts)):
        given["sslmode"] = "verify-full"
    if str(given.get("sslmode", "")).startswith("verify") and "sslrootcert" not in given:
        given["sslrootcert"] = next((place for place in BUNDLES if Path(place).exists()), "system")
    own = {"connect_timeout": CONNECT_WITHIN, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
    own |= {"tcp_user_timeout": 10_000, "application_name": "teleport-event-handler"}
    if "," in str(given.get("host", "")):
        own["target_session_attrs"] = "read-write"  # the primary, which changes
    return {**own, **given}


def shown_place(storage: str) -> str:
    """The storage as it may be shown: a directory's whole path, a database without its password, a bucket without
    what else its URL says.
    """
    if is_bucket(storage):
        return storage.partition("?")[0]
    return shown(storage) if is_database(storage) else str(Path(storage).absolute())


def shown(url: str) -> str:
    """The URL without password and options."""
    given = parameters_of(url)
    hosts = str(given.get("host") or given.get("hostaddr") or "localhost").split(",")
    ports = str(given.get("port") or "").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    places = ",".join(f"{host}:{port or 5432}" for host, port in zip(hosts, ports, strict=False))
    return f"postgresql://{places}/{given.get('dbname') or ''}"


class Session:
    """Runs one transaction after the other; `url` is PostgreSQL's, with all that libpq knows in it (`passfile` too)."""

    def __init__(self, url: str) -> None:
        self._parameters = parameters_of(url)
        self.shown = shown(url)
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._turn = asyncio.Lock()

    async def run(self, work: Callable[[psycopg.AsyncConnection[Any]], Awaitable[R]]) -> R:
        """Do `work` in a transaction. Raises StateError: all of it has happened then, or nothing."""
        import psycopg

        async with self._turn:
            try:
                async with asyncio.timeout(ANSWERS_WITHIN):
                    connection = await self._connected()
                    async with connection.transaction():
                        await connection.execute(
                            "SELECT set_config('idle_in_transaction_session_timeout', %s, true),"
                            " set_config('statement_timeout', %s, true), set_config('client_encoding', 'UTF8', true)",
                            (STANDS_STILL, STATEMENT),
                        )
                        return await work(connection)
            except psycopg.Error as error:
                if error.sqlstate is None or self._lost:
                    self.close()
                raise self.unusable(error) from None
            except (OSError, TimeoutError) as error:
                self.close()
                raise self.unusable(error) from None
            except BaseException:  # cancelled in the middle of a transaction, or refused by `work`
                if self._lost or not self._is_idle:
                    self.close()
                raise

    async def rows(self, query: LiteralString, values: Any = ()) -> list[Any]:
        """The rows of one query, [] for a statement without any."""

        async def ask(connection: psycopg.AsyncConnection[Any]) -> list[Any]:
            cursor = await connection.execute(query, values)
            return await cursor.fetchall() if cursor.description else []

        return await self.run(ask)

    def close(self) -> None:
        """At once; a transaction that runs is rolled back."""
        if self._connection is not None:
            self._connection.pgconn.finish()
            self._connection = None

    async def _connected(self) -> psycopg.AsyncConnection[Any]:
        import psycopg

        if self._connection is None or self._lost:
            self._connection = await psycopg.AsyncConnection.connect(
                **self._parameters, autocommit=True, prepare_threshold=None
            )
        return self._connection

    @property
    def _lost(self) -> bool:
        return self._connection is not None and (self._connection.closed or self._connection.broken)

    @property
    def _is_idle(self) -> bool:
        from psycopg.pq import TransactionStatus

        return self._connection is not None and self._connection.info.transaction_status == TransactionStatus.IDLE

    def unusable(self, error: BaseException) -> StateError:
        """The error for whoever asked; a StorageError where only a person can change what is wrong."""
        state = str(getattr(error, "sqlstate", None) or "")
        diagnosis = getattr(getattr(error, "diag", None), "message_primary", None)
        text = (str(diagnosis or error).strip() or "no answer").splitlines()[0]
        if isinstance(error, TimeoutError):
            text = f"no answer within {ANSWERS_WITHIN:.0f} s"
        text = redact.without_secrets(text)
        if state.startswith(FOR_A_PERSON) or (not state and any(part in text for part in SIGN_IN_TEXTS)):
            return StorageError(
                f"the state in {self.shown} is not usable ({text})",
                "Check user, password, database and certificates in storage, and what the user may do.",
            )
        return StateError(f"the state in {self.shown} is not usable ({text})", "Check the database and the way to it.")


@contextmanager
def opened(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection for a command that a person has given; the block is one transaction. Raises StateError."""
    import psycopg

    try:
        with psycopg.connect(**parameters_of(url), prepare_threshold=None) as connection:
            yield connection
    except psycopg.Error as error:
        raise Session(url).unusable(error) from None


def _is_here(host: str) -> bool:
    if not host or host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
