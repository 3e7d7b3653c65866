"""Puts the settings together: command line over file over environment over default, as the Go plugin does."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from event_handler.errors import ConfigurationError
from event_handler.settings import durations
from event_handler.settings.model import Option, StartSettings, options

TRUE, FALSE = frozenset({"true", "1", "yes"}), frozenset({"false", "0", "no"})
CONFIG_VARIABLE = "FDFWD_CONFIG"


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and what the user should know about how they came together."""

    settings: StartSettings
    warnings: list[str]


def load(command_line: Mapping[str, Any], environment: Mapping[str, str], config: str = "") -> Loaded:
    """Build the settings. `command_line` has raw text by field name, only for flags that were given.

    Raises ConfigurationError, which names the flag, variable or key.
    """
    warnings: list[str] = []
    path = config or environment.get(CONFIG_VARIABLE, "")
    table = _read(path) if path else {}
    known = options()
    values: dict[str, Any] = {}
    used: set[str] = set()
    shadowed: list[str] = []
    for name, option in known.items():
        variable = next((v for v in option.variables if v in environment), "")
        key, raw = _find(table, option)
        used.update(option.keys)
        if name in command_line:
            values[name] = _convert(option, command_line[name], f"--{option.flag}")
        elif key:
            values[name] = _convert(option, raw, f"{key} in {path}")
            if variable:
                shadowed.append(variable)
        elif variable:
            values[name] = _convert(option, environment[variable], variable)
    if shadowed:
        warnings.append(f"{path} overrides the environment: {', '.join(shadowed)}")
    for key in _leaves(table):
        if key not in used:
            near = difflib.get_close_matches(key, used, n=1, cutoff=0.4)
            warnings.append(f"{path}: the key {key} is not known" + (f"; did you mean {near[0]}?" if near else ""))
    settings = _validate(values)
    missing = [f"--{o.flag}=STRING" for n, o in known.items() if o.required and not getattr(settings, n)]
    if missing:
        raise ConfigurationError(f"missing flags: {', '.join(sorted(missing))}", "Set them, or name a file with --config.")
    for name, option in known.items():
        if option.kind == "file" and getattr(settings, name):
            _check_file(option, getattr(settings, name))
    return Loaded(settings, warnings)


def _read(path: str) -> dict[str, Any]:
    try:
        with Path(path).open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigurationError(f"the file {path} cannot be read ({error.strerror})", "Check --config.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}", "Mend the line that is named.") from None


def _find(table: dict[str, Any], option: Option) -> tuple[str, Any]:
    for key in option.keys:
        value: Any = table
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None and not isinstance(value, dict):
            return key, value
    return "", None


def _leaves(table: dict[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key, value in table.items():
        found += _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]
    return found


def _convert(option: Option, raw: Any, where: str) -> Any:
    try:
        return _VALUE[option.kind](raw)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{where}: {error}") from None


def _validate(values: dict[str, Any]) -> StartSettings:
    try:
        return StartSettings(**values)
    except ValidationError as error:
        problem = error.errors()[0]
        option = options()[str(problem["loc"][0])]
        given = problem["input"]
        raise ConfigurationError(f"--{option.flag}: {given!r} is not allowed ({problem['msg'].lower()})") from None


def _check_file(option: Option, path: str) -> None:
    if path != "-" and not Path(path).is_file():
        problem = "is a directory" if Path(path).is_dir() else "does not exist"
        if option.flag == "teleport-identity" and Path(path).is_dir() and (Path(path) / "identity").is_file():
            problem = "is a directory; name the file identity in it"
        raise ConfigurationError(
            f"--{option.flag}: {path} {problem}", "Check the path; relative paths start at the working directory."
        )


def _text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise ValueError(f"{raw!r} is no text; put it in quotes")
    return raw


def _file(raw: Any) -> str:
    text = _text(raw)
    return text if text in ("", "-") else str(Path(text).expanduser().absolute())


def _flag(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    word = str(raw).lower()
    if word in TRUE | FALSE:
        return word in TRUE
    raise ValueError(f"{raw!r} is neither true nor false")


def _number(raw: Any) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    text = str(raw)
    octal = text.lstrip("+-").startswith("0") and text.lstrip("+-").isdigit() and len(text.lstrip("+-")) > 1
    try:
        return int(text, 8 if octal else 0)
    except ValueError:
        raise ValueError(f"{raw!r} is no whole number") from None


def _duration(raw: Any) -> float:
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        raise ValueError(f'a duration needs a unit: write "{raw}s" for seconds, "{raw}m" for minutes')
    return durations.parse(str(raw))


def _list(raw: Any) -> tuple[str, ...]:
    if isinstance(raw, list | tuple):
        return tuple(str(item) for part in raw for item in (_list(part) if isinstance(part, str) else [part]))
    parts = str(raw).replace("\\,", "\0").split(",")
    if parts[-1] == "":
        parts.pop()
    return tuple(part.replace("\0", ",") for part in parts)


def _time(raw: Any) -> datetime:
    moment = raw
    if not isinstance(raw, datetime):
        try:
            moment = datetime.fromisoformat(str(raw))
        except ValueError:
            raise ValueError(f"{raw!r} is no time; write for example 2026-11-23T00:00:00Z") from None
    if moment.tzinfo is None:
        raise ValueError(f"{raw!r} has no zone; end it with Z for UTC")
    return datetime.fromtimestamp(int(moment.timestamp()), UTC)


_VALUE = {
    "text": _text,
    "choice": _text,
    "file": _file,
    "flag": _flag,
    "number": _number,
    "duration": _duration,
    "list": _list,
    "time": _time,
}
