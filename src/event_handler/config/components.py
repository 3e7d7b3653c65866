"""Reads the tables that have a name of the user's: `[sinks.NAME]` and `[transforms.NAME]`, and their variables."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from event_handler.config import event_names
from event_handler.config.given import Given
from event_handler.config.option import setting_of
from event_handler.config.per_sink import PerSink
from event_handler.config.spelling import allowed, shown, spell
from event_handler.errors import ConfigurationError, EventHandlerError
from event_handler.pipeline.transforms import registry as transforms
from event_handler.ports import Transform
from event_handler.setting import Options
from event_handler.sinks.registry import sink_type

NAMED = "sinks."  # how the section of a sink begins that has a name of its own
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
RESERVED = frozenset({"recordings"})  # the sink named in dead letters about recordings
LIKE = 0.6  # how alike two names are at least, of 1, before one is offered for the other
TABLES = ("sinks", "transforms")
Read = TypeVar("Read", bound=Options)


@dataclass(frozen=True, slots=True)
class ConfiguredSink:
    """A sink to deliver to. `section` is the table in which its options stand, for errors."""

    name: str
    type: str
    section: str
    options: Options
    chosen: PerSink = field(default_factory=PerSink)
    transforms: tuple[Transform, ...] = ()

    def shown(self) -> dict[str, str]:
        """What differs from its default, as a user would write it, without a secret."""
        found = {"type": self.type}
        for part in (self.options, self.chosen):
            for name, info in type(part).model_fields.items():
                if (value := getattr(part, name)) != info.get_default(call_default_factory=True):
                    found[name] = shown(setting_of(type(part), name), value)
        return found


def read_sinks(
    table: Mapping[str, Any], path: str, environment: Mapping[str, str], warnings: list[str]
) -> list[ConfiguredSink]:
    """The sinks that have a name of their own. Raises ConfigurationError or SinkError."""
    found = []
    for name, given in _tables("sinks", table, path, environment).items():
        if name in RESERVED:
            raise ConfigurationError(f"a sink cannot have the name {name}", "Name it otherwise.")
        kind = _type(f"sinks.{name}", given)
        model = sink_type(kind).options
        _refuse_unknown(f"sinks.{name}", given, [*model.model_fields, *PerSink.model_fields])
        options = _read(model, given, warnings)
        chosen = _read(PerSink, given, warnings)
        found.append(ConfiguredSink(name, kind, f"sinks.{name}", options, chosen))
    return found


def read_transforms(
    table: Mapping[str, Any], path: str, environment: Mapping[str, str], warnings: list[str]
) -> dict[str, Transform]:
    """The transforms by name. Raises ConfigurationError."""
    found = {}
    for name, given in _tables("transforms", table, path, environment).items():
        section = f"transforms.{name}"
        of_type = transforms.transform_type(_type(section, given))
        _refuse_unknown(section, given, list(of_type.options.model_fields))
        options = _read(of_type.options, given, warnings)
        try:
            found[name] = of_type.make(options, name)
        except EventHandlerError as error:
            raise ConfigurationError(f"[{section}]: {error.message}", error.hint) from None
    return found


def chosen_transforms(names: tuple[str, ...], known: Mapping[str, Transform], where: str) -> tuple[Transform, ...]:
    """The transforms of one sink in their order. Raises ConfigurationError for a name that has no table."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=LIKE)
            hint = f"Did you mean {near[0]}?" if near else f"Add a table [transforms.{name}] with a type."
            raise ConfigurationError(f"{where}: there is no transform {name}", hint)
    return tuple(known[name] for name in names)


def is_of_a_table(variable: str) -> bool:
    """Whether a variable belongs to a table of this kind, where it is looked at closely."""
    return variable.startswith(tuple(f"FDFWD_{kind.upper()}_" for kind in TABLES))


