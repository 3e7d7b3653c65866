"""What values.yaml of the chart says, as a schema and as a table.

A line `# -- text` above a value describes it; what stands below a described value belongs to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from event_handler.config.json_schema import DURATION_PATTERN, TIME_PATTERN, config_schema

Schema = dict[str, Any]
DESCRIBED = "# -- "
BEGIN, END = "<!-- values: made by `make chart` -->", "<!-- end of values -->"
_KEY = re.compile(r"( *)([A-Za-z]+):")

TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
OBJECTS: Schema = {"type": "array", "items": {"type": "object"}}
WORDS: Schema = {"type": "array", "items": {"type": "string"}}
DURATION: Schema = {"type": "string", "pattern": DURATION_PATTERN}
DURATION_OR_NONE: Schema = {"type": "string", "pattern": f"^$|{DURATION_PATTERN}"}
URL: Schema = {"type": "string", "pattern": "^$|^https?://"}
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
COUNT: Schema = {"type": "integer", "minimum": 0}
PULL: Schema = {"type": "string", "enum": ["Always", "IfNotPresent", "Never"]}
SECRET: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["secretName"],
    "properties": {
        "secretName": {"type": "string", "minLength": 1},
        "items": OBJECTS,
        "optional": {"type": "boolean"},
        "env": {"type": "object", "additionalProperties": {"type": "string", "minLength": 1}},
    },
}
# What a default does not tell of its value, by its path.
SPECIAL: Mapping[str, Schema] = {
    "eventHandler.storagePath": {"type": "string", "pattern": "^/"},
    "eventHandler.timeout": DURATION,
    "eventHandler.batch": {"type": "integer", "minimum": 0, "maximum": 10_000},
    "eventHandler.windowSize": DURATION,
    "eventHandler.types": WORDS,
    "eventHandler.skipEventTypes": WORDS,
    "eventHandler.skipSessionTypes": WORDS,
    "eventHandler.startTime": {"type": "string", "pattern": f"^$|{TIME_PATTERN}"},
    "eventHandler.concurrency": {"type": "integer", "minimum": 1, "maximum": 100},
    "eventHandler.lock.failedAttemptsCount": {"type": "integer", "minimum": 1},
    "eventHandler.lock.period": DURATION,
    "eventHandler.lock.for": DURATION_OR_NONE,
    "fluentd.url": URL,
    "fluentd.sessionUrl": URL,
    "fluentd.maxConnections": {"type": "integer", "minimum": 0, "maximum": 1000},
    "tbot.mode": {"type": "string", "enum": ["sidecar", "secret"]},
    "tbot.defaultOutput.enabled": {"const": True},
    "tbot.imagePullPolicy": PULL,
    "certManager.ttl": DURATION,
    "certManager.renewBefore": DURATION_OR_NONE,
    "certManager.dnsNames": WORDS,
    "certManager.ipAddresses": WORDS,
    "persistentVolumeClaim.size": {"type": "string", "pattern": r"^[0-9.]+([EPTGMk]i?)?$"},
    "persistentVolumeClaim.volumeName": {"type": "string", "minLength": 1},
    "persistentVolumeClaim.accessModes": WORDS,
    "image.repository": {"type": "string", "minLength": 1},
    "image.pullPolicy": PULL,
    "image.digest": {"type": "string", "pattern": "^$|^sha256:[0-9a-f]{64}$"},
    "nodeSelector": TEXTS,
    "podAnnotations": TEXTS,
    "extraArgs": WORDS,
    "command": WORDS,
    "helmTest.args": WORDS,
    "secrets": {
        "type": "object",
        "propertyNames": {"pattern": "^[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?$"},
        "additionalProperties": SECRET,
    },
    "state.kind": {
        "type": "string",
        "enum": ["", "persistentVolumeClaim", "volumeClaimTemplate", "volume", "emptyDir", "postgresql", "bucket"],
    },
    "state.url": {"type": "string", "pattern": r"^$|^(postgres(ql)?|s3)://"},
    "replicas": COUNT,
    "terminationGracePeriodSeconds": COUNT,
    "listener.port": PORT,
    "listener.tokenSecret.key": {"type": "string", "minLength": 1},
    "service.port": PORT,
    "service.type": {"type": "string", "enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    "podDisruptionBudget.maxUnavailable": {"anyOf": [COUNT, {"type": "string", "pattern": "^[0-9]+%$"}]},
    **{f"{kind}Monitor.interval": DURATION_OR_NONE for kind in ("service", "pod")},
    **{f"{kind}Monitor.scrapeTimeout": DURATION_OR_NONE for kind in ("service", "pod")},
}


@dataclass(frozen=True, slots=True)
class Value:
    """One value of the chart, by its path with dots."""

    path: str
    default: Any
    help: str


def values(file: Path) -> Iterator[Value]:
    """The described values in their order. Raises ValueError for one that is not described."""
    text = file.read_text()
    told = dict(_descriptions(text))
    yield from _walk(yaml.safe_load(text), "", told)


def _descriptions(text: str) -> Iterator[tuple[str, str]]:
    path: list[str] = []
    said = ""
    for line in text.splitlines():
        if line.lstrip().startswith(DESCRIBED):
            said = line.strip().removeprefix(DESCRIBED)
        elif key := _KEY.match(line):
            path = [*path[: len(key[1]) // 2], key[2]]
            if said:
                yield ".".join(path), said
            said = ""


def _walk(table: Mapping[str, Any], above: str, told: Mapping[str, str]) -> Iterator[Value]:
    for key, default in table.items():
        path = f"{above}{key}"
        if path in told:
            yield Value(path, default, told[path])
        elif isinstance(default, dict) and default:
            yield from _walk(default, f"{path}.", told)
        else:
            raise ValueError(f"{path} in values.yaml is not described: write '{DESCRIBED}…' above it")


def schema(file: Path) -> Schema:
    """The schema of the values: nothing is allowed that is not in values.yaml, or an option of ours."""
    root: Schema = _object()
    for value in values(file):
        *tables, name = value.path.split(".")
        at = root
        for part in tables:
            at = at["properties"].setdefault(part, _object())
        at["properties"][name] = {"description": value.help, **_of(value)}
    for free in ("podSecurityContext", "securityContext"):  # Kubernetes' own, of which values.yaml has a part
        root["properties"][free]["additionalProperties"] = True
        for part in root["properties"][free]["properties"].values():
            part.pop("type", None)
    root["properties"]["global"] = {"type": "object", "description": "values of a chart above this one; not used"}
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of teleport-event-handler", **root}


def _object() -> Schema:
    return {"type": "object", "additionalProperties": False, "properties": {}}


def _of(value: Value) -> Schema:
    if value.path == "config":
        return config_schema()
    if value.path in SPECIAL:
        return dict(SPECIAL[value.path])
    if value.path.startswith(("annotations.", "extraLabels.")) or value.path.endswith(
        ("Monitor.labels", "Claim.annotations")
    ):
        return dict(TEXTS)
    match value.default:
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": "integer", "minimum": 1}
        case str():
            return {"type": "string"}
        case list():
            return {"type": "array", "items": {"type": "string"}} if value.path.endswith("Args") else dict(OBJECTS)
        case _:
            return {"type": "object"}


def schema_text(file: Path) -> str:
    return json.dumps(schema(file), indent=1, ensure_ascii=False) + "\n"


def table(file: Path) -> str:
    """All values as a Markdown table, with a line end at its end."""
    lines = ["| value | default | what it is for |", "|---|---|---|"]
    for value in values(file):
        default = json.dumps(value.default, ensure_ascii=False)
        lines.append(f"| `{value.path}` | `{default}` | {value.help.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def with_table(page: str, file: Path) -> str:
    """The page with its table made anew. Raises ValueError where it has no place for one."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{table(file)}\n{END}{after}"
