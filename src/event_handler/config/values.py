"""Makes a value of what was written: in the file, in a variable or on the command line. Each function raises
ValueError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from math import inf
from pathlib import Path
from typing import Any

from event_handler.config import durations
from event_handler.config.spelling import Described
from event_handler.setting import Kind

TRUE, FALSE = frozenset({"true", "1", "yes"}), frozenset({"false", "0", "no"})
LONGEST_SHOWN = 60  # characters of a value in an error; what is longer is often a secret in the wrong place
LONGEST_PATH = 1024  # characters; what is longer is the content of a file, and may be a key
_NUMBER_FORMS = re.compile(r"[+-]?(0[xX](_?[0-9a-fA-F])+|0[bB](_?[01])+|0[oO]?(_?[0-7])+|0|[1-9](_?[0-9])*)")
_TIME_FORM = re.compile(r"[0-9]{4}(-[0-9]{2}){2}T([0-9]{2}:){2}[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})")
_EXAMPLE = "2026-11-23T00:00:00Z"


def clean(made: Described, raw: Any) -> Any:
    """Without what no editor shows: a carriage return from Windows, and blanks around it. A password may begin or end
    with blanks.
    """
    if isinstance(raw, str):
        return raw.strip("\r\n") if made.secret else raw.strip()
    if isinstance(raw, list | tuple):  # nothing but the line end is taken from an entry, as with the Go plugin
        return [item.strip("\r\n") if isinstance(item, str) else item for item in raw]
    return raw


def is_quoted(raw: Any) -> bool:
    """Whether quotes are part of the value: `docker run --env-file` does not take them away."""
    return isinstance(raw, str) and len(raw) > 1 and raw[0] == raw[-1] and raw[0] in "\"'"


def convert(kind: Kind, raw: Any) -> Any:
    """The value of a setting of that kind, out of text or of a TOML value."""
    return _VALUE[kind](raw)


def split(text: str) -> list[str]:
    r"""At each comma, except `\,`; an empty last element is dropped, nothing is trimmed."""
    parts, part, escaped = [], "", False
    for at, char in enumerate(text):
        if escaped:
            part += char if char == "," else f"\\{char}"
            escaped = False
        elif char == "\\" and at < len(text) - 1:
            escaped = True
        elif char == ",":
            parts.append(part)
            part = ""
        else:
            part += char
    return [*parts, part] if part else parts


def shortened(raw: Any) -> str:
    """A value in an error message."""
    text = str(raw)
    return repr(text) if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]!r}… ({len(text)} characters)"


def _text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise ValueError(f"expected text in quotes, got {_named(raw)}")
    return raw


def _named(raw: Any) -> str:
    """What kind of TOML value that is, without showing it: it may be a password that lacks its quotes."""
    kinds: list[tuple[type, str]] = [
        (bool, "true or false"),
        (int, "a number"),
        (float, "a number"),
        (list, "a list"),
        (dict, "a table"),
    ]
    kinds += [(datetime, "a time"), (date, "a date"), (time, "a time of day")]
    return next(name for kind, name in [*kinds, (object, "something else")] if isinstance(raw, kind))


def _file(raw: Any) -> str:
    text = _text(raw)
    if text in ("", "-"):
        return text
    if "\n" in text or "\0" in text or len(text) > LONGEST_PATH:
        raise ValueError(
            f"expected the name of a file, got {len(text)} characters; put the content into a file and name that"
        )
    try:
        return str((Path(text).expanduser() if text.startswith("~/") else Path(text)).absolute())
    except (RuntimeError, OSError) as error:  # nobody's home, or a working directory that was deleted
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"expected the full path of a file, got {shortened(text)} ({reason})") from None


def _flag(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    word = str(raw).lower()
    if word in TRUE | FALSE:
        return word in TRUE
    raise ValueError(f"expected true or false, got {shortened(raw)}")


def _number(raw: Any) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    text = str(raw)
    if not _NUMBER_FORMS.fullmatch(text):
        raise ValueError(f"expected a whole number, got {shortened(raw)}")
    digits = text.lstrip("+-").replace("_", "")
    octal = len(digits) > 1 and digits.startswith("0") and digits.isdigit()
    try:
        value = int(digits, 8 if octal else 0)
    except ValueError:  # Python refuses thousands of digits
        raise ValueError(f"expected a whole number, got one of {len(digits)} digits") from None
    return -value if text.startswith("-") else value


def _duration(raw: Any) -> float:
    if isinstance(raw, int | float) and not isinstance(raw, bool) and raw != 0:  # 0 is the same in every unit
        raise ValueError(
            f'expected a duration with its unit, got {raw}; write "{raw}s" for seconds, "{raw}m" for minutes'
        )
    return durations.parse("0" if raw == 0 and not isinstance(raw, bool) else str(raw))


def _list(raw: Any) -> tuple[str, ...]:
    if isinstance(raw, list | tuple):  # as it stands in the file: a comma does not split
        return tuple(_text(item) for item in raw)
    return tuple(split(_text(raw)))


def _table(raw: Any) -> dict[str, Any]:
    """A table of the file, or `name=value,name=value` where a variable holds it; values are text there."""
    if isinstance(raw, dict):
        return {name: _plain(name, item) for name, item in raw.items()}
    found = {}
    for part in split(_text(raw)):
        name, equals, item = part.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"expected name=value, got {shortened(part)}")
        found[name.strip()] = item
    return found


def _plain(name: str, value: Any) -> Any:
    """What JSON can hold of a TOML value."""
    if isinstance(value, dict):
        return {key: _plain(f"{name}.{key}", item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(name, item) for item in value]
    if isinstance(value, str | int | float) and value == value and value not in (inf, -inf):
        return value
    raise ValueError(f"expected text, a number, true or false, a list or a table for {name}, got {_named(value)}")


def _time(raw: Any) -> datetime:
    if isinstance(raw, datetime):
        moment = raw
    else:
        if not _TIME_FORM.fullmatch(str(raw)):
            without = " without a time zone" if _TIME_FORM.fullmatch(f"{raw}Z") else ""
            raise ValueError(f"expected a time such as {_EXAMPLE}, got {shortened(raw)}{without}")
        try:
            moment = datetime.fromisoformat(str(raw))
        except ValueError as error:
            raise ValueError(f"expected a time such as {_EXAMPLE}, got {shortened(raw)} ({error})") from None
    if moment.tzinfo is None:
        raise ValueError(f"expected a time such as {_EXAMPLE}, got {shortened(moment.isoformat())} without a time zone")
    try:
        return moment.replace(microsecond=0).astimezone(UTC)
    except OverflowError:
        raise ValueError(f"expected a time in the years 1 to 9999, got {shortened(raw)}") from None


_VALUE: Mapping[Kind, Callable[[Any], Any]] = {
    "text": _text,
    "url": _text,
    "choice": _text,
    "file": _file,
    "flag": _flag,
    "number": _number,
    "duration": _duration,
    "list": _list,
    "time": _time,
    "table": _table,
}
