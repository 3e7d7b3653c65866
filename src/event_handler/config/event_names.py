"""Finds entries of a filter list that name no event type and no code: a typo there would leave out the log for good."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cache
from importlib import resources

from event_handler.pipeline.filters import EXCEPT, is_pattern, matches, names_codes

TYPES_FILE = "event_types.txt"  # a line an event type: its name, then its codes
LIKE = 0.6  # how alike two names are at least, of 1, before one is offered for the other
NEWER = "A type that only a newer Teleport has can be given as a pattern, for example {entry}*."
CLEARS = "An empty value clears the list."
WORDS = frozenset({"none", "all", "any", "off", "null"})  # meant for the whole list, and never a type


@cache
def known() -> dict[str, tuple[str, ...]]:
    """The codes of each event type that Teleport had when this was released."""
    lines = resources.files("event_handler").joinpath(TYPES_FILE).read_text("ascii").splitlines()
    return {name: tuple(codes) for name, *codes in map(str.split, lines)}


def unknown(entries: Iterable[str]) -> tuple[list[str], list[str]]:
    """What is wrong with the entries that name nothing (one text each), and with the patterns that match nothing
    known.
    """
    wrong, doubtful = [], []
    for marked in entries:
        entry = marked.removeprefix(EXCEPT)
        if _is_known(entry):
            continue
        near = nearest(entry)
        advice = f"; did you mean {EXCEPT if marked != entry else ''}{near}?" if near else ""
        if is_pattern(entry):
            doubtful.append(f"the pattern {marked!r} matches no event type and no code that this version knows{advice}")
        else:
            wrong.append(
                f"{marked!r} is not an event type or code{advice}" if entry else "an entry of the list is empty"
            )
    return wrong, doubtful


def hint(entries: Iterable[str]) -> str:
    """What to do about the first entry that names nothing."""
    for marked in entries:
        entry = marked.removeprefix(EXCEPT)
        if not is_pattern(entry) and not _is_known(entry):
            return CLEARS if not entry or entry.lower() in WORDS else NEWER.format(entry=entry.strip())
    return ""


def nearest(entry: str) -> str:
    """The known type or code, or for a pattern its other spelling, that the entry was probably meant to be.

    "" when none is near.
    """
    plain = entry.strip()
    for spelling in (plain, plain.lower(), plain.upper()):
        if spelling != entry and _is_known(spelling):
            return spelling
    if is_pattern(entry) or not plain:
        return ""
    names, codes = list(known()), sorted(_codes())
    near = difflib.get_close_matches(plain.lower().replace("_", "."), names, n=1, cutoff=LIKE)
    near = near or difflib.get_close_matches(plain.lower(), names, n=1, cutoff=LIKE)
    if plain[-2:-1].isdigit() or not near:  # codes end in a digit and a letter; no type does
        near = difflib.get_close_matches(plain.upper(), codes, n=1, cutoff=LIKE) or near
    return near[0] if near else ""


def _is_known(entry: str) -> bool:
    if not is_pattern(entry):
        return entry in known() or (names_codes(entry) and entry in _codes())
    return any(matches(entry, name) for name in known()) or (
        names_codes(entry) and any(matches(entry, code) for code in _codes())
    )


@cache
def _codes() -> frozenset[str]:
    return frozenset(code for codes in known().values() for code in codes)
