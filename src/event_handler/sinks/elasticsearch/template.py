"""The index template for audit events: a type for each known field, and nothing that an unknown one could be refused
for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from event_handler.sinks.elasticsearch.documents import OTHER
from event_handler.sinks.elasticsearch.fields import FIELDS, Kind
from event_handler.sinks.fields import SESSION_FIELD

TEMPLATE_VERSION = 1  # of the template; more with each change, so that an older one is replaced
OWNER = "teleport-event-handler"  # in `_meta.managed_by`; without it a template is the user's own and is left alone
# Above Elastic's built-in template for `logs-*-*`, which has 100, and below those of its integrations and most users,
# from 200 on.
PRIORITY = 150
FIELD_LIMIT = 2000  # the known fields are some 900 with their sub-fields; the default is 1,000
IGNORE_ABOVE = 1024  # characters; a longer value is found by its words, and a term has 32,766 bytes at most
DATA_STREAM = re.compile(r"logs-[^-]+-.+")  # the naming scheme of data streams; any other name is an index


@dataclass(frozen=True, slots=True)
class Product:
    """What the server is; `version` as (major, minor)."""

    opensearch: bool
    version: tuple[int, int]


def template_name(target: str) -> str:
    """One template for a target, so that two event handlers with targets of their own do not replace each other's."""
    return f"{OWNER}-{target}".lower()


def index_template(target: str, product: Product, *, data_stream: bool) -> dict[str, Any]:
    """The body of `PUT /_index_template/<name>`."""
    settings: dict[str, Any] = {"index.mapping.total_fields.limit": FIELD_LIMIT}
    template: dict[str, Any] = {"settings": settings, "mappings": _mappings(product)}
    if data_stream and not product.opensearch:
        # Our template replaces the built-in one, and with it the rules by which a data stream goes on to its next
        # index.
        if product.version >= (8, 14):
            template["lifecycle"] = {"enabled": True}
        else:
            settings["index.lifecycle.name"] = "logs"
        if product.version >= (8, 17):
            settings["index.mode"] = "standard"  # logsdb would rebuild the document from its fields, not as it was sent
    body: dict[str, Any] = {
        "index_patterns": [target] if data_stream else [target, f"{target}-0*"],  # an alias goes on to `<name>-000001`
        "priority": PRIORITY,
        "version": TEMPLATE_VERSION,
        "_meta": {"managed_by": OWNER, "description": "audit events and session recordings of Teleport"},
        "template": template,
    }
    return body | {"data_stream": {}} if data_stream else body


def _mappings(product: Product) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "@timestamp": {"type": "date"},
        OTHER: {"type": "text"},
        SESSION_FIELD: _field(Kind.TEXT, product),
    }
    for name, kind in FIELDS.items():
        within = properties
        *parents, last = name.split(".")
        for parent in parents:
            within = within.setdefault(parent, {"properties": {}})["properties"]
        within[last] = _field(kind, product)
    return {
        "_meta": {"managed_by": OWNER, "version": TEMPLATE_VERSION},
        "dynamic": False,  # an unknown field is kept, and neither found by searches nor a reason to refuse its event
        "date_detection": False,
        "properties": properties,
    }


def _field(kind: Kind, product: Product) -> dict[str, Any]:
    match kind:
        case Kind.TEXT:  # as dynamic mapping makes it, so that searches for `user` and `user.keyword` stay as they were
            return {"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": IGNORE_ABOVE}}}
        case Kind.NUMBER:
            return {"type": "long", "ignore_malformed": True}
        case Kind.DATE:
            return {"type": "date", "ignore_malformed": True}
        case Kind.BOOLEAN:
            return {"type": "boolean"}
        case Kind.OBJECT:
            return {"type": "flat_object"} if product.opensearch else {"type": "flattened", "ignore_above": 8191}
