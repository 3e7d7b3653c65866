"""Failed logins as long as they count, and the locks that are still to be made.

written one by one, whatever their number.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from event_handler.state.store import Store

FORGOTTEN_AT_ONCE = 2000  # rows, some milliseconds


@dataclass(frozen=True, slots=True)
class FailedLogin:
    """`who` is the user, or the login where there is none.

    `moment` the time of the event in seconds since the epoch.
    """

    id: str
    moment: float
    who: str


class FailedLogins:
    """Every method raises StateError when the state cannot be read or written."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, failures: Iterable[FailedLogin]) -> list[FailedLogin]:
        """Remember those that are new, and return them."""
        with self._store.together():
            return [one for one in failures if self._add(one)]

    def _add(self, one: FailedLogin) -> bool:
        return (
            self._store.change("INSERT OR IGNORE INTO failed_logins VALUES (?, ?, ?)", (one.id, one.moment, one.who))
            > 0
        )

    def moments(self, who: str) -> list[float]:
        """When the logins of somebody failed that led to no lock yet, oldest first."""
        return [
            row[0] for row in self._store.rows("SELECT moment FROM failed_logins WHERE who = ? ORDER BY moment", (who,))
        ]

    def lock(self, who: str, user: str, login: str) -> None:
        """A lock is to be made: what led to it does not count for the next one, and is known as read all the same."""
        with self._store.together():
            self._store.change("UPDATE failed_logins SET who = '' WHERE who = ?", (who,))
            self._store.change("INSERT OR IGNORE INTO locks_to_make VALUES (?, ?)", (user, login))

    def locks_to_make(self) -> list[tuple[str, str]]:
        """User and login of each."""
        return [(row[0], row[1]) for row in self._store.rows("SELECT user, login FROM locks_to_make")]

    def lock_made(self, user: str, login: str) -> None:
        self._store.change("DELETE FROM locks_to_make WHERE user = ? AND login = ?", (user, login))

    def forget(self, before: float) -> None:
        """Drop some of the failures that are older than that."""
        self._store.change(
            "DELETE FROM failed_logins WHERE id IN (SELECT id FROM failed_logins WHERE moment < ? LIMIT ?)",
            (before, FORGOTTEN_AT_ONCE),
        )
