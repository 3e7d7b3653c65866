"""Puts the settings together: command line over file over environment over default, as the Go plugin does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from event_handler.config.components import (
    TABLES,
    ConfiguredSink,
    check_names,
    chosen_transforms,
    is_of_a_table,
    read_sinks,
    read_transforms,
)
from event_handler.config.forward import needed, of_sink, options_of
from event_handler.config.given import Given
from event_handler.config.model import ALL_SETTINGS, StartSettings, allowed_text, options
from event_handler.config.option import FORWARD, Option
from event_handler.config.per_sink import PerSink
from event_handler.config.spelling import spell
from event_handler.config.toml_file import find, read
from event_handler.config.unknown_keys import unknown_keys, unknown_sinks, unknown_variables
from event_handler.config.values import split
from event_handler.errors import ConfigurationError, SinkError
from event_handler.ports import Transform
from event_handler.sinks.fluentd import MAX_CONNECTIONS as FLUENTD_CONNECTIONS
from event_handler.sinks.registry import sink_type

CONFIG_VARIABLE = "FDFWD_CONFIG"
IN_CONTAINER = "container"  # set by our image, by Podman and systemd-nspawn (https://systemd.io/CONTAINER_INTERFACE)
MOUNTED = (
    "in a directory that you mount: docker run --volume DIRECTORY:/opt/teleport-plugin IMAGE start "
    "--config=/opt/teleport-plugin/teleport-event-handler.toml"
)
AWAITED = frozenset(
    ("teleport-identity", "teleport-cert", "teleport-key", "teleport-ca")
)  # tbot may write them after a reboot only


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and what the user should know about how they came together."""

    settings: StartSettings
    warnings: list[str]


def load(
    command_line: Mapping[str, Any],
    environment: Mapping[str, str],
    config: str = "",
    *,
    only: frozenset[str] = frozenset(),
) -> Loaded:
    """Build the settings. `command_line` has raw text, or several, by field name, only for flags that were given.

    `only` names the fields to look at, for a command that needs a few of them; the others keep their defaults.

    Raises ConfigurationError or SinkError, which names the flag, variable or key and where it stands; its notes are the
    warnings so far.
    """
    if strange := sorted(set(command_line) - set(options())):
        raise TypeError(f"no such settings: {', '.join(strange)}")
    path = (config or environment.get(CONFIG_VARIABLE, "")).strip()
    mounted = f", and that the file is {MOUNTED}" if environment.get(IN_CONTAINER) else ""
    table = read(path, f"{'--config' if config else CONFIG_VARIABLE}{mounted}") if path else {}
    ours = {name: value for name, value in environment.items() if not is_of_a_table(name)}
    rest = {key: value for key, value in table.items() if key not in TABLES}
    warnings = [*unknown_keys(rest, path), *unknown_variables(ours, (CONFIG_VARIABLE,))]
    try:
        settings = _settings(command_line, environment, table, path, only, warnings)
    except (ConfigurationError, SinkError) as error:  # a key that is not known may be the reason for it
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
    for name, given in found.items():
        if name.endswith("types"):
            check_names(given, getattr(settings, name) or (), warnings)
    named = [] if only else read_sinks(table, path, environment, warnings)
    if missing := _missing(settings, wanted, found, named=bool(named)):
        raise _missing_flags(missing, table, path, environment)
    for name, given in found.items():
        if wanted[name].kind == "file" and (file := getattr(settings, name)):
            flag = wanted[name].flag  # the identity may be the directory that tbot writes to
            given.check_file(file, awaited=flag in AWAITED, directory=flag == "teleport-identity")
    if only:
        return settings
    warnings += [*_unused(settings, found), *_future(settings, found)]
    known = read_transforms(table, path, environment, warnings)
    return settings.with_sinks(tuple(_with_transforms([*_forward(settings), *named], known)))


def _forward(settings: StartSettings) -> Iterator[ConfiguredSink]:
    """The sinks that have flags, as far as they are used."""
    for sink in FORWARD:
        if any(getattr(settings, name) for name in needed(sink)):
            values = options_of(sink, settings)
            if sink == "fluentd" and not values["max_connections"]:  # as the plugin's concurrency means
                values["max_connections"] = max(FLUENTD_CONNECTIONS, settings.concurrency * 2)
            own = {name: f"{sink}_{name}" for name in PerSink.model_fields if hasattr(settings, f"{sink}_{name}")}
            chosen = {name: getattr(settings, field) for name, field in own.items()}
            options = sink_type(sink).options(**values)
            yield ConfiguredSink(sink, sink, f"forward.{sink}", options, PerSink(**chosen))


def _with_transforms(sinks: Iterable[ConfiguredSink], known: Mapping[str, Transform]) -> Iterator[ConfiguredSink]:
    """Raises ConfigurationError when two sinks have one name, for each has a state of its own by it."""
    names: set[str] = set()
    for sink in sinks:
        if sink.name in names:
            hint = f"Give the one in [{sink.section}] another name."
            raise ConfigurationError(f"there are two sinks of the name {sink.name}", hint)
        names.add(sink.name)
        yield replace(sink, transforms=chosen_transforms(sink.chosen.transforms, known, f"[{sink.section}]"))


