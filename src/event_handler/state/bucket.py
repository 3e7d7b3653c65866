"""The state of one sink as an object in a bucket, for those who have neither a volume nor a database.

The process works on it in memory, in SQLite as on a disk, and writes the whole of it every few seconds and at its end.
Whatever was committed since the last write is delivered again after a crash; never is anything left out, for what is in
the bucket is always the state of one moment. Notes, and where reading begins, are written before anybody relies on
them.

An object has a version, and every write names the one that it replaces. Whoever opens the state writes it at once, so
whatever worked on it before can write no more, wherever it slept: it finds another version, and has lost the state.
"""

from __future__ import annotations

import asyncio
import gzip
import sqlite3
import zlib
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Protocol
from uuid import uuid4

import structlog

from event_handler.backoff import backoff
from event_handler.errors import StateError, StorageError
from event_handler.ports import Commit
from event_handler.state import schema
from event_handler.state.checks import check
from event_handler.state.directory import directory_name
from event_handler.state.sqlite import SqliteStore

BUCKET_SCHEME = "s3://"
OBJECT = "state.db.gz"
WRITER = "writer"  # fact: whose object it is, as `<what counts epochs>/<epoch>/<this opening of it>`
PACKED_QUICKLY = 1  # level of gzip: ids of events hardly get smaller at any level
UNWRITTEN_FOR = 60.0  # seconds of commits that may be repeated when the bucket is away; then delivery waits for it
LONGEST_WRITE_WAIT = 15.0  # seconds between tries to write
LONGEST_FINISH = 10.0  # seconds for the last write
NO_VERSION = '"00000000000000000000000000000000"'  # no object has it
PLAIN_FILE = b"\x01\x01"  # for bytes 18 and 19 of an SQLite file: not WAL, which a database in memory cannot be

log = structlog.get_logger()


class ChangedError(Exception):
    """The object has another version, or is gone."""


class Bucket(Protocol):
    """Objects by name. Both methods raise StateError, a StorageError where only a person can help."""

    place: str

    async def read(self, name: str) -> tuple[bytes, str] | None:
        """What is in an object, and its version; None where there is none."""

    async def write(self, name: str, content: bytes, version: str) -> str:
        """Replace the object of that version ("": where there is none yet) and return the new version.

        Raises ChangedError.
        """

    async def close(self) -> None: ...


def is_bucket(storage: str) -> bool:
    """Whether `storage` is a bucket, and not a directory or a database."""
    return storage.startswith(BUCKET_SCHEME)


def object_of(cluster: str, sink: str) -> str:
    """The name of the object of a sink's state, behind the prefix of the storage."""
    return f"{directory_name(cluster)}/{sink}/{OBJECT}"


