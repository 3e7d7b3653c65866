"""The state of one sink in PostgreSQL, as several replicas share it.

What one acknowledged group changes is one transaction. It begins with a look at the replica's own row: a process that
was taken out meanwhile finds none, and can write nothing. Where the answer to a commit is lost, its number tells later
whether it has happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import date
from math import inf
from time import time
from typing import TYPE_CHECKING, Any, Final, LiteralString, TypeVar

from event_handler.checkpoint import DONE, Chunk, ChunkCheckpoint, Progress, RecordingCheckpoint
from event_handler.errors import StateError, StorageError
from event_handler.ports import REMEMBERED_IDS, Commit, DeadLetter, FailedLogin, RecordingItem
from event_handler.state import keys
from event_handler.state.postgresql.schema import migrate
from event_handler.state.postgresql.session import Session
from event_handler.state.sqlite import FINISHED_KEPT, FORGOTTEN_AT_ONCE, LETTERS_AT_ONCE

if TYPE_CHECKING:
    import psycopg

NUL_SHOWN: Final = "\u2400"  # ␀: PostgreSQL stores no NUL
OVERTAKEN = 1000  # groups that may be committed behind one with a higher number
TURN = "turn/"  # how claims begin that are of no chunk
OUTDATED = "this replica was taken out by the others, as one that had stopped"

R = TypeVar("R")


class PostgresStore:
    """The state of a sink in a cluster, a StateStore. `epoch` is the replica that writes, 0 for whoever only looks."""

    def __init__(
        self, session: Session, cluster: str, sink: str, state: int, epoch: int, lost: asyncio.Event | None
    ) -> None:
        self._session = session
        self._cluster, self._sink = cluster, sink
        self._state, self._epoch = state, epoch
        self._lost = lost or asyncio.Event()
        self._number = 0  # of the last commit
        self._confirmed = 0  # of the last one that has happened for certain
        self._doubt: list[DeadLetter] | None = None  # those of a commit of which it is not known whether it happened
        self._ids: int | None = None
        self._seen = 0  # number of the newest group of ids that is known here
        self._took_over = False  # something was, so what others have delivered is to be known

    @classmethod
    async def open(
        cls, url: str, cluster: str, sink: str, epoch: int = 0, lost: asyncio.Event | None = None
    ) -> PostgresStore:
        """Make what is missing. `lost` is set when this replica must begin again. Raises StateError."""
        session = Session(url)

        async def state_of(connection: psycopg.AsyncConnection[Any]) -> int:
            await migrate(connection, session.shown)
            await connection.execute(
                "INSERT INTO teleport_event_handler.states (cluster, sink, created) VALUES (%s, %s, %s)"
                " ON CONFLICT DO NOTHING",
                (cluster, sink, time()),
            )
            cursor = await connection.execute(
                "SELECT id FROM teleport_event_handler.states WHERE cluster = %s AND sink = %s", (cluster, sink)
            )
            rows = await cursor.fetchall()
            return int(rows[0][0])

        try:
            return cls(session, cluster, sink, await session.run(state_of), epoch, lost)
        except BaseException:
            session.close()
            raise

    async def finish(self) -> None:
        """Each commit was in the database when it ended."""

    def close(self) -> None:
        self._session.close()

    # Asking and writing

    async def _rows(self, query: LiteralString, *values: Any) -> list[Any]:
        """What a query of this state says; the state is its first value."""
        return await self._session.rows(query, (self._state, *values))

    async def _write(self, work: Callable[[psycopg.AsyncConnection[Any]], Awaitable[R]]) -> R:
        """Do `work` in a transaction, if this replica has not been taken out."""

        async def fenced(connection: psycopg.AsyncConnection[Any]) -> R:
            await self._fence(connection)
            return await work(connection)

        return await self._session.run(fenced)

    async def _fence(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Hold our own row to the end of the transaction, so that nobody takes us out in its middle."""
        if not self._epoch:
            return
        cursor = await connection.execute(
            "SELECT 1 FROM teleport_event_handler.replicas WHERE epoch = %s FOR KEY SHARE", (self._epoch,)
        )
        if await cursor.fetchone() is None:
            self._lost.set()
            raise StateError(OUTDATED, "It begins again as a new one.")

    async def _change(self, query: LiteralString, *values: Any) -> int:
        """One statement that writes; return how many rows it met. The state is its first value."""

        async def change(connection: psycopg.AsyncConnection[Any]) -> int:
            return (await connection.execute(query, (self._state, *values))).rowcount

        return await self._write(change)

    # Whose it is, and where it began

    async def claim(self, cluster: str) -> None:
        if cluster != self._cluster:
            raise StorageError(
                f"this state belongs to the cluster {self._cluster}, and the credentials are for {cluster}",
                "Name another storage.",
            )

    async def is_new(self) -> bool:
        return await self._fact(keys.START_TIME) == ""

    async def start(self) -> float | None:
        saved = await self._fact(keys.START_TIME)
        return float(saved) if saved else None

    async def begin(self, asked: float | None) -> float:
        created = (await self._rows("SELECT created FROM teleport_event_handler.states WHERE id = %s"))[0][0]
        begin = float(int(created if asked is None else asked))
        await self._change(
            "INSERT INTO teleport_event_handler.facts VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            keys.START_TIME,
            str(begin),
        )
        return float(await self._fact(keys.START_TIME))

    async def note(self, name: str) -> str:
        return await self._fact(name)

    async def _fact(self, name: str) -> str:
        rows = await self._rows("SELECT value FROM teleport_event_handler.facts WHERE state = %s AND name = %s", name)
        return str(rows[0][0]) if rows else ""

    # How far it is

    async def progress(self) -> Progress:
        async def read(connection: psycopg.AsyncConnection[Any]) -> Progress:
            facts = await connection.execute(
                "SELECT name, value FROM teleport_event_handler.facts WHERE state = %s", (self._state,)
            )
            positions = await connection.execute(
                "SELECT stream, position FROM teleport_event_handler.positions WHERE state = %s", (self._state,)
            )
            try:
                return keys.progress(dict(await facts.fetchall()), await positions.fetchall())
            except (ValueError, KeyError) as error:
                raise StorageError(
                    f"the state of {self._sink} in {self._session.shown} is damaged ({error})",
                    "Correct it, or start over in another database with a start-time.",
                ) from None

        return await self._session.run(read)

    async def close_days(self, first: date) -> None:
        async def close(connection: psycopg.AsyncConnection[Any]) -> None:
            await connection.execute(
                "INSERT INTO teleport_event_handler.facts VALUES (%s, %s, %s)"
                " ON CONFLICT (state, name) DO UPDATE SET value = greatest(facts.value, excluded.value)",
                (self._state, keys.FIRST_DAY, str(first)),
            )
            for table in _BY_STREAM:
                await connection.execute(table, (self._state, *keys.chunks_before(first)))

        await self._write(close)

    async def last_id_passed(self) -> None:
        await self._change("DELETE FROM teleport_event_handler.facts WHERE state = %s AND name = %s", keys.LAST_ID)

    async def delivered_ids(self) -> list[bytes]:
        return await self._ids_after(0)

    async def taken_over_ids(self) -> list[bytes]:
        if not self._took_over:
            return []
        ids = await self.new_ids()
        self._took_over = False
        return ids

    async def new_ids(self) -> list[bytes]:
        # Numbers are given before a commit, and commits overtake one another.
        return await self._ids_after(self._seen - OVERTAKEN)

    async def _ids_after(self, number: int) -> list[bytes]:
        rows = await self._rows(
            "SELECT number, ids FROM teleport_event_handler.delivered WHERE state = %s AND number > %s ORDER BY number",
            number,
        )
        self._seen = max([self._seen, *(row[0] for row in rows)])
        return [bytes(row[1]) for row in rows]

    # Sharing the work

    async def take(self, chunk: Chunk) -> str | None:
        unit = keys.stream_of(chunk)

        async def claim(connection: psycopg.AsyncConnection[Any]) -> str | None:
            if not await self._claim(connection, unit):
                return None
            # Looked at behind the claim: until then another replica may have finished it.
            cursor = await connection.execute(
                "SELECT (SELECT value FROM teleport_event_handler.facts WHERE state = s.id AND name = %s),"
                " (SELECT value FROM teleport_event_handler.facts WHERE state = s.id AND name = %s),"
                " (SELECT position FROM teleport_event_handler.positions WHERE state = s.id AND stream = %s)"
                " FROM teleport_event_handler.states s WHERE id = %s",
                (keys.FIRST_DAY, keys.CLOSED_DAYS, unit, self._state),
            )
            first, closed, position = await cursor.fetchone() or (None, None, None)
            facts = {keys.FIRST_DAY: first or "", keys.CLOSED_DAYS: closed or ""}
            reached = keys.progress(facts, [(unit, position)] if position else []).cursor(chunk)
            if reached == DONE:
                await connection.execute(
                    "DELETE FROM teleport_event_handler.claims WHERE state = %s AND unit = %s", (self._state, unit)
                )
            return reached

        return await self._write(claim)

    async def give_back(self, chunk: Chunk) -> None:
        await self._free(keys.stream_of(chunk))

    async def take_turn(self, name: str) -> bool:
        async def claim(connection: psycopg.AsyncConnection[Any]) -> bool:
            return await self._claim(connection, f"{TURN}{name}")

        return await self._write(claim)

    async def end_turn(self, name: str) -> None:
        await self._free(f"{TURN}{name}")

    async def _free(self, unit: str) -> None:
        await self._change(
            "DELETE FROM teleport_event_handler.claims WHERE state = %s AND unit = %s AND epoch = %s", unit, self._epoch
        )

    async def _claim(self, connection: psycopg.AsyncConnection[Any], unit: str) -> bool:
        """Return whether it is ours now. One that is in there without an owner was begun by a replica that is gone."""
        if not self._epoch:
            return True
        cursor = await connection.execute(
            "SELECT epoch FROM teleport_event_handler.claims WHERE state = %s AND unit = %s", (self._state, unit)
        )
        before = await cursor.fetchone()
        cursor = await connection.execute(
            "INSERT INTO teleport_event_handler.claims VALUES (%s, %s, %s) ON CONFLICT (state, unit)"
            " DO UPDATE SET epoch = excluded.epoch WHERE claims.epoch IS NULL OR claims.epoch = excluded.epoch",
            (self._state, unit, self._epoch),
        )
        self._took_over |= bool(cursor.rowcount) and before == (None,)
        return bool(cursor.rowcount)

    # What one acknowledged group changes

    async def commit(self, group: Commit) -> None:
        letters = await self._after_doubt(group.dead_letters)
        number = self._number + 1

        async def write(connection: psycopg.AsyncConnection[Any]) -> int:
            await self._fence(connection)
            if self._epoch:
                await self._look_back(connection)
                await connection.execute(
                    "INSERT INTO teleport_event_handler.commits VALUES (%s, %s, %s)"
                    " ON CONFLICT (epoch, state) DO UPDATE SET number = excluded.number",
                    (self._epoch, self._state, number),
                )
            return await self._apply(connection, group, letters)

        try:
            self._ids = await self._session.run(write)
            self._confirmed = number
        except StorageError:
            raise
        except (StateError, asyncio.CancelledError):
            self._doubt, self._ids = list(group.dead_letters), None
            raise
        finally:
            self._number = number

    async def _look_back(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Make sure that what was confirmed is still there: a server that took over from another may never have had it.

        What was read since is not remembered then, recordings that wait among it, so reading begins again.
        """
        cursor = await connection.execute(
            "SELECT number FROM teleport_event_handler.commits WHERE epoch = %s AND state = %s",
            (self._epoch, self._state),
        )
        row = await cursor.fetchone()
        if (row[0] if row else 0) < self._confirmed:
            self._lost.set()
            raise StateError(
                f"the database {self._session.shown} has lost what it had confirmed, as after a failover",
                "Reading begins again at what it remembers; what was delivered since comes again.",
            )

    async def _after_doubt(self, letters: list[DeadLetter]) -> list[DeadLetter]:
        """The letters of a group that are not kept yet: the commit before it may have happened, without an answer.

        Everything else of a group may be written twice. Whoever gave the letters gives them again, first.
        """
        if self._doubt and self._epoch and letters[: len(self._doubt)] == self._doubt:
            rows = await self._rows(
                "SELECT 1 FROM teleport_event_handler.commits WHERE state = %s AND epoch = %s AND number = %s",
                self._epoch,
                self._number,
            )
            if rows:
                letters = letters[len(self._doubt) :]
        self._doubt = None
        return letters

    async def _apply(
        self, connection: psycopg.AsyncConnection[Any], group: Commit, letters: Sequence[DeadLetter]
    ) -> int:
        """Return how many ids of delivered events are remembered then."""
        facts = dict(group.notes)
        if group.start is not None:
            facts[keys.START_TIME] = str(group.start)
        if group.progress is not None:
            facts |= keys.facts_of(group.progress)
            await connection.execute("DELETE FROM teleport_event_handler.positions WHERE state = %s", (self._state,))
            await self._write_positions(connection, keys.positions_of(group.progress))
        if facts:
            await connection.cursor().executemany(
                "INSERT INTO teleport_event_handler.facts VALUES (%s, %s, %s)"
                " ON CONFLICT (state, name) DO UPDATE SET value = excluded.value",
                [(self._state, name, storable(value)) for name, value in facts.items()],
            )
        await self._write_positions(connection, filter(None, map(keys.position_of, group.checkpoints)))
        done = [
            keys.stream_of(one.chunk)
            for one in group.checkpoints
            if isinstance(one, ChunkCheckpoint) and one.cursor == DONE
        ]
        if done and self._epoch:
            await connection.execute(
                "DELETE FROM teleport_event_handler.claims WHERE state = %s AND unit = ANY(%s)", (self._state, done)
            )
        await self._write_recordings(connection, group)
        await self._write_letters(connection, letters)
        return await self._write_ids(connection, group.ids)

    async def _write_positions(
        self, connection: psycopg.AsyncConnection[Any], positions: Iterable[tuple[str, str]]
    ) -> None:
        rows = [(self._state, stream, position) for stream, position in positions]
        if rows:
            await connection.cursor().executemany(
                "INSERT INTO teleport_event_handler.positions VALUES (%s, %s, %s)"
                " ON CONFLICT (state, stream) DO UPDATE SET position = excluded.position",
                rows,
            )

    async def _write_ids(self, connection: psycopg.AsyncConnection[Any], ids: bytes) -> int:
        if self._ids is None:
            cursor = await connection.execute(
                "SELECT coalesce(sum(count), 0) FROM teleport_event_handler.delivered WHERE state = %s", (self._state,)
            )
            row = await cursor.fetchone()
            known = int(row[0]) if row else 0
        else:
            known = self._ids
        if not ids:
            return known
        count = len(ids) // 8
        await connection.execute(
            "INSERT INTO teleport_event_handler.delivered (state, epoch, count, ids) VALUES (%s, %s, %s, %s)",
            (self._state, self._epoch, count, ids),
        )
        if known + count <= REMEMBERED_IDS:
            return known + count
        cursor = await connection.execute(
            "DELETE FROM teleport_event_handler.delivered WHERE state = %s AND number IN (SELECT number FROM (SELECT"
            " number, sum(count) OVER (ORDER BY number DESC) - count AS newer FROM teleport_event_handler.delivered"
            " WHERE state = %s) AS counted WHERE newer >= %s)",
            (self._state, self._state, REMEMBERED_IDS),
        )
        cursor = await connection.execute(
            "SELECT sum(count) FROM teleport_event_handler.delivered WHERE state = %s", (self._state,)
        )
        row = await cursor.fetchone()
        return int(row[0]) if row else 0

    async def _write_recordings(self, connection: psycopg.AsyncConnection[Any], group: Commit) -> None:
        if group.recordings:
            # A session seen again (its upload after its end) only comes due earlier; what was done stays done.
            await connection.cursor().executemany(
                "INSERT INTO teleport_event_handler.recordings (state, session_id, announced, uploaded, attempts,"
                " next_try, next_index) VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (state, session_id) DO UPDATE"
                " SET uploaded = true, next_try = least(recordings.next_try, excluded.next_try)"
                " WHERE excluded.uploaded AND NOT recordings.uploaded",
                [
                    (
                        self._state,
                        storable(i.session_id),
                        i.announced,
                        bool(i.uploaded),
                        i.attempts,
                        i.next_try,
                        i.next_index,
                    )
                    for i in group.recordings
                ],
            )
        moved = [one for one in group.checkpoints if isinstance(one, RecordingCheckpoint)]
        if moved:
            await connection.cursor().executemany(
                "UPDATE teleport_event_handler.recordings SET next_index = %s WHERE state = %s AND session_id = %s",
                [(one.index, self._state, one.recording.session_id) for one in moved],
            )

    async def _write_letters(self, connection: psycopg.AsyncConnection[Any], letters: Sequence[DeadLetter]) -> None:
        if not letters:
            return
        cursor = await connection.execute(
            "UPDATE teleport_event_handler.states SET letters = letters + %s WHERE id = %s RETURNING letters",
            (len(letters), self._state),
        )
        row = await cursor.fetchone()
        first = int(row[0]) - len(letters) + 1 if row else 1
        await connection.cursor().executemany(
            "INSERT INTO teleport_event_handler.dead_letters (state, number, time, sink, reason, type, id, session_id,"
            " body, event_time, event_index) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    *(self._state, number, time()),
                    *map(storable, (d.sink, d.reason, d.type, d.id, d.session_id)),
                    *(d.body, d.time, d.index),
                )
                for number, d in enumerate(letters, first)
            ],
        )

    # Recordings

    async def due_recordings(self, now: float, limit: int, longest_wait: float = inf) -> list[RecordingItem]:
        if not self._epoch:
            return await self._pending(
                "AND (next_try <= %s OR next_try > %s) ORDER BY next_try LIMIT %s", now, now + longest_wait, limit
            )

        async def claim(connection: psycopg.AsyncConnection[Any]) -> list[Any]:
            cursor = await connection.execute(
                "WITH due AS (SELECT session_id, begun AND epoch IS NULL AS orphan FROM"
                " teleport_event_handler.recordings WHERE state = %s AND done IS NULL"
                " AND (next_try <= %s OR next_try > %s) AND (epoch IS NULL OR epoch = %s) ORDER BY next_try LIMIT %s"
                " FOR UPDATE SKIP LOCKED)"
                " UPDATE teleport_event_handler.recordings r SET epoch = %s, begun = true FROM due"
                " WHERE r.state = %s AND r.session_id = due.session_id RETURNING due.orphan, r.session_id, announced,"
                " uploaded, attempts, next_try, next_index, looks",
                (self._state, now, now + longest_wait, self._epoch, limit, self._epoch, self._state),
            )
            return await cursor.fetchall()

        rows = await self._write(claim)
        self._took_over |= any(row[0] for row in rows)
        return sorted((RecordingItem(*row[1:]) for row in rows), key=lambda item: item.next_try)

    async def take_recording(self, session_id: str) -> tuple[bool, RecordingItem] | None:
        if self._epoch:
            await self._change(
                "UPDATE teleport_event_handler.recordings SET epoch = mine, begun = true"
                " FROM (SELECT %s::integer AS state, %s::bigint AS mine) AS me WHERE recordings.state = me.state"
                " AND session_id = %s AND done IS NULL AND epoch IS NULL",
                self._epoch,
                session_id,
            )
        return await self.recording(session_id)

    async def unfinished_recordings(self) -> list[RecordingItem]:
        return await self._pending("ORDER BY next_try")

    async def _pending(self, which: LiteralString, *values: Any) -> list[RecordingItem]:
        pending: LiteralString = (
            "SELECT session_id, announced, uploaded, attempts, next_try, next_index, looks"
            " FROM teleport_event_handler.recordings WHERE state = %s AND done IS NULL "
        )
        rows = await self._rows(pending + which, *values)
        return [RecordingItem(*row) for row in rows]

    async def waiting_recordings(self) -> tuple[int, int]:
        rows = await self._rows(
            "SELECT count(*), count(*) FILTER (WHERE attempts = 0 AND looks = 0)"
            " FROM teleport_event_handler.recordings WHERE state = %s AND done IS NULL"
        )
        return int(rows[0][0]), int(rows[0][1])

    async def recording_done(self, session_id: str) -> None:
        async def finish(connection: psycopg.AsyncConnection[Any]) -> None:
            await self._recording_done(connection, session_id)

        await self._write(finish)

    async def _recording_done(self, connection: psycopg.AsyncConnection[Any], session_id: str) -> None:
        now = time()
        await connection.execute(
            "UPDATE teleport_event_handler.recordings SET done = %s, epoch = NULL WHERE state = %s AND session_id = %s"
            " AND coalesce(epoch, %s) = %s",
            (now, self._state, session_id, self._epoch, self._epoch),
        )
        await connection.execute(
            "DELETE FROM teleport_event_handler.recordings WHERE state = %s AND done < %s",
            (self._state, now - FINISHED_KEPT),
        )

    async def recording_given_up(self, letter: DeadLetter) -> None:
        async def give_up(connection: psycopg.AsyncConnection[Any]) -> None:
            await self._write_letters(connection, [letter])
            await self._recording_done(connection, letter.session_id)

        await self._write(give_up)

    async def recording(self, session_id: str) -> tuple[bool, RecordingItem] | None:
        rows = await self._rows(
            "SELECT done IS NOT NULL OR coalesce(epoch, mine) <> mine, session_id, announced, uploaded, attempts,"
            " next_try, next_index, looks FROM teleport_event_handler.recordings,"
            " (SELECT %s::integer AS state, %s::bigint AS mine) AS me WHERE recordings.state = me.state"
            " AND session_id = %s",
            self._epoch,
            session_id,
        )
        return (bool(rows[0][0]), RecordingItem(*rows[0][1:])) if rows else None

    async def recording_later(self, session_id: str, next_try: float, *, counted: bool) -> None:
        await self._change(
            "UPDATE teleport_event_handler.recordings SET attempts = attempts + me.counted, next_try = me.next_try"
            " FROM (SELECT %s::integer AS state, %s::integer AS counted, %s::float8 AS next_try) AS me"
            " WHERE recordings.state = me.state AND session_id = %s AND coalesce(epoch, %s) = %s",
            int(counted),
            next_try,
            session_id,
            self._epoch,
            self._epoch,
        )

    async def recording_looked(self, session_id: str, next_try: float) -> None:
        await self._change(
            "UPDATE teleport_event_handler.recordings SET looks = looks + 1, next_try = me.next_try, epoch = NULL,"
            " begun = false FROM (SELECT %s::integer AS state, %s::float8 AS next_try) AS me"
            " WHERE recordings.state = me.state AND session_id = %s AND coalesce(epoch, %s) = %s",
            next_try,
            session_id,
            self._epoch,
            self._epoch,
        )

    async def recordings_looked_at(self) -> list[str]:
        rows = await self._rows(
            "SELECT session_id FROM teleport_event_handler.recordings WHERE state = %s AND done IS NULL AND looks > 0"
            " AND attempts = 0"
        )
        return [row[0] for row in rows]

    async def recordings_due_now(self, sessions: Iterable[str] = ()) -> None:
        await self._change(
            "UPDATE teleport_event_handler.recordings SET next_try = 0 WHERE state = %s AND done IS NULL"
            " AND ((attempts = 0 AND looks = 0) OR session_id = ANY(%s))",
            list(sessions),
        )

    async def recording_again(self, session_id: str) -> None:
        await self._change(
            "INSERT INTO teleport_event_handler.recordings (state, session_id, announced, uploaded, next_try)"
            " VALUES (%s, %s, %s, true, 0) ON CONFLICT (state, session_id)"
            " DO UPDATE SET done = NULL, attempts = 0, looks = 0, next_try = 0",
            storable(session_id),
            time(),
        )

    async def recordings_again(self, since: float) -> int:
        return await self._change(
            "UPDATE teleport_event_handler.recordings SET done = NULL, attempts = 0, next_try = 0, next_index = 0"
            " WHERE state = %s AND announced >= %s",
            since,
        )

    # Dead letters

    async def size(self) -> int:
        rows = await self._session.rows(
            "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c JOIN pg_namespace n"
            " ON n.oid = c.relnamespace WHERE n.nspname = 'teleport_event_handler' AND c.relkind = 'r'"
        )
        return int(rows[0][0])

    async def dead_letters(self) -> int:
        return (await self.dead_letter_totals())[0]

    async def dead_letter_totals(self) -> tuple[int, int]:
        rows = await self._rows(
            "SELECT count(*), coalesce(sum(length(body)), 0) FROM teleport_event_handler.dead_letters WHERE state = %s"
        )
        return int(rows[0][0]), int(rows[0][1])

    async def dead_letters_to_retry(self, after: int = 0) -> list[tuple[int, DeadLetter]]:
        rows = await self._rows(
            "SELECT number, sink, reason, type, id, session_id, body, event_time, event_index"
            " FROM teleport_event_handler.dead_letters WHERE state = %s AND retry AND number > %s"
            " ORDER BY number LIMIT %s",
            after,
            LETTERS_AT_ONCE,
        )
        return [
            (row[0], DeadLetter(row[1], row[2], row[3], row[4], row[5], bytes(row[6]), row[7], row[8])) for row in rows
        ]

    async def dead_letter_delivered(self, number: int) -> None:
        await self._change("DELETE FROM teleport_event_handler.dead_letters WHERE state = %s AND number = %s", number)

    async def dead_letter_refused(self, number: int, reason: str) -> None:
        await self._change(
            "UPDATE teleport_event_handler.dead_letters SET retry = false, reason = me.reason"
            " FROM (SELECT %s::integer AS state, %s::text AS reason) AS me"
            " WHERE dead_letters.state = me.state AND number = %s",
            storable(reason),
            number,
        )

    # Failed logins

    async def add_failed_logins(self, failures: Iterable[FailedLogin]) -> list[FailedLogin]:
        async def add(connection: psycopg.AsyncConnection[Any]) -> list[FailedLogin]:
            new = []
            for one in failures:
                cursor = await connection.execute(
                    "INSERT INTO teleport_event_handler.failed_logins VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
                    (self._state, storable(one.id), one.moment, storable(one.who)),
                )
                if cursor.rowcount:
                    new.append(one)
            return new

        return await self._write(add)

    async def failed_logins_of(self, who: str) -> list[float]:
        rows = await self._rows(
            "SELECT moment FROM teleport_event_handler.failed_logins WHERE state = %s AND who = %s ORDER BY moment",
            storable(who),
        )
        return [row[0] for row in rows]

    async def lock_due(self, who: str, user: str, login: str) -> None:
        async def note(connection: psycopg.AsyncConnection[Any]) -> None:
            await connection.execute(
                "UPDATE teleport_event_handler.failed_logins SET who = '' WHERE state = %s AND who = %s",
                (self._state, storable(who)),
            )
            await connection.execute(
                "INSERT INTO teleport_event_handler.locks_to_make VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                (self._state, storable(user), storable(login)),
            )

        await self._write(note)

    async def locks_due(self) -> list[tuple[str, str]]:
        rows = await self._rows('SELECT "user", login FROM teleport_event_handler.locks_to_make WHERE state = %s')
        return [(row[0], row[1]) for row in rows]

    async def lock_made(self, user: str, login: str) -> None:
        await self._change(
            'DELETE FROM teleport_event_handler.locks_to_make WHERE state = %s AND "user" = %s AND login = %s',
            storable(user),
            storable(login),
        )

    async def forget_failed_logins(self, before: float) -> None:
        await self._change(
            "DELETE FROM teleport_event_handler.failed_logins WHERE state = %s AND id IN (SELECT id FROM"
            " teleport_event_handler.failed_logins WHERE state = %s AND moment < %s LIMIT %s)",
            self._state,
            before,
            FORGOTTEN_AT_ONCE,
        )


_BY_STREAM: tuple[LiteralString, ...] = (
    "DELETE FROM teleport_event_handler.positions WHERE state = %s AND stream >= %s AND stream < %s",
    'DELETE FROM teleport_event_handler.claims WHERE state = %s AND unit COLLATE "C" >= %s AND unit COLLATE "C" < %s',
)


def storable(text: str) -> str:
    """Text as PostgreSQL takes it."""
    return text.replace("\0", NUL_SHOWN).encode("utf-8", "replace").decode()
