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
from functools import partial
from typing import Any

import structlog

from event_handler.errors import StateError
from event_handler.report import ReplicaReport
from event_handler.state.postgresql.schema import migrate
from event_handler.state.postgresql.session import Session

BEAT = 1.5  # seconds between signs of life
LIVES = 6.0  # seconds for which one of them holds; with the beat of another replica, taken over in less than ten

log = structlog.get_logger()


class Replica:
    """A Membership. Joins with `join`, lives while `run` does. `lost` is set when the others have taken it out."""

    def __init__(self, url: str, cluster: str) -> None:
        self._session = Session(url)
        self.cluster = cluster
        self.name = f"{socket.gethostname()}/{os.getpid()}"
        self.epoch = 0
        self.counter = ""
        self.lost = asyncio.Event()
        self.seen: tuple[ReplicaReport, ...] = ()  # all of them, at the last beat

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
                self.seen = tuple(await self.others())
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

    async def others(self) -> list[ReplicaReport]:
        """All that are known for the cluster, this one too."""
        return await _seen(self._session, self.cluster, self.epoch)

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


async def replicas_of(url: str, cluster: str) -> list[ReplicaReport]:
    """All replicas of a cluster that the database knows. Raises StateError."""
    session = Session(url)
    try:
        await session.run(partial(migrate, shown=session.shown))
        return await _seen(session, cluster)
    finally:
        session.close()


async def clock_of(url: str) -> float:
    """What time it is for the database, in seconds since the epoch. Raises StateError."""
    session = Session(url)
    try:
        return float((await session.rows("SELECT extract(epoch FROM clock_timestamp())"))[0][0])
    finally:
        session.close()


async def _seen(session: Session, cluster: str, own: int = 0) -> list[ReplicaReport]:
    rows = await session.rows(
        "SELECT epoch, name, expires >= now(), extract(epoch FROM now() - started)::float8, coalesce(report, '{}'),"
        " (SELECT count(*) FROM teleport_event_handler.claims c WHERE c.epoch = r.epoch)"
        " + (SELECT count(*) FROM teleport_event_handler.recordings c WHERE c.epoch = r.epoch),"
        " ARRAY(SELECT s.sink || ': ' || substr(c.unit, 6) FROM teleport_event_handler.claims c"
        " JOIN teleport_event_handler.states s ON s.id = c.state WHERE c.epoch = r.epoch AND c.unit LIKE 'turn/%%'"
        " ORDER BY 1)"
        " FROM teleport_event_handler.replicas r WHERE cluster = %s ORDER BY epoch",
        (cluster,),
    )
    return [
        ReplicaReport(
            *(epoch, name, epoch == own, alive, since, units, tuple(turns)),
            lag=report.get("lag"),
            delivered=report.get("delivered", 0),
        )
        for epoch, name, alive, since, report, units, turns in rows
    ]
