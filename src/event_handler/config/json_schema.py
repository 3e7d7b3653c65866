"""The configuration file as a JSON schema (draft 7): what may stand in it, made from the models.

Each option has the spelling of the documentation, and that of the plugin's own files where it differs. Secrets as text
are left out, for what is checked by a schema is mostly shown to others too, as a ConfigMap is: they belong in files
(`token-file`) or in variables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from annotated_types import Ge, Le
from pydantic.fields import FieldInfo

from event_handler.config.components import NAME
from event_handler.config.model import ALL_SETTINGS, options
from event_handler.config.option import setting_of
from event_handler.config.per_sink import PerSink
from event_handler.config.spelling import Described
from event_handler.pipeline.transforms import registry as transforms
from event_handler.setting import Options
from event_handler.sinks.registry import OWN, sink_type

Schema = dict[str, Any]
PLUGINS = ("lock-", "teleport.refresh.")  # how keys begin that the plugin's files have and the documentation has not
DURATION_PATTERN = r"^\+?(0|(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$"
TIME_PATTERN = r"^[0-9]{4}(-[0-9]{2}){2}T([0-9]{2}:){2}[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$"
_STRING: Schema = {"type": "string"}
_STRINGS: Schema = {"type": "array", "items": _STRING}


def config_schema() -> Schema:
    """The whole file: options, and the tables of sinks and transforms."""
    root = _object({})
    for name, option in options().items():
        if not _secret_text(name, option):
            for key in (option.key, *(key for key in option.keys if key.startswith(PLUGINS))):
                _put(root, key, _value(option, option.help, ALL_SETTINGS.model_fields[name]))
    sinks = {name: (sink_type(name).options, PerSink) for name in sorted(OWN)}
    root["properties"]["sinks"] = _named(sinks)
    root["properties"]["transforms"] = _named(
        {name: (transforms.transform_type(name).options,) for name in sorted(transforms.TYPES)}
    )
    return root


def _object(properties: Mapping[str, Schema]) -> Schema:
    return {"type": "object", "additionalProperties": False, "properties": dict(properties)}


def _put(table: Schema, key: str, value: Schema) -> None:
    *tables, name = key.split(".")
    for part in tables:
        table = table["properties"].setdefault(part, _object({}))
    table["properties"][name] = value


def _named(types: Mapping[str, tuple[type[Options], ...]]) -> Schema:
    """Tables with names of the user's, each of a type that says what else may stand in it."""
    of_type = [
        {
            "if": {"required": ["type"], "properties": {"type": {"const": name}}},
            "then": _object({"type": {}, **_options(models)}),
        }
        for name, models in types.items()
    ]
    kinds = {"type": "string", "enum": list(types)}
    table = {"type": "object", "required": ["type"], "properties": {"type": kinds}, "allOf": of_type}
    return {
        "type": "object",
        "propertyNames": {"pattern": f"^{NAME.pattern}$"},
        "additionalProperties": table,
    }


def _options(models: tuple[type[Options], ...]) -> dict[str, Schema]:
    found = {}
    for model in models:
        for field, info in model.model_fields.items():
            said = setting_of(model, field)
            if not _secret_text(field, said):
                found[field.replace("_", "-")] = _value(said, said.help, info)
    return found


def _secret_text(name: str, said: Described) -> bool:
    """A URL may hold a password, and a table of headers too; most of them do not."""
    return said.secret and said.kind == "text" and not name.endswith("url")


def _value(said: Described, help_: str, info: FieldInfo) -> Schema:
    match said.kind:
        case "flag":
            value: Schema = {"type": "boolean"}
        case "number":
            value = {"type": "integer", **_range(info)}
        case "duration":
            value = {"anyOf": [{"type": "string", "pattern": DURATION_PATTERN}, {"const": 0}]}
        case "list":
            value = {"anyOf": [_STRINGS, _STRING]}
        case "time":
            value = {"type": "string", "pattern": TIME_PATTERN}
        case "choice":
            value = {"type": "string", "enum": list(get_args(info.annotation))}
        case "table":
            value = {"type": "object"}
        case _:
            value = dict(_STRING)
    return {"description": help_, **value}


def _range(info: FieldInfo) -> Schema:
    found: Schema = {}
    for limit in info.metadata:
        if isinstance(limit, Ge):
            found["minimum"] = limit.ge
        elif isinstance(limit, Le):
            found["maximum"] = limit.le
    return found
