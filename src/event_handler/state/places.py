"""Where states are kept: each in a directory of its own, or all in a database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from event_handler.errors import StateError
from event_handler.ports import StateStore
from event_handler.state.bucket import is_bucket
from event_handler.state.dead_letters import DeadLetters, KeptDeadLetters
from event_handler.state.directory import state_directory, states_below
from event_handler.state.postgresql.dead_letters import DatabaseDeadLetters
from event_handler.state.postgresql.session import is_database, opened, shown_place
from event_handler.state.postgresql.store import PostgresStore
from event_handler.state.sqlite import FILE, SqliteStore


class Place(Protocol):
    """Where the state of one sink of one cluster is kept; `shown` is how it is called."""

    @property
    def cluster(self) -> str: ...

    @property
    def sink(self) -> str: ...

    @property
    def shown(self) -> str: ...

    @property
    def name(self) -> str:
        """`<cluster>/<sink>`, as in names of dead letters."""

    async def look(self) -> StateStore:
        """To read only, also while event handlers work there. Raises StateError."""

    async def work(self) -> StateStore:
        """To change it; it must be there. Raises StateError, also while an event handler works there."""

    def letters(self) -> KeptDeadLetters: ...


@dataclass(frozen=True, slots=True)
class DirectoryPlace:
    directory: Path

    @property
    def cluster(self) -> str:
        return unquote(self.directory.parent.name)

    @property
    def sink(self) -> str:
        return self.directory.name

    @property
    def name(self) -> str:
        return f"{self.directory.parent.name}/{self.directory.name}"

    @property
    def shown(self) -> str:
        return str(self.directory / FILE)

    async def look(self) -> StateStore:
        return SqliteStore.to_read(self.directory / FILE)

    async def work(self) -> StateStore:
        return SqliteStore(self.directory, existing=True)

    def letters(self) -> KeptDeadLetters:
        return DeadLetters(self.directory / FILE)


@dataclass(frozen=True, slots=True)
class DatabasePlace:
    url: str
    cluster: str
    sink: str

    @property
    def name(self) -> str:
        return f"{self.cluster}/{self.sink}"

    @property
    def shown(self) -> str:
        return shown_place(self.url)

    async def look(self) -> StateStore:
        return await PostgresStore.open(self.url, self.cluster, self.sink)

    async def work(self) -> StateStore:
        return await PostgresStore.open(self.url, self.cluster, self.sink)

    def letters(self) -> KeptDeadLetters:
        return DatabaseDeadLetters(self.url, self.cluster, self.sink)


def places_in(storage: str, cluster: str = "", sink: str = "") -> list[Place]:
    """Of all states, or of those of one cluster or sink. Raises StateError where that cannot be found out."""
    if is_database(storage):
        return [
            DatabasePlace(storage, of, name)
            for of, name in _states_of(storage)
            if cluster in ("", of) and sink in ("", name)
        ]
    if is_bucket(storage):
        raise StateError(
            f"a state in a bucket is not looked at where it is ({shown_place(storage)})",
            "Get the object and unpack it into a directory (docs/standby.md).",
        )
    root = Path(storage)
    found = states_below(root, sink)
    if cluster:
        found = [path for path in found if path == state_directory(root, cluster, path.name)]
    return [DirectoryPlace(path) for path in found]


def _states_of(url: str) -> list[tuple[str, str]]:
    """Cluster and sink of each state in the database."""
    with opened(url) as database:
        if database.execute("SELECT to_regclass('teleport_event_handler.states')").fetchone() == (None,):
            return []
        return database.execute("SELECT cluster, sink FROM teleport_event_handler.states ORDER BY 1, 2").fetchall()