def _found(
    wanted: Mapping[str, Option],
    command_line: Mapping[str, Any],
    environment: Mapping[str, str],
    table: dict[str, Any],
    path: str,
    warnings: list[str],
) -> dict[str, Given]:
    """What was given of each option, from the place that wins."""
    found: dict[str, Given] = {}
    shadowed: list[str] = []
    for name, option in wanted.items():
        variable = next((v for v in option.variables if v in environment), "")
        keys = [key for key in option.keys if find(table, key) is not None]
        if len(keys) > 1:
            warnings.append(f"{path}: {' and '.join(keys)} mean the same; {keys[0]} is used")
        if name in command_line:
            found[name] = Given(command_line[name], f"--{option.flag}")
        elif keys:
            found[name] = Given(find(table, keys[0]), f"{keys[0]} in {path}")
            shadowed += [variable] if variable else []
        elif variable:
            found[name] = Given(environment[variable], variable)
    if shadowed:
        warnings.insert(0, f"{path} overrides the environment: {', '.join(shadowed)}")
    return found


def _convert(option: Option, given: Given, warnings: list[str]) -> Any:
    if not (given.where.startswith("--") and isinstance(given.raw, list | tuple)):
        return given.value(option, warnings)
    # The flag again and again: the last one counts, or all of a list.
    texts = [given.unquoted(option, text, warnings) for text in given.raw]
    if option.kind == "list":
        return tuple(item for text in texts for item in split(text))
    return Given(texts[-1], given.where).value(option, warnings)


def _validate(values: dict[str, Any], found: Mapping[str, Given]) -> StartSettings:
    try:
        return ALL_SETTINGS(**values)
    except ValidationError as error:
        problem = error.errors()[0]
    name = str(problem["loc"][0])
    shown = spell(options()[name].kind, problem["input"])
    raise found[name].problem(f"{shown} is not allowed; allowed is {allowed_text(name)}")


def _missing(
    settings: StartSettings, wanted: Mapping[str, Option], found: Mapping[str, Given], *, named: bool
) -> list[str]:
    """The flags that are needed: those of a sink when it was begun, or when there is no other one."""
    missing = [option.flag for name, option in wanted.items() if option.required and not getattr(settings, name)]
    if not any(of_sink(name) for name in wanted):
        return missing
    begun = [sink for sink in FORWARD if any(getattr(settings, name) for name in needed(sink))]
    if not begun and not named:
        begun = [sink for sink in FORWARD if _meant(sink, found)] or ["fluentd"]
    return missing + [options()[name].flag for sink in begun for name in needed(sink) if not getattr(settings, name)]


def _meant(sink: str, found: Mapping[str, Given]) -> list[str]:
    """Where options of the sink stand that were given."""
    return [given.where for name, given in found.items() if name.startswith(f"{sink}_") and given.raw not in ("", ())]


def _missing_flags(
    missing: list[str], table: dict[str, Any], path: str, environment: Mapping[str, str]
) -> ConfigurationError:
    names = ", ".join(f"--{flag}=STRING" for flag in sorted(missing))
    fluentd = [options()[name].flag for name in needed("fluentd")]
    other = f", or for another sink {' or '.join(f'--{options()[needed(sink)[0]].flag}' for sink in FORWARD[1:])}"
    sinks = unknown_sinks(table)
    hint = f"Set them{other if set(fluentd) <= set(missing) else ''}"
    if sinks and set(fluentd) <= set(missing):
        return ConfigurationError(
            f"missing flags: {names}; {path} has a table for {', '.join(sinks)}, which is not a sink",
            f"The sinks are {', '.join(FORWARD)}. {hint}.",
        )
    file = "name a file with --config" + (f", {MOUNTED}" if environment.get(IN_CONTAINER) else "")
    return ConfigurationError(f"missing flags: {names}", f"{hint}." if path else f"{hint}; or {file}.")


def _unused(settings: StartSettings, found: Mapping[str, Given]) -> list[str]:
    """Options of a sink that is not used because what it needs is not set."""
    unused = []
    for sink in FORWARD:
        if not any(getattr(settings, name) for name in needed(sink)) and (where := _meant(sink, found)):
            keys = " and ".join(options()[name].key for name in needed(sink))
            unused.append(
                f"nothing is delivered to {sink}, for {keys} is not set; set all the same: {', '.join(where)}"
            )
    return unused


def _future(settings: StartSettings, found: Mapping[str, Given]) -> Iterable[str]:
    if settings.start_time is not None and settings.start_time > datetime.now(UTC):
        shown = spell("time", settings.start_time)
        yield f"{found['start_time'].where}: {shown} is in the future; nothing is read until then"
