"""A PostgreSQL cluster of its own for tests, from the programs of the system: on loopback or a UNIX socket, with or
without TLS.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psycopg

from event_handler.sinks.postgresql import PostgresqlOptions, PostgresqlSink
from tests.contract.message_adapter import MessageAdapter
from tests.contract.pki import Pki
from tests.contract.ports import free_ports

VARIABLE = "POSTGRESQL_BIN"  # directory of initdb and postgres
USER, PASSWORD, DATABASE = "teleport", "hunter2-of-postgresql", "postgres"
INITDB = ("--no-sync", "--encoding=UTF8", "--locale=C")
START = 30.0  # seconds that a server may take to start on a loaded machine


def programs() -> Path | None:
    """Where initdb and postgres are, the newest version first."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    found = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/opt/homebrew/opt").glob("postgresql@*/bin")]
    found = [place for place in found if (place / "initdb").exists()]
    return max(found, default=None, key=lambda place: place.parent.name)


def no_postgresql() -> str:
    """Why there is none, "" where there is one."""
    if programs() is None:
        return f"no PostgreSQL server is installed, and {VARIABLE} names none"
    return "" if os.getuid() or _account() else "PostgreSQL does not run as root, and there is no user for it"


def _account() -> str:
    """The user for the server where we are root, which it refuses."""
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in known), "")


class Server:
    """A cluster in a directory of its own; all clients sign in with a password, or with a certificate of `pki`."""

    def __init__(self, directory: Path, pki: Pki | None = None) -> None:
        found = programs()
        assert found is not None
        self._bin, self._directory, self._pki = found, directory, pki
        self._process: subprocess.Popen[bytes] | None = None
        self._as: dict[str, Any] = {"cwd": directory}
        if os.getuid() == 0:
            entry = pwd.getpwnam(_account())
            os.chown(directory, entry.pw_uid, entry.pw_gid)
            self._as |= {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        self.port = free_ports(1)[0]
        self._make()

    def _make(self) -> None:
        secret = self._written("password", PASSWORD.encode())
        made = subprocess.run(
            [str(self._bin / "initdb"), "-D", "data", "-U", USER, "-A", "scram-sha-256", f"--pwfile={secret}", *INITDB],
            capture_output=True,
            **self._as,
        )
        assert made.returncode == 0, made.stderr
        rules = "local all,replication all scram-sha-256\nhost all,replication all 127.0.0.1/32 scram-sha-256\n"
        if self._pki is not None:
            key, cert = self._pki.issue("localhost")
            self._written("server.key", key)
            self._written("server.crt", cert)
            self._written("ca.crt", self._pki.path("ca.crt").read_bytes())
            rules = "hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\nlocal all all scram-sha-256\n"
        self._written("data/pg_hba.conf", rules.encode())

    def _written(self, name: str, content: bytes) -> Path:
        path = self._directory / name
        path.write_bytes(content)
        path.chmod(0o600)
        if "user" in self._as:
            os.chown(path, self._as["user"], self._as["group"])
        return path

    @property
    def log(self) -> Path:
        return self._directory / "log"

    def url(self, host: str = "", user: str = USER, password: str = PASSWORD, database: str = DATABASE) -> str:
        place = f"{host}:{self.port}" if host else f"{str(self._directory).replace('/', '%2F')}:{self.port}"
        return f"postgresql://{user}{':' if password else ''}{password}@{place}/{database}"

    def start(self) -> None:
        settings = ["listen_addresses=127.0.0.1", "fsync=off", "max_connections=20", "shared_buffers=16MB"]
        if self._pki is not None:
            settings += ["ssl=on", "ssl_cert_file=../server.crt", "ssl_key_file=../server.key", "ssl_ca_file=../ca.crt"]
        options = [part for setting in settings for part in ("-c", setting)]
        command = [
            str(self._bin / "postgres"),
            "-D",
            "data",
            "-k",
            str(self._directory),
            "-p",
            str(self.port),
            *options,
        ]
        with self.log.open("ab") as log:
            process: subprocess.Popen[bytes] = subprocess.Popen(command, stdout=log, stderr=log, **self._as)
        self._process = process
        until = monotonic() + START
        while process.poll() is None and monotonic() < until:
            try:
                psycopg.connect(self.url()).close()
                return
            except psycopg.OperationalError:
                sleep(0.02)
        raise RuntimeError(f"PostgreSQL did not start: {self.log.read_text()[-2000:]}")

    def standby(self, directory: Path) -> Server:
        """A server that follows this one, which must run."""
        made = Server.__new__(Server)
        made._bin, made._directory, made._pki, made._process, made._as = self._bin, directory, self._pki, None, self._as
        made._as = {**self._as, "cwd": directory}
        made.port = free_ports(1)[0]
        if "user" in self._as:
            os.chown(directory, self._as["user"], self._as["group"])
        command = [str(self._bin / "pg_basebackup"), "-D", "data", "-R", "-X", "stream", "-c", "fast", "-d", self.url()]
        done = subprocess.run(command, capture_output=True, **made._as)
        assert done.returncode == 0, done.stderr
        return made

    def stop(self, how: int = signal.SIGINT) -> None:
        """SIGINT cuts all clients and shuts down, SIGQUIT ends at once as a crash does."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query, [] for a statement without any."""
        with psycopg.connect(self.url(), autocommit=True, options="-c default_transaction_read_only=off") as connection:
            cursor = connection.execute(query.encode(), values or None)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def serving(pki: Pki | None = None) -> Iterator[Server]:
    """A cluster that runs, in a short path: a UNIX socket's has 100 characters at most."""
    directory = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        server = Server(directory, pki)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory)


class Table:
    """A table for the suite of sinks that do not speak HTTP."""

    option = "sinks.database.url"

    def __init__(self, server: Server) -> None:
        self.server = server

    def sink(self, **more: Any) -> PostgresqlSink:
        known = {"url": self.server.url(), "create_table": True, "timeout": 10.0}
        return PostgresqlSink(PostgresqlOptions(**{**known, **more}), "database", "sinks.database")

    async def taken(self) -> list[dict[str, Any]]:
        if await asyncio.to_thread(self.server.ask, "SELECT to_regclass('teleport_events')") == [(None,)]:
            return []
        return [
            row[0] for row in await asyncio.to_thread(self.server.ask, "SELECT body FROM teleport_events ORDER BY ctid")
        ]

    async def stop(self) -> None:
        await asyncio.to_thread(self.server.stop)

    async def start(self) -> None:
        await asyncio.to_thread(self.server.start)


@asynccontextmanager
async def _receiving(_: Path) -> AsyncIterator[Table]:
    with serving() as server:
        yield Table(server)


POSTGRESQL = [MessageAdapter("postgresql", _receiving, no_postgresql)]
