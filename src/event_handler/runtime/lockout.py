"""Locks users whose logins keep failing: counted per user by the time of the events, and locked at once.

Events of a backfill are too old to lock anybody. What is counted and what is still to be locked survives a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from time import time

import orjson
import structlog

from event_handler.errors import ConnectError, MalformedEventError, RpcError
from event_handler.event import named
from event_handler.ports import FailedLogin, FailedLoginStore
from event_handler.teleport.rpc.client import Client
from event_handler.teleport.wire.decode import convert, read_event

FAILED_LOGIN = "user.login"
MESSAGE = "User is locked due to too many failed login attempts"  # the plugin's words
LOCK_NAME = "event-handler-auto-lock-{user}-{login}"  # the plugin's name, so that its locks and ours are the same ones
LATEST = 600.0  # seconds beside the period; some back ends have an event only minutes after it happened
RETRY_AFTER = 15.0  # seconds between tries while the cluster cannot be reached
REFUSED = frozenset({"PERMISSION_DENIED", "INVALID_ARGUMENT", "UNIMPLEMENTED"})

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LockSettings:
    """`count` failures of a user within `period` seconds lock for `duration` seconds, 0 = until somebody removes the
    lock.

    Users that match one of the patterns in `exempt` (`bot-*`) are never locked.
    """

    count: int
    period: float
    duration: float
    exempt: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Login:
    """A login that failed: the event's id and time, and whose it was."""

    id: str
    moment: float
    user: str
    login: str

    @property
    def who(self) -> str:
        return self.user or f"login {self.login}"


class LoginLockout:
    """Counts failed logins and makes the locks."""

    def __init__(self, settings: LockSettings, store: FailedLoginStore, clock: Callable[[], float] = time) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._news = False  # a lock is to be made that was not tried yet
        self._next_try = 0.0
        self._denied = False
        self.locked = 0

    @property
    def oldest(self) -> float:
        """Events from before that time count no more."""
        return self._clock() - self._settings.period - LATEST

    async def observe(self, events: Iterable[bytes]) -> None:
        """Count the logins that failed among these events, each the first time that it is read."""
        oldest = self.oldest
        logins = [login for event in events if (login := _failed_login(event)) is not None and login.moment >= oldest]
        counted = {login.id: login for login in logins if not self._is_exempt(login.user)}
        new = await self._store.add_failed_logins(
            FailedLogin(login.id, login.moment, login.who) for login in counted.values()
        )
        for who in dict.fromkeys(failure.who for failure in new):
            # Not all events are read in the order in which they happened.
            moments = await self._store.failed_logins_of(who)
            spans = zip(moments, moments[self._settings.count - 1 :], strict=False)
            if any(last - first < self._settings.period for first, last in spans):
                last = next(counted[failure.id] for failure in reversed(new) if failure.who == who)
                await self._store.lock_due(who, last.user, last.login)
                self._news = True
        await self._store.forget_failed_logins(oldest)

    def _is_exempt(self, user: str) -> bool:
        return any(fnmatchcase(user, pattern) for pattern in self._settings.exempt)

    async def make_locks(self, client: Client) -> None:
        """Make the locks that are due.

        One that could not be made is tried again after a while, and holds up no other.
        """
        if not self._news and self._clock() < self._next_try:
            return
        self._news = False
        for user, login in await self._store.locks_due():
            if await self._lock(client, user, login):
                await self._store.lock_made(user, login)
        self._next_try = self._clock() + RETRY_AFTER

    async def _lock(self, client: Client, user: str, login: str) -> bool:
        """Return whether this lock is dealt with: made, or refused for good."""
        expires = self._clock() + self._settings.duration if self._settings.duration else 0.0
        try:
            await client.upsert_lock(
                LOCK_NAME.format(user=user, login=login), user=user, login=login, message=MESSAGE, expires=expires
            )
        except (RpcError, ConnectError) as error:
            refused = isinstance(error, RpcError) and error.code in REFUSED
            if not refused or not self._denied:
                hint = (
                    {"next_step": "Give the role the rule: resources [lock], verbs [create, update]."}
                    if refused
                    else {}
                )
                log.warning("the user could not be locked", user=user, login=login, error=str(error), **hint)
            self._denied = self._denied or refused
            return refused
        self._denied = False
        self.locked += 1
        log.info("User login is locked", user=user, login=login)
        return True


def _failed_login(event: bytes) -> _Login | None:
    try:
        raw = read_event(event)
        if raw.type != FAILED_LOGIN:
            return None
        body, uid = convert(raw.content)
    except MalformedEventError:  # kept as a dead letter where events are delivered
        return None
    content = orjson.loads(body)
    user, login = (content.get(name) if isinstance(content.get(name), str) else "" for name in ("user", "login"))
    if content.get("success") is not False or not (user or login):
        return None
    return _Login(named(uid, body), raw.time, user, login)
