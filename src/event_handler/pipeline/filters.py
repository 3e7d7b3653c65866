"""Decides by an event's type and code whether a sink wants it; what the entries of a list mean is described in
docs/filters.md.

A plain entry is an event type, compared as the Go plugin compares it. No event type has an upper-case letter, and none
has one of `!*?[`, so these marks are free: a leading `!` is an exception from its own list, `*`, `?` and `[…]` make a
pattern, and an entry with an upper-case letter is also compared with the event's code.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import lru_cache

EXCEPT = "!"
PATTERN = frozenset("*?[")
REMEMBERED_TYPES = 1024  # answers; there are about 370 pairs of a type and a code


class Filter:
    """Wants what `types` names (all, where they name nothing) but not what `skip` names, whatever the order of the
    entries.
    """

    def __init__(self, types: Iterable[str] = (), skip: Iterable[str] = ()) -> None:
        self._types, self._not_types = _split(types)
        self._skip, self._not_skip = _split(skip)
        entries = (*self._types, *self._not_types, *self._skip, *self._not_skip)
        self.needs_code = any(names_codes(entry) for entry in entries)
        self.wants = lru_cache(REMEMBERED_TYPES)(self._wants)

    def _wants(self, kind: str, code: str = "") -> bool:
        """Whether an event of this type is wanted; its code is needed only where `needs_code` says so."""
        if self._types and not _named(self._types, kind, code):
            return False
        if _named(self._not_types, kind, code):
            return False
        return not _named(self._skip, kind, code) or _named(self._not_skip, kind, code)

    def exact_types(self) -> tuple[str, ...]:
        """The only types that can be wanted, as far as the list names them exactly; () where any may be."""
        return () if any(names_codes(entry) or is_pattern(entry) for entry in self._types) else self._types


def _split(entries: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The entries, and those that are exceptions, without their mark."""
    all_of_them = tuple(dict.fromkeys(entries))
    named = tuple(entry for entry in all_of_them if not entry.startswith(EXCEPT))
    return named, tuple(entry.removeprefix(EXCEPT) for entry in all_of_them if entry.startswith(EXCEPT))


def is_pattern(entry: str) -> bool:
    """Whether the entry, without its mark of an exception, stands for several names."""
    return not PATTERN.isdisjoint(entry)


def names_codes(entry: str) -> bool:
    """Whether the entry is compared with the event's code too."""
    return entry != entry.lower()


def _named(entries: tuple[str, ...], kind: str, code: str) -> bool:
    return any(matches(entry, kind) or (names_codes(entry) and matches(entry, code)) for entry in entries)


def matches(entry: str, text: str) -> bool:
    """Whether the entry, without its mark of an exception, names that type or that code."""
    return fnmatchcase(text, entry) if is_pattern(entry) else text == entry
