"""Puts the settings together: command line over file over environment over default, as the Go plugin does."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from event_handler.config import event_names
from event_handler.config.model import StartSettings, allowed_text, options, spell
from event_handler.config.option import SINKS, Option
from event_handler.config.toml_file import find, read
from event_handler.config.unknown_keys import unknown_keys, unknown_sinks, unknown_variables
from event_handler.config.values import clean, convert, is_quoted, split
from event_handler.errors import ConfigurationError

CONFIG_VARIABLE = "FDFWD_CONFIG"
NEEDED = {  # the options without which a sink is none
    "fluentd": ("fluentd_session_url", "fluentd_url"),
    "file": ("file_path",),
    "elasticsearch": ("elasticsearch_url",),
}
AWAITED = frozenset(
    ("teleport-identity", "teleport-cert", "teleport-key", "teleport-ca")
)  # tbot may write them after a reboot only
_PATH_HINT = "Check the path; relative paths start at the working directory."


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and what the user should know about how they came together."""

    settings: StartSettings
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class _Given:
    """A value as it was written, and `where` it stands."""

    raw: Any
    where: str

    def problem(self, text: str, hint: str = "") -> ConfigurationError:
        return ConfigurationError(f"{self.where}: {text}", hint)


def load(
    command_line: Mapping[str, Any],
    environment: Mapping[str, str],
    config: str = "",
    *,
    only: frozenset[str] = frozenset(),
) -> Loaded:
    """Build the settings. `command_line` has raw text, or several, by field name, only for flags that were given.

    `only` names the fields to look at, for a command that needs a few of them; the others keep their defaults.

    Raises ConfigurationError, which names the flag, variable or key and where it stands; its notes are the warnings so
    far.
    """
    if strange := sorted(set(command_line) - set(options())):
        raise TypeError(f"no such settings: {', '.join(strange)}")
    path = (config or environment.get(CONFIG_VARIABLE, "")).strip()
    table = read(path, "--config" if config else CONFIG_VARIABLE) if path else {}
    warnings = [*unknown_keys(table, path), *unknown_variables(environment, (CONFIG_VARIABLE,))]
    try:
        settings = _settings(command_line, environment, table, path, only, warnings)
    except ConfigurationError as error:  # a key that is not known may be the reason for it
        for warning in warnings:
            error.add_note(warning)
        raise
    return Loaded(settings, warnings)


def _settings(
    command_line: Mapping[str, Any],
    environment: Mapping[str, str],
    table: dict[str, Any],
    path: str,
    only: frozenset[str],
    warnings: list[str],
) -> StartSettings:
    wanted = {name: option for name, option in options().items() if not only or name in only}
    found = _found(wanted, command_line, environment, table, path, warnings)
    settings = _validate({name: _convert(wanted[name], given, warnings) for name, given in found.items()}, found)
    _check_names(settings, found, warnings)
    if missing := _missing(settings, wanted, found):
        raise _missing_flags(missing, table, path)
    for name, given in found.items():
        if wanted[name].kind == "file" and getattr(settings, name):
            _check_file(wanted[name], getattr(settings, name), given)
    warnings += [] if only else [*_unused(settings, found), *_future(settings, found)]
    return settings


def _found(
    wanted: Mapping[str, Option],
    command_line: Mapping[str, Any],
    environment: Mapping[str, str],
    table: dict[str, Any],
    path: str,
    warnings: list[str],
) -> dict[str, _Given]:
    """What was given of each option, from the place that wins."""
    found: dict[str, _Given] = {}
    shadowed: list[str] = []
    for name, option in wanted.items():
        variable = next((v for v in option.variables if v in environment), "")
        keys = [key for key in option.keys if find(table, key) is not None]
        if len(keys) > 1:
            warnings.append(f"{path}: {' and '.join(keys)} mean the same; {keys[0]} is used")
        if name in command_line:
            found[name] = _Given(command_line[name], f"--{option.flag}")
        elif keys:
            found[name] = _Given(find(table, keys[0]), f"{keys[0]} in {path}")
            shadowed += [variable] if variable else []
        elif variable:
            found[name] = _Given(environment[variable], variable)
    if shadowed:
        warnings.insert(0, f"{path} overrides the environment: {', '.join(shadowed)}")
    return found


