"""Names the keys and variables that no setting has, each with the one that was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from typing import Any

from event_handler.config.model import options
from event_handler.config.option import FORWARD, Option
from event_handler.config.toml_file import KeyPath, leaves

LIKE_KEYS = 0.7  # how alike two names are at least, of 1, before one is offered for the other
SINK_LIKE = 0.6
LIKE_TABLE = 0.3  # how much a table that is alike counts, beside the name
PREFIXES = ("FDFWD_", "FDWRD_")


def unknown_keys(table: dict[str, Any], path: str) -> list[str]:
    """One warning for each key of the file that is not known."""
    known = {key for option in options().values() for key in option.keys}
    warnings = []
    for key, value in leaves(table):
        if ".".join(key) not in known or any("." in part for part in key) or isinstance(value, dict):
            if isinstance(value, dict) and (not value and _is_table(key, known)):
                continue
            warnings.append(f"{path}: the key {_spelled(key)} is not known{_advice(key, value)}")
    return warnings


def unknown_variables(environment: Mapping[str, str], also: Collection[str]) -> list[str]:
    """One warning for each of our variables that is not known."""
    known = [variable for option in options().values() for variable in option.variables]
    warnings = []
    for name in sorted(environment):
        if name.strip("\ufeff ").upper().startswith(PREFIXES) and name not in known and name not in also:
            near = difflib.get_close_matches(name.upper(), [*known, *also], n=1, cutoff=LIKE_KEYS)
            warnings.append(f"the variable {name} is not known{f'; did you mean {near[0]}?' if near else ''}")
    return warnings


def unknown_sinks(table: dict[str, Any]) -> list[str]:
    """The tables below `forward` that are no sink of ours, as they are written."""
    forward = table.get("forward")
    return [name for name in forward if name not in FORWARD] if isinstance(forward, dict) else []


def _is_table(path: KeyPath, known: Collection[str]) -> bool:
    return any(key.startswith(f"{'.'.join(path)}.") for key in known)


def _spelled(path: KeyPath) -> str:
    """As TOML writes it: a part with a dot in it stands in quotes."""
    return ".".join(f'"{part}"' if "." in part or not part else part for part in path)


def _advice(path: KeyPath, value: Any) -> str:
    known = {key for option in options().values() for key in option.keys}
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return f"; write [{_spelled(path)}], with one bracket on each side, for there is one table of that name"
    if not isinstance(value, dict) and _is_table(path, known):
        return f"; it is a table: write [{_spelled(path)}], and its keys below"
    if upper := next((".".join(path[:end]) for end in range(1, len(path)) if ".".join(path[:end]) in known), ""):
        return f"; {upper} is a value, not a table"
    if (
        len(path) > 1 + (not isinstance(value, dict))
        and _plain(path[0]) == "forward"
        and path[1].lower() not in FORWARD
    ):
        near = difflib.get_close_matches(path[1].lower(), FORWARD, n=1, cutoff=SINK_LIKE)
        if not near:
            return f"; there is no sink {path[1]}, the sinks are {', '.join(FORWARD)}"
        path = ("forward", near[0], *path[2:])
    near_key = nearest(path)
    return f"; did you mean {near_key}?" if near_key else ""


def nearest(path: KeyPath) -> str:
    """The known key that a path was probably meant to be, and where it stands when that is the mistake.

    "" when none is near.
    """
    path = tuple(part for name in path for part in name.split("."))
    scores = {option.key: max(_alike(path, *parted) for parted in _parted(option)) for option in options().values()}
    best = max(scores, key=scores.__getitem__)
    if not scores[best]:
        return ""
    return f"{best} (above the first table)" if "." not in best and len(path) > 1 else best


def _parted(option: Option) -> list[tuple[str, str]]:
    """Table and name, as the documentation has them and as a flag."""
    table, _, name = option.key.rpartition(".")
    return [(table, name), ("", option.flag)]


def _alike(path: KeyPath, table: str, name: str) -> float:
    """How probable it is that the path was meant to be that key, 0 when it is not."""
    score = 0.0
    for inside in range(len(path)):  # what of the path is the table
        alike = _ratio(_plain(*path[inside:]), _plain(name))
        # A setting of the top that stands below a table is where it is by mistake: TOML has no way back.
        where = 1.0 if not table else _ratio(_plain(*path[:inside]), _plain(table))
        if alike >= LIKE_KEYS:
            score = max(score, alike + LIKE_TABLE * where)
    return score


def _plain(*parts: str) -> str:
    """What is left of a name when case, dashes, dots, blanks and the plural are of no account."""
    return re.sub(r"[\s_.]+", "-", "-".join(parts).strip().lower()).removesuffix("s")


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()
