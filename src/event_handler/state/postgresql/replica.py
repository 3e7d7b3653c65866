"""This process among those that share the work of a cluster: its number (epoch), and that it lives.

A replica says every second and a half that it lives. One that has not for six seconds is taken out by any other, which
frees what it had claimed. What it writes afterwards, paused or cut off meanwhile, is refused, for its number is gone.
All times are the database's, so clocks of machines do not matter.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog

from event_handler.errors import StateError
from event_handler.state.postgresql.schema import migrate
from event_handler.state.postgresql.session import Session

BEAT = 1.5  # seconds between signs of life
LIVES = 6.0  # seconds for which one of them holds; with the beat of another replica, taken over in less than ten

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Seen:
    """A replica as the database knows it. `report` is what it tells of itself, `units` how much it has claimed."""

    epoch: int
    name: str
    alive: bool
    since: float
    units: int
    turns: tuple[str, ...]
    report: dict[str, Any]


class Replica:
    """A Membership. Joins with `join`, lives while `run` does. `lost` is set when the others have taken it out."""

    def __init__(self, url: str, cluster: str) -> None:
        self._session = Session(url)
        self.cluster = cluster
        self.name = f"{socket.gethostname()}/{os.getpid()}"
        self.epoch = 0
        self.counter = ""
        self.lost = asyncio.Event()

    @property
    def place(self) -> str:
        return self._session.shown

    @property
    def standing_by(self) -> bool:
        """All work side by side."""
        return False

    async def join(self) -> None:
        """Become one of them, with a new number. Raises StateError."""

        async def insert(connection: Any) -> int:
            await migrate(connection, self.place)
            cursor = await connection.execute(
                "INSERT INTO teleport_event_handler.replicas (cluster, name, expires)"
                " VALUES (%s, %s, now() + %s * interval '1 second') RETURNING epoch",
                (self.cluster, self.name, LIVES),
            )
            return int((await cursor.fetchone())[0])

        self.epoch = await self._session.run(insert)
        self.lost.clear()

    async def run(self, report: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        """Say again and again that it lives and what it does, and take out those that do not, until it is lost."""
        import orjson

        while True:
            try:
                told = orjson.dumps(await report()).decode()
                if not await self._beat(told):
                    self.lost.set()
                    await asyncio.Event().wait()
            except StateError as error:
                log.warning("cannot tell the other replicas that this one lives", error=str(error))
            await asyncio.sleep(BEAT)

    async def _beat(self, report: str) -> bool:
        async def beat(connection: Any) -> bool:
            cursor = await connection.execute(
                "UPDATE teleport_event_handler.replicas SET expires = now() + %s * interval '1 second',"
                " report = %s::jsonb WHERE epoch = %s",
                (LIVES, report, self.epoch),
            )
            # One that stands still in a transaction is taken out when the server has ended that.
            gone = await connection.execute(
                "DELETE FROM teleport_event_handler.replicas WHERE epoch IN (SELECT epoch FROM"
                " teleport_event_handler.replicas WHERE expires < now() FOR UPDATE SKIP LOCKED) RETURNING epoch, name",
            )
            for epoch, name in await gone.fetchall():
                log.warning("a replica has ended without a word, and is taken over from", replica=name, epoch=epoch)
            return bool(cursor.rowcount)

        return await self._session.run(beat)

    async def others(self) -> list[Seen]:
        """All that are known for the cluster, this one too."""
        rows = await self._session.rows(
            "SELECT epoch, name, expires >= now(), extract(epoch FROM now() - started)::float8, coalesce(report, '{}'),"
            " (SELECT count(*) FROM teleport_event_handler.claims c WHERE c.epoch = r.epoch)"
            " + (SELECT count(*) FROM teleport_event_handler.recordings c WHERE c.epoch = r.epoch),"
            " ARRAY(SELECT s.sink || ':' || c.unit FROM teleport_event_handler.claims c"
            " JOIN teleport_event_handler.states s ON s.id = c.state WHERE c.epoch = r.epoch AND c.unit LIKE 'turn/%%'"
            " ORDER BY 1)"
            " FROM teleport_event_handler.replicas r WHERE cluster = %s ORDER BY epoch",
            (self.cluster,),
        )
        return [
            Seen(epoch, name, alive, since, units, tuple(turns), report)
            for epoch, name, alive, since, report, units, turns in rows
        ]

    async def leave(self) -> None:
        """Give everything back at once, for others to take."""
        try:
            await self._session.rows("DELETE FROM teleport_event_handler.replicas WHERE epoch = %s", (self.epoch,))
        except StateError as error:
            log.warning("the other replicas could not be told that this one ends", error=str(error), after_s=LIVES)
        finally:
            self.close()

    def close(self) -> None:
        self._session.close()
