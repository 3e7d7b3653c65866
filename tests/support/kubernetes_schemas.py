"""JSON schemas of Kubernetes objects for kubeconform, made of what Kubernetes says of its API. What is not named in it
is not allowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Schema = dict[str, Any]
# Without what cannot be checked, or only explains.
LEFT_OUT = ("description", "default", "format", "externalDocs")
EITHER: Mapping[str, Schema] = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["integer", "string"]},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["number", "string"]},
}
KINDS = (
    "ConfigMap", "Deployment", "NetworkPolicy", "PersistentVolumeClaim", "Pod", "PodDisruptionBudget", "Secret",
    "Service", "ServiceAccount", "StatefulSet",
    "Role",
    "RoleBinding",
)  # fmt: skip


def of_swagger(swagger: Mapping[str, Any]) -> Iterator[tuple[str, Schema]]:
    """The name of the file, and the schema, of each of our kinds, by api/openapi-spec/swagger.json of Kubernetes."""
    definitions = swagger["definitions"]
    for name, definition in definitions.items():
        for version in definition.get("x-kubernetes-group-version-kind", ()):
            if version["kind"] in KINDS and version["version"] == "v1" and name.startswith("io.k8s.api."):
                needed = {one: EITHER.get(one) or _strict(definitions[one]) for one in _reached(definitions, name)}
                whole = {"$ref": f"#/definitions/{name}", "definitions": needed}
                yield _file(version["kind"], version["group"], version["version"]), whole


def of_custom_resource(definition: Mapping[str, Any]) -> Iterator[tuple[str, Schema]]:
    """The same of a CustomResourceDefinition."""
    spec = definition["spec"]
    for version in spec["versions"]:
        schema = _strict(version["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}
        yield _file(spec["names"]["kind"], spec["group"], version["name"]), schema


def _file(kind: str, group: str, version: str) -> str:
    """As kubeconform asks for it: the kind, the first part of the group, the version."""
    return "-".join(part.lower() for part in (kind, group.partition(".")[0], version) if part) + ".json"


def _reached(definitions: Mapping[str, Any], name: str) -> set[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += _references(definitions[one])
    return found


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"].rpartition("/")[2]
        for inner in part.values():
            yield from _references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _references(inner)


def _strict(schema: Mapping[str, Any]) -> Schema:
    """What it allows and no more. Properties may be called `description`, so only what says something of one goes."""
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    made: Schema = {}
    for key, value in schema.items():
        if key == "properties":
            made[key] = {name: _strict(one) for name, one in value.items()}
        elif key in ("items", "additionalProperties", "not") and isinstance(value, dict):
            made[key] = _strict(value)
        elif key not in LEFT_OUT and not key.startswith("x-kubernetes-"):
            made[key] = value
    if "properties" in made and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made
