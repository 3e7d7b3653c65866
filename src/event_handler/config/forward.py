"""The sinks that have flags and a table of their own, as the plugin's Fluentd has: `[forward.file]`, `--file-path`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from event_handler.config.option import FORWARD, Option, option, setting_of
from event_handler.config.per_sink import PerSink, Prepared
from event_handler.setting import Setting
from event_handler.sinks.registry import sink_type

MISSPELLED = frozenset(
    {"fluentd_cert", "fluentd_key", "fluentd_ca", "fluentd_max_connections"}
)  # FDWRD_, by the plugin
VARIABLES = {"fluentd_max_connections": "MAX_CONNECTIONS"}  # that the plugin names otherwise than by the flag


def forward_fields(sink: str) -> Iterator[tuple[str, Any]]:
    """The settings of one such sink: for each its name, and its annotation with the default, as pydantic takes it."""
    # The types of events for Fluentd are the plugin's own `types` and `skip-event-types`, which count for all sinks.
    per_sink = Prepared if sink == "fluentd" else PerSink
    for model in (sink_type(sink).options, per_sink):
        for field, info in model.model_fields.items():
            name = f"{sink}_{field}"
            annotation: Any = info.rebuild_annotation()
            yield name, (Annotated[annotation, _option(name, setting_of(model, field))], info.default)


def needed(sink: str) -> list[str]:
    """The settings without which there is no such sink."""
    model = sink_type(sink).options
    return [f"{sink}_{field}" for field in model.model_fields if setting_of(model, field).required]


def options_of(sink: str, settings: Any) -> dict[str, Any]:
    """What the settings hold for one such sink, by the names of its own options."""
    return {field: getattr(settings, f"{sink}_{field}") for field in sink_type(sink).options.model_fields}


def of_sink(name: str) -> str:
    """The sink that a setting belongs to, "" when it is none of these."""
    return next((sink for sink in FORWARD if name.startswith(f"{sink}_")), "")


def _option(name: str, said: Setting) -> Option:
    return option(
        name.replace("_", "-"),
        said.kind,
        said.help,
        variable=VARIABLES.get(name, ""),
        misspelled=name in MISSPELLED,
        unset=said.unset,
        secret=said.secret,
    )
