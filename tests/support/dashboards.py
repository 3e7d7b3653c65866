"""The dashboards and saved searches in deploy/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DEPLOY = Path(__file__).parents[2] / "deploy"


def saved_objects() -> list[dict[str, Any]]:
    """What Kibana and OpenSearch Dashboards import."""
    return [json.loads(line) for line in (DEPLOY / "elastic" / "teleport.ndjson").read_text().splitlines()]
