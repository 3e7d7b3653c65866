"""Locks users whose logins keep failing: counted per user by the time of the events, and told to the cluster at once.

A failed login counts when it is read, whatever the filters say. Events of a backfill are too old to lock anybody. What is counted and
what is still to be locked survives a restart in the fact `locks`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from time import time

import orjson
import structlog

from event_handler.errors import ConnectError, RpcError
from event_handler.state.store import Store
from event_handler.teleport.client import Client

FAILED_LOGIN = "user.login"
MESSAGE = "User is locked due to too many failed login attempts"  # the plugin's words
NAME = "event-handler-auto-lock-{user}-{login}"  # the plugin's name, so that its locks and ours are the same ones
FACT = "locks"
LATEST = 600.0  # seconds beside the period; a chunk shows up minutes after its events, and a busy log is read with some delay
UNSAVED_SHARE = 1000  # one part of so many may be unsaved: many failures are saved together, for each time all are written
RETRY_AFTER = 15.0  # seconds between tries while the cluster cannot be reached
REFUSED = frozenset({"PERMISSION_DENIED", "INVALID_ARGUMENT", "UNIMPLEMENTED"})

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LockSettings:
    """`count` failures of a user within `period` seconds lock for `duration` seconds, 0 = until somebody removes the lock.

    Users that match one of the patterns in `exempt` (`bot-*`) are never locked.
    """

    count: int
    period: float
    duration: float
    exempt: tuple[str, ...] = ()


class LoginGuard:
    """Counts failed logins and makes the locks."""

    def __init__(self, settings: LockSettings, store: Store, clock: Callable[[], float] = time) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        saved = orjson.loads(store.fact(FACT) or b"{}")
        self._failures: dict[str, list[float]] = saved.get("failures", {})
        self._seen: dict[str, float] = saved.get("seen", {})
        self._waiting: list[list[str]] = saved.get("waiting", [])
        self._news = asyncio.Event()
        self._unsaved = 0
        self._denied = False
        self.locked = 0

    def observe(self, event_id: str, body: bytes, moment: float) -> None:
        """Count a login if it failed, the first time that it is read; `moment` is its time in seconds since the epoch."""
        content = orjson.loads(body)
        user, login = (content.get(name) if isinstance(content.get(name), str) else "" for name in ("user", "login"))
        if content.get("success") is not False or not (user or login):
            return
        if event_id in self._seen or moment < self._clock() - self._settings.period - LATEST:
            return
        if any(fnmatchcase(user, pattern) for pattern in self._settings.exempt):
            return
        key = user or f"login {login}"
        self._seen[event_id] = moment
        # Chunks are read side by side, so failures are not observed in the order in which they happened.
        failures = self._failures[key] = sorted([*self._failures.get(key, []), moment])
        spans = zip(failures, failures[self._settings.count - 1 :], strict=False)
        if any(last - first < self._settings.period for first, last in spans):
            del self._failures[key]
            if [user, login] not in self._waiting:
                self._waiting.append([user, login])
            self._news.set()
        self._changed()

    def _changed(self) -> None:
        self._unsaved += 1
        if self._unsaved * UNSAVED_SHARE > len(self._seen):
            self._save()

    def _save(self) -> None:
        oldest = self._clock() - self._settings.period - LATEST
        recent = {key: [moment for moment in failures if moment > oldest] for key, failures in self._failures.items()}
        self._failures = {key: failures for key, failures in recent.items() if failures}
        self._seen = {event_id: moment for event_id, moment in self._seen.items() if moment > oldest}
        facts = {"failures": self._failures, "seen": self._seen, "waiting": self._waiting}
        self._store.remember(FACT, orjson.dumps(facts).decode())
        self._unsaved = 0

    async def run(self, client: Client) -> None:
        """Make the locks that are due, until cancelled."""
        while True:
            self._news.clear()
            for waiting in self._waiting.copy():  # one that the cluster cannot make holds up no other
                if await self._lock(client, *waiting):
                    self._waiting.remove(waiting)
                    self._changed()
            try:
                await asyncio.wait_for(self._news.wait(), RETRY_AFTER if self._waiting else None)
            except TimeoutError:
                continue

    async def _lock(self, client: Client, user: str, login: str) -> bool:
        """Return whether this lock is dealt with: made, or refused for good."""
        expires = self._clock() + self._settings.duration if self._settings.duration else 0.0
        try:
            await client.upsert_lock(NAME.format(user=user, login=login), user=user, login=login, message=MESSAGE, expires=expires)
        except (RpcError, ConnectError) as error:
            refused = isinstance(error, RpcError) and error.code in REFUSED
            if not refused or not self._denied:
                next_step = "Give the role the rule: resources [lock], verbs [create, update]." if refused else ""
                log.warning("the user could not be locked", user=user, login=login, error=str(error), next_step=next_step)
            self._denied = self._denied or refused
            return refused
        self._denied = False
        self.locked += 1
        log.info("User login is locked", user=user, login=login)
        return True