class BucketStore(SqliteStore):
    """A StateStore. `lost` is set when another process has taken the state over; where it was set by somebody else,
    what is known can still be written, as long as nobody has.
    """

    def __init__(self, database: sqlite3.Connection, bucket: Bucket, name: str, version: str, writer: str) -> None:
        self._attach(database, Path(OBJECT))
        self._bucket, self._name, self._version, self._writer = bucket, name, version, writer
        self._interval = 0.0
        self.lost = asyncio.Event()
        self._written_changes = -1  # what SQLite had counted when the object was made
        self._overtaken = False  # another process has the object
        self._unwritten_since: float | None = None
        self._size = 0
        self._turn, self._wanted = asyncio.Lock(), asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, bucket: Bucket, name: str, interval: float, lost: asyncio.Event, *, counter: str = "", epoch: int = 0
    ) -> BucketStore:
        """Take the state over from whoever worked on it, but for a newer epoch of the same counter.

        Raises StateError, and a StorageError for a bucket that does not keep two writers apart.
        """
        try:
            found = await bucket.read(name)
            where = f"{bucket.place}/{name}"
            database = _created() if found is None else _unpacked(found[0], where)
            store = cls(database, bucket, name, found[1] if found else "", f"{counter}/{epoch}/{uuid4().hex}")
            store._interval, store.lost = interval, lost
            await store._take_over(counter, epoch)
        except BaseException:
            await bucket.close()
            raise
        store._writing = asyncio.create_task(store._keep_written())
        return store

    async def _take_over(self, counter: str, epoch: int) -> None:
        try:
            if _is_newer(_writer(self._db), counter, epoch):
                self.lost.set()
                raise StateError(f"a newer replica works on the state in {self.where}", "It is left to that one.")
            self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (WRITER, self._writer))
            await self._put()
            await self._make_sure_of_versions()
        except BaseException:
            self.close()
            raise

    @property
    def where(self) -> str:
        return f"{self._bucket.place}/{self._name}"

    async def commit(self, group: Commit) -> None:
        """In memory, and in the bucket within the interval. Notes are there before it returns.

        Raises StateError when the bucket could not be written for a minute, so that not more than that is repeated.
        """
        self._make_sure_of_room()
        await super().commit(group)
        if self._unwritten_since is None:
            self._unwritten_since = monotonic()
        if group.notes or group.start is not None:
            await self._put()

    async def begin(self, asked: float | None) -> float:
        found = await super().begin(asked)
        await self._put()
        return found

    async def size(self) -> int:
        return self._size

    async def finish(self) -> None:
        """Write what is not in the bucket yet. Raises StateError when that is not possible in ten seconds."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
            self._writing = None
        try:
            async with asyncio.timeout(LONGEST_FINISH):
                await self._put()
        except TimeoutError:
            raise StateError(f"the state in {self.where} cannot be written (no answer)") from None
        finally:
            await self._bucket.close()

    def close(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
        super().close()

    # Writing

    def _make_sure_of_room(self) -> None:
        if self._overtaken:
            raise self._taken()
        if self._unwritten_since is not None and monotonic() - self._unwritten_since > UNWRITTEN_FOR + self._interval:
            self._wanted.set()
            raise StateError(
                f"the state in {self.where} could not be written for {monotonic() - self._unwritten_since:.0f} s",
                "Check the bucket and the way to it.",
            )

    async def _keep_written(self) -> None:
        attempt = 0
        while not self._overtaken:
            with suppress(TimeoutError):
                pause = backoff(attempt, LONGEST_WRITE_WAIT) if attempt else self._interval
                async with asyncio.timeout(pause):
                    await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._put()
                attempt = 0
            except Exception as error:  # also a fault of our own code: what is not written is repeated after a crash
                attempt += 1
                reason = str(error) or type(error).__name__
                log.warning("the state cannot be written, will try again", error=reason, storage=self.where)

    async def _put(self) -> None:
        """Bring all that is committed into the bucket. Raises StateError."""
        async with self._turn:
            if self._db.total_changes == self._written_changes:
                return
            if self._overtaken:
                raise self._taken()
            began = monotonic()
            changes, packed = await self._packed()
            try:
                self._version = await self._bucket.write(self._name, packed, self._version)
            except ChangedError:
                self._version = await self._replaced(packed, await self._still_ours())
            self._written_changes, self._size = changes, len(packed)
            self._unwritten_since = None if self._db.total_changes == changes else began

    async def _packed(self) -> tuple[int, bytes]:
        """The state of one moment, and how many changes SQLite had counted by then."""

        def content() -> tuple[int, bytes]:
            return self._db.total_changes, self._db.serialize()

        changes, plain = await self.thread.run(content)
        return changes, await asyncio.to_thread(gzip.compress, plain, PACKED_QUICKLY)

    async def _still_ours(self) -> str:
        """The version of what is there where we have written it, and an answer was lost; "" where nothing is there."""
        found = await self._bucket.read(self._name)
        if found is None:
            log.warning("the state was removed from the bucket, and is written again", storage=self.where)
            return ""
        if _writer_of(found[0], self.where) != self._writer:
            raise self._taken()
        return found[1]

    async def _replaced(self, packed: bytes, version: str) -> str:
        try:
            return await self._bucket.write(self._name, packed, version)
        except ChangedError:
            raise self._taken() from None

    def _taken(self) -> StateError:
        self._overtaken = True
        self.lost.set()
        return StateError(f"another process has taken over the state in {self.where}", "This one writes there no more.")

    async def _make_sure_of_versions(self) -> None:
        """Find out whether a write that names another version is refused. It would change nothing where it is not."""
        _, packed = await self._packed()
        try:
            await self._bucket.write(self._name, packed, NO_VERSION)
        except ChangedError:
            return
        raise StorageError(
            f"the bucket {self._bucket.place} ignores If-Match, so two processes could overwrite each other's state",
            "Use one with conditional writes (Amazon S3, MinIO, R2), a directory, or PostgreSQL.",
        )


async def read_only(bucket: Bucket, name: str) -> SqliteStore | None:
    """What is known there, in memory only; None where there is no such state."""
    try:
        found = await bucket.read(name)
    finally:
        await bucket.close()
    return None if found is None else SqliteStore.over(_unpacked(found[0], f"{bucket.place}/{name}"), Path(OBJECT))


def _created() -> sqlite3.Connection:
    database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    schema.create(database)
    return database


def _unpacked(packed: bytes, where: str) -> sqlite3.Connection:
    database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    try:
        content = gzip.decompress(packed)
        database.deserialize(content[:18] + PLAIN_FILE + content[20:])
        if database.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("it is not whole")
        check(database, Path(OBJECT))
        schema.migrate(database)
    except (OSError, EOFError, zlib.error, sqlite3.Error, UnicodeError) as error:
        database.close()
        raise StorageError(
            f"the state in {where} is damaged ({error})",
            "Put an earlier version of the object in its place, or remove it and start with --start-time at the last"
            " event that you have; what follows it is sent again.",
        ) from None
    except StateError as error:  # newer than this program, or it makes no sense
        database.close()
        raise StorageError(error.message.replace(f"in {OBJECT}", f"in {where}"), error.hint) from None
    return database


def _writer(database: sqlite3.Connection) -> str:
    rows = database.execute("SELECT value FROM facts WHERE name = ?", (WRITER,)).fetchall()
    return str(rows[0][0]) if rows else ""


def _writer_of(packed: bytes, where: str) -> str:
    database = _unpacked(packed, where)
    try:
        return _writer(database)
    finally:
        database.close()


def _is_newer(writer: str, counter: str, epoch: int) -> bool:
    """Whether who has written it has a newer epoch of the same counter."""
    theirs, _, rest = writer.partition("/")
    number = rest.partition("/")[0]
    return bool(counter) and theirs == counter and number.isdecimal() and int(number) > epoch
