"""Reads the TOML file, and finds its keys."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from event_handler.errors import ConfigurationError

WIDE = (b"\xff\xfe", b"\xfe\xff")  # how UTF-16 begins


def read(path: str, source: str) -> dict[str, Any]:
    """The tables of the file; `source` is what to check when it cannot be read. Raises ConfigurationError."""
    try:
        data = Path(path).expanduser().read_bytes()
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error).rstrip(".")
        raise ConfigurationError(f"the file {path} cannot be read ({reason})", f"Check {source}.") from None
    if data.startswith(WIDE) or b"\0" in data[:100]:
        hint = "Save it as UTF-8; in PowerShell: Out-File -Encoding utf8."
        raise ConfigurationError(f"{path} is not TOML: its text is UTF-16", hint)
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        text = f"{path} is not TOML: not UTF-8 text (at line {line})"
    except tomllib.TOMLDecodeError as error:
        last = data.rstrip().count(b"\n") + 1
        text = f"{path} is not TOML: {str(error).replace('at end of document', f'at line {last}, the end of the file')}"
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        reason = "nested too deeply" if isinstance(error, RecursionError) else "a value that is out of range"
        text = f"{path} is not TOML: {reason}"
    raise ConfigurationError(text, "Correct that line.")


def find(table: dict[str, Any], key: str) -> Any:
    """The value of a dotted key, None where there is none or a table."""
    value: Any = table
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return None if isinstance(value, dict) else value


KeyPath = tuple[str, ...]


def leaves(table: dict[str, Any], prefix: KeyPath = ()) -> list[tuple[KeyPath, Any]]:
    """The path and the value of each key that is not a table, and of each table that is empty."""
    found: list[tuple[KeyPath, Any]] = []
    for key, value in table.items():
        path = (*prefix, key)
        if isinstance(value, dict):
            found += leaves(value, path) or [(path, value)]
        else:
            found.append((path, value))
    return found
