"""Puts the settings together: command line over file over environment over default, as the Go plugin does."""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from event_handler.errors import ConfigurationError
from event_handler.settings import durations
from event_handler.settings.model import StartSettings, allowed_text, options, spell
from event_handler.settings.option import Option

TRUE, FALSE = frozenset({"true", "1", "yes"}), frozenset({"false", "0", "no"})
CONFIG_VARIABLE = "FDFWD_CONFIG"
EXIT_NOT_COMMAND_LINE = 1  # as the Go plugin: a wrong value in the file or the environment is no usage error
AWAITED = frozenset(("teleport-identity", "teleport-cert", "teleport-key", "teleport-ca"))  # tbot may write them after a reboot only
_PATH_HINT = "Check the path; relative paths start at the working directory."
_NUMBER = re.compile(r"[+-]?(0[xX](_?[0-9a-fA-F])+|0[bB](_?[01])+|0[oO]?(_?[0-7])+|0|[1-9](_?[0-9])*)")
_RFC3339 = re.compile(r"[0-9]{4}(-[0-9]{2}){2}T([0-9]{2}:){2}[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})")


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and what the user should know about how they came together."""

    settings: StartSettings
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class _Given:
    """A value as it was written, `where` it stands, and whether that is the command line."""

    raw: Any
    where: str
    typed: bool

    def problem(self, text: str, hint: str = "") -> ConfigurationError:
        return _problem(f"{self.where}: {text}", hint, typed=self.typed)


def load(
    command_line: Mapping[str, Any], environment: Mapping[str, str], config: str = "", *, only: frozenset[str] = frozenset()
) -> Loaded:
    """Build the settings. `command_line` has raw text, or several, by field name, only for flags that were given.

    `only` names the fields to look at, for a command that needs a few of them; the others keep their defaults.

    Raises ConfigurationError, which names the flag, variable or key and where it stands. Its exit code is 80 for the
    command line and for missing flags, 1 for the file and the environment.
    """
    known = options()
    if strange := sorted(set(command_line) - set(known)):
        raise TypeError(f"no such settings: {', '.join(strange)}")
    path = config or environment.get(CONFIG_VARIABLE, "")
    table = _read(path, typed=bool(config)) if path else {}
    warnings: list[str] = []
    found: dict[str, _Given] = {}
    shadowed: list[str] = []
    wanted = {name: option for name, option in known.items() if not only or name in only}
    for name, option in wanted.items():
        variable = next((v for v in option.variables if v in environment), "")
        keys = [key for key in option.keys if _find(table, key) is not None]
        if len(keys) > 1:
            warnings.append(f"{path}: {' and '.join(keys)} mean the same; {keys[0]} is used")
        if name in command_line:
            found[name] = _Given(command_line[name], f"--{option.flag}", typed=True)
        elif keys:
            found[name] = _Given(_find(table, keys[0]), f"{keys[0]} in {path}", typed=False)
            shadowed += [variable] if variable else []
        elif variable:
            found[name] = _Given(environment[variable], variable, typed=False)
    if shadowed:
        warnings.insert(0, f"{path} overrides the environment: {', '.join(shadowed)}")
    warnings += _unknown(table, path, [key for option in known.values() for key in option.keys])
    settings = _validate({name: _convert(known[name], given) for name, given in found.items()}, found)
    warnings += [line for name, given in found.items() if name.endswith("types") for line in _blanks(getattr(settings, name), given)]
    missing = [f"--{option.flag}=STRING" for name, option in wanted.items() if _misses(settings, name, option)]
    if missing:
        names = ", ".join(sorted(missing))
        raise ConfigurationError(f"missing flags: {names}", "Set them, or name a file with --config.")
    for name, given in found.items():
        if known[name].kind == "file" and getattr(settings, name):
            _check_file(known[name], getattr(settings, name), given)
    return Loaded(settings, warnings)


def _blanks(entries: tuple[str, ...], given: _Given) -> list[str]:
    """Nothing is trimmed, as with the Go plugin, so `a, b` names nothing by its second entry."""
    blank = [entry for entry in entries if entry != entry.strip()]
    return [f"{given.where}: {entry!r} is used with its blanks; write the list without them" for entry in blank]


def _misses(settings: StartSettings, name: str, option: Option) -> bool:
    """The fluentd URLs are needed when one of them is there, or when there is no other sink."""
    if name in ("fluentd_url", "fluentd_session_url"):
        fluentd = settings.fluentd_url or settings.fluentd_session_url
        return not getattr(settings, name) and bool(fluentd or not (settings.file_path or settings.elasticsearch_url))
    return option.required and not getattr(settings, name)


def _problem(text: str, hint: str = "", *, typed: bool) -> ConfigurationError:
    error = ConfigurationError(text, hint)
    if not typed:
        error.exit_code = EXIT_NOT_COMMAND_LINE
    return error


def _read(path: str, *, typed: bool) -> dict[str, Any]:
    source = "--config" if typed else CONFIG_VARIABLE
    try:
        data = Path(path).expanduser().read_bytes()
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _problem(f"the file {path} cannot be read ({reason})", f"Check {source}.", typed=typed) from None
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        text = f"{path} is not TOML: not UTF-8 text (at line {line})"
    except tomllib.TOMLDecodeError as error:
        last = data.rstrip().count(b"\n") + 1
        end = f"at line {last}, the end of the file"
        text = f"{path} is not TOML: {str(error).replace('at end of document', end)}"
    raise _problem(text, "Mend the line that is named.", typed=False)


def _find(table: dict[str, Any], key: str) -> Any:
    value: Any = table
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return None if isinstance(value, dict) else value


def _leaves(table: dict[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key, value in table.items():
        name = f'{prefix}"{key}"' if "." in key else f"{prefix}{key}"
        found += _leaves(value, f"{name}.") if isinstance(value, dict) else [name]
    return found


def _unknown(table: dict[str, Any], path: str, known: list[str]) -> list[str]:
    warnings = []
    for key in _leaves(table):
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
            advice = f"; did you mean {near[0]}?" if near else ""
            warnings.append(f"{path}: the key {key} is not known{advice}")
    return warnings


def _convert(option: Option, given: _Given) -> Any:
    raw = given.raw
    if given.typed and option.kind != "list" and isinstance(raw, list | tuple):
        raw = raw[-1]
    elif given.typed and option.kind == "list" and isinstance(raw, list | tuple):
        return tuple(item for text in raw for item in _split(text))
    try:
        return _VALUE[option.kind](raw)
    except ValueError as error:
        raise given.problem(str(error)) from None


def _validate(values: dict[str, Any], found: Mapping[str, _Given]) -> StartSettings:
    try:
        return StartSettings(**values)
    except ValidationError as error:
        problem = error.errors()[0]
    name = str(problem["loc"][0])
    shown = spell(options()[name], problem["input"])
    raise found[name].problem(f"{shown} is not allowed; allowed is {allowed_text(name)}")


def _check_file(option: Option, path: str, given: _Given) -> None:
    if path == "-":
        return
    try:
        directory = stat.S_ISDIR(Path(path).stat().st_mode)
    except FileNotFoundError as error:
        if option.flag in AWAITED:
            return
        raise given.problem(f"{path}: {error.strerror}", _PATH_HINT) from None
    except (OSError, ValueError) as error:
        raise given.problem(f"{path}: {getattr(error, 'strerror', None) or error}", _PATH_HINT) from None
    if directory and option.flag == "teleport-identity":
        return  # what tbot writes to
    if directory:
        raise given.problem(f"{path} is a directory", "Name a file.")
    if not os.access(path, os.R_OK):
        raise given.problem(f"{path} may not be read by this user", "Change its owner or mode.")


def _text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise ValueError(f"{raw!r} is no text; put it in quotes")
    return raw


def _file(raw: Any) -> str:
    text = _text(raw)
    if text in ("", "-"):
        return text
    try:
        return str((Path(text).expanduser() if text.startswith("~/") else Path(text)).absolute())
    except RuntimeError as error:
        raise ValueError(f"{text}: {error}") from None


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
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{raw!r} is no whole number")
    digits = text.lstrip("+-").replace("_", "")
    octal = len(digits) > 1 and digits.startswith("0") and digits.isdigit()
    value = int(digits, 8 if octal else 0)
    return -value if text.startswith("-") else value


def _duration(raw: Any) -> float:
    if isinstance(raw, int | float) and not isinstance(raw, bool) and raw != 0:  # 0 is the same in every unit
        raise ValueError(f'a duration needs a unit: write "{raw}s" for seconds, "{raw}m" for minutes')
    return durations.parse("0" if raw == 0 and not isinstance(raw, bool) else str(raw))


def _list(raw: Any) -> tuple[str, ...]:
    if isinstance(raw, list | tuple):  # as it stands in the file: a comma does not split
        return tuple(_text(item) for item in raw)
    return tuple(_split(_text(raw)))


def _split(text: str) -> list[str]:
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


def _time(raw: Any) -> datetime:
    if isinstance(raw, datetime):
        moment = raw
    else:
        if not _RFC3339.fullmatch(str(raw)):
            zone = " without a zone" if _RFC3339.fullmatch(f"{raw}Z") else ""
            raise ValueError(f"{str(raw)!r} is no time{zone}; write for example 2026-11-23T00:00:00Z")
        try:
            moment = datetime.fromisoformat(str(raw))
        except ValueError as error:
            raise ValueError(f"{raw!r} is no time ({error})") from None
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()!r} has no zone; end it with Z for UTC")
    try:
        return moment.replace(microsecond=0).astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{str(raw)!r} is outside the years 1 to 9999") from None


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
