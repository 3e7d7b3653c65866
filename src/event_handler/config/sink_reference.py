"""What a type of sink can be set to, from its model: for `sinks describe` and for the pages in docs/sinks.

`python -m event_handler.config.sink_reference TYPE` prints the table of such a page; a test compares.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from event_handler.config.option import setting_of
from event_handler.config.per_sink import PerSink
from event_handler.config.spelling import allowed, shown
from event_handler.setting import Options
from event_handler.sinks.http_options import HttpOptions
from event_handler.sinks.registry import sink_type


@dataclass(frozen=True, slots=True)
class Row:
    """One option: its key in TOML, its kind, what it is for, and what leaving it out means."""

    key: str
    kind: str
    help: str
    default: str


def rows(name: str) -> Iterator[Row]:
    """The options of a type: what must be set first, what all sinks have last. Raises SinkError for another type."""
    for model in (sink_type(name).options, PerSink):
        for field in sorted(model.model_fields, key=lambda field: _rank(model, field)):
            setting, info = setting_of(model, field), model.model_fields[field]
            range_ = allowed(setting.kind, info) if setting.kind in ("choice", "number", "duration") else ""
            help_ = f"{setting.help}: {range_}" if range_ else setting.help
            yield Row(field.replace("_", "-"), setting.kind, help_, _default(model, field))


def table(name: str) -> str:
    """The options as a Markdown table, with a line end at its end."""
    lines = [f"| `{row.key}` | {row.kind} | {row.default} | {row.help} |" for row in rows(name)]
    return "\n".join(["| option | kind | default | what it is for |", "|---|---|---|---|", *lines]) + "\n"


def _rank(model: type[Options], field: str) -> tuple[bool, bool]:
    return not setting_of(model, field).required, field in HttpOptions.model_fields


def _default(model: type[Options], field: str) -> str:
    setting = setting_of(model, field)
    value = model.model_fields[field].get_default(call_default_factory=True)
    if setting.required:
        return "required"
    if setting.unset:
        return setting.unset
    return "none" if value in ("", None, (), {}) else shown(setting, value)


if __name__ == "__main__":
    sys.stdout.write(table(sys.argv[1]))