def _tables(
    kind: str, table: Mapping[str, Any], path: str, environment: Mapping[str, str]
) -> dict[str, dict[str, Given]]:
    """What is given for each name, by the name of the field. The file wins over the environment."""
    written = table.get(kind, {})
    if not isinstance(written, dict):
        raise ConfigurationError(f"{kind} in {path}: expected tables [{kind}.NAME]", "Write one table for each.")
    found: dict[str, dict[str, Given]] = {}
    for name, content in written.items():
        if not isinstance(content, dict):
            raise ConfigurationError(f"{kind}.{name} in {path}: expected a table", f"Write [{kind}.{name}].")
        if not NAME.fullmatch(name):
            hint = "Use lower-case letters, digits, - and _; at most 63 of them."
            raise ConfigurationError(f"[{kind}.{name}] in {path}: the name cannot be used", hint)
        found[name] = {key: Given(raw, f"{kind}.{name}.{key} in {path}") for key, raw in content.items()}
    prefix = f"FDFWD_{kind.upper()}_"
    variables = {name: value for name, value in environment.items() if name.startswith(prefix)}
    by_variable = {_in_variables(name): name for name in found}
    if len(by_variable) < len(found):
        raise ConfigurationError(f"two of the names in [{kind}] differ in - and _ only", "Rename one of them.")
    for variable in sorted(variables):
        if variable.endswith("_TYPE") and (upper := variable.removeprefix(prefix).removesuffix("_TYPE")):
            name = by_variable.setdefault(upper, upper.lower().replace("_", "-"))
            found.setdefault(name, {})
    for variable, value in variables.items():
        upper, key = _split(variable.removeprefix(prefix), by_variable)
        if not upper:
            example = f"{prefix}NAME_TYPE"
            raise ConfigurationError(
                f"{variable}: there is no table [{kind}.NAME] that it belongs to", f"Set {example}."
            )
        found[by_variable[upper]].setdefault(key.lower().replace("_", "-"), Given(value, variable))
    return {name: {key.replace("-", "_"): given for key, given in content.items()} for name, content in found.items()}


def _in_variables(name: str) -> str:
    return name.upper().replace("-", "_")


def _split(rest: str, names: Mapping[str, str]) -> tuple[str, str]:
    """The name that `NAME_KEY` begins with, the longest of several, and the key."""
    upper = max((name for name in names if rest.startswith(f"{name}_")), key=len, default="")
    return upper, rest[len(upper) + 1 :]


def _type(section: str, given: Mapping[str, Given]) -> str:
    if "type" not in given:
        raise ConfigurationError(f"[{section}] has no type", 'Write type = "...", as docs/sinks.md tells.')
    kind = given["type"].raw
    if not isinstance(kind, str) or not kind.strip():
        raise given["type"].problem("expected the name of a type in quotes")
    return kind.strip()


def _refuse_unknown(section: str, given: Mapping[str, Given], known: list[str]) -> None:
    for key, value in given.items():
        if key != "type" and key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=LIKE)
            options = ", ".join(name.replace("_", "-") for name in known)
            hint = f"Did you mean {near[0].replace('_', '-')}?" if near else f"[{section}] takes type, {options}."
            raise value.problem("there is no such option", hint)


def _read(model: type[Read], given: Mapping[str, Given], warnings: list[str]) -> Read:
    """The options of a component, as far as they are those of `model`. Raises ConfigurationError."""
    mine = {name: one for name, one in given.items() if name in model.model_fields}
    values = {name: one.value(setting_of(model, name), warnings) for name, one in mine.items()}
    for name in model.model_fields:
        if setting_of(model, name).required and not values.get(name):
            where = next(iter(given.values())).where
            raise ConfigurationError(f"{where}: the option {name.replace('_', '-')} is missing", "Set it.")
    try:
        options = model(**values)
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0])
        kind, info = setting_of(model, name).kind, model.model_fields[name]
        text = f"{spell(kind, problem['input'])} is not allowed; allowed is {allowed(kind, info)}"
        raise mine[name].problem(text) from None
    for name, one in _of_kind(model, mine, "file"):
        if getattr(options, name):
            one.check_file(getattr(options, name))
    for name, one in _of_kind(model, mine, "list"):
        if name.endswith("types"):
            check_names(one, getattr(options, name) or (), warnings)
    return options


def _of_kind(model: type[Options], given: Mapping[str, Given], kind: str) -> Iterator[tuple[str, Given]]:
    return ((name, one) for name, one in given.items() if setting_of(model, name).kind == kind)


def check_names(given: Given, entries: tuple[str, ...], warnings: list[str]) -> None:
    """Refuse what names no event type.

    With a typo in `types` nothing would be delivered, and the events count as delivered.
    """
    wrong, doubtful = event_names.unknown(entries)
    if wrong:
        raise given.problem("; ".join(wrong).replace("?;", "?,"), event_names.hint(entries))
    warnings += [f"{given.where}: {text}" for text in doubtful]