def _convert(option: Option, given: _Given, warnings: list[str]) -> Any:
    raw = given.raw
    several = given.where.startswith("--") and isinstance(
        raw, list | tuple
    )  # the flag again and again: the last one, or all
    texts = [clean(option, text) for text in (raw if several else [raw])]
    if any(map(is_quoted, texts)):
        problem = given.problem(
            "the quotes are part of the value, as docker's --env-file leaves them", "Write it without quotes."
        )
        if not option.secret:
            raise problem
        warnings.append(f"{problem.message}; write it without them if they do not belong to it")
    try:
        if several and option.kind == "list":
            return tuple(item for text in texts for item in split(text))
        return convert(option, texts[-1])
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


def _check_names(settings: StartSettings, found: Mapping[str, _Given], warnings: list[str]) -> None:
    """Refuse what names no event type.

    with a typo in `types` nothing would be delivered, and the events count as delivered.
    """
    for name, given in found.items():
        if name.endswith("types"):
            entries = getattr(settings, name)
            wrong, doubtful = event_names.unknown(entries)
            if wrong:
                raise given.problem("; ".join(wrong).replace("?;", "?,"), event_names.hint(entries))
            warnings += [f"{given.where}: {text}" for text in doubtful]


def _missing(settings: StartSettings, wanted: Mapping[str, Option], found: Mapping[str, _Given]) -> list[str]:
    """The flags that are needed: those of a sink when it was begun, or when no other one is complete."""
    missing = [option.flag for name, option in wanted.items() if option.required and not getattr(settings, name)]
    if not any(name in wanted for names in NEEDED.values() for name in names):
        return missing
    begun = [sink for sink in SINKS if any(getattr(settings, name) for name in NEEDED[sink])]
    if not begun:
        begun = [sink for sink in SINKS if _meant(sink, found)] or ["fluentd"]
    return missing + [options()[name].flag for sink in begun for name in NEEDED[sink] if not getattr(settings, name)]


def _meant(sink: str, found: Mapping[str, _Given]) -> list[str]:
    """Where options of the sink stand that were given."""
    return [given.where for name, given in found.items() if name.startswith(f"{sink}_") and given.raw not in ("", ())]


def _missing_flags(missing: list[str], table: dict[str, Any], path: str) -> ConfigurationError:
    names = ", ".join(f"--{flag}=STRING" for flag in sorted(missing))
    fluentd = [options()[name].flag for name in NEEDED["fluentd"]]
    other = f", or for another sink {' or '.join(f'--{options()[NEEDED[sink][0]].flag}' for sink in SINKS[1:])}"
    sinks = unknown_sinks(table)
    hint = f"Set them{other if set(fluentd) <= set(missing) else ''}"
    if sinks and set(fluentd) <= set(missing):
        return ConfigurationError(
            f"missing flags: {names}; {path} has a table for {', '.join(sinks)}, which is not a sink",
            f"The sinks are {', '.join(SINKS)}. {hint}.",
        )
    return ConfigurationError(
        f"missing flags: {names}", f"{hint}." if path else f"{hint}; or name a file with --config."
    )


def _unused(settings: StartSettings, found: Mapping[str, _Given]) -> list[str]:
    """Options of a sink that is not used because what it needs is not set."""
    unused = []
    for sink in SINKS:
        if not any(getattr(settings, name) for name in NEEDED[sink]) and (where := _meant(sink, found)):
            needed = " and ".join(options()[name].key for name in NEEDED[sink])
            unused.append(
                f"nothing is delivered to {sink}, for {needed} is not set; set all the same: {', '.join(where)}"
            )
    return unused


def _future(settings: StartSettings, found: Mapping[str, _Given]) -> Iterable[str]:
    if settings.start_time is not None and settings.start_time > datetime.now(UTC):
        shown = spell(options()["start_time"], settings.start_time)
        yield f"{found['start_time'].where}: {shown} is in the future; nothing is read until then"


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
