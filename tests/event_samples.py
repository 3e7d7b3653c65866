"""An event of each type of Teleport, made of the fields that its message has (tests/data/event_fields.tsv)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "data" / "event_fields.tsv"
VALUES: Mapping[str, Any] = {
    "": "a word",
    "?": True,
    "#": 42,
    "@": "2026-11-24T10:45:14.123456789Z",
    "[]": ["one", "two"],
    "{}": {"name": "x", "deep": {"er": [1, "a", None]}, "example.test/label": "1.2.3.4:3022"},
    "~": "aGVsbG8=",
    "*": {"key": ["value"], "other": 1},
}
# What an event is seen to hold where its message tells nothing of the form: of types of its own, and of lists of
# objects.
SEEN: Mapping[str, Any] = {
    "action": 1,
    "addr.remote": "10.0.0.1:33212",
    "addr.local": "10.0.0.2:3022",
    "addr": "127.0.0.1:8080",
    "actions": [{"type": "push", "reference": "refs/heads/main"}],
    "added_resources": [{"id": "1", "description": "x"}],
    "admin_actions_mfa_changed": 2,
    "audit_queries": [{"name": "x", "query": "SELECT 1", "days": 7}],
    "category": 3,
    "connector": {"kind": "saml", "metadata": {"name": "okta"}},
    "contact_type": 1,
    "deleted_resources": [{"id": "1"}],
    "expires": "0001-01-01T00:00:00Z",
    "flow_type": 2,
    "operation": 1,
    "user_kind": 1,
    "user_origin": 2,
    "resource_ids": [{"cluster": "example.test", "kind": "node", "name": "a"}],
    "RequestedResourceAccessIDs": [{"id": {"kind": "node"}}],
    "file_transfer_stats": [{"path": "/a", "read": 1, "written": 0}],
    "children": [{"query": "SELECT 1", "values": ["MQ=="]}],
    "permission_summary": [{"permission": "SELECT", "counts": {"table": 1}}],
    "updated_resources": [{"id": "1"}],
    "members": [{"member_name": "alice", "joined_on": "2026-11-24T10:45:14Z"}],
}


@cache
def shapes() -> dict[str, dict[str, str]]:
    """The fields of each event type, each with its suffix."""
    groups: dict[str, list[str]] = {}
    found = {}
    for line in FILE.read_text().splitlines():
        if line.startswith("#"):
            continue
        what, name, within, own = line.split("\t")
        fields = own.split()
        if what == "group":
            groups[name] = fields
        else:
            joined = groups["Metadata"] + [field for group in within.split() for field in groups[group]] + fields
            found[name] = dict(_split(field) for field in joined)
    return found


def samples() -> list[dict[str, Any]]:
    """One event of each type, with all of its fields, and those of older servers that no message describes any more."""
    made = [sample(type_) for type_ in shapes()]
    made += [
        {**sample("device.authenticate"), "event": "device", "status": {"success": False, "error": "no"}},
        {**sample("scp"), "action": "download"},
        {**sample("session.network"), "action": "ALLOW"},
    ]
    return [{**event, "uid": f"s-{place}"} for place, event in enumerate(made)]


def sample(type_: str) -> dict[str, Any]:
    fields = shapes()[type_]
    event = {name: SEEN.get(name, VALUES[suffix]) for name, suffix in fields.items()}
    if fields.get("action") == "":
        event["action"] = "download"
    return {**event, "event": type_, "code": "T0000I"}


def _split(field: str) -> tuple[str, str]:
    suffix = next((suffix for suffix in ("?", "#", "@", "[]", "{}", "~", "*") if field.endswith(suffix)), "")
    return field.removesuffix(suffix), suffix
