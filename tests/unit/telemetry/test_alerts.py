"""The alert rules and the dashboard in deploy/ use metrics that there are; promtool runs the rules, if it is there."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from event_handler.telemetry.metrics import table
from tests.support.dashboards import DEPLOY
from tests.support.receiver_cache import absent, place

RULES = DEPLOY / "prometheus" / "teleport-event-handler.rules.yml"
RUNBOOKS = Path(__file__).parents[3] / "docs" / "runbooks.md"
PROMTOOL = "bin/promtool"


def metrics(text: str) -> set[str]:
    return set(re.findall(r"\bteleport_event_handler_\w+", text))


def known() -> set[str]:
    """Every name that a metric of the table can have in a query."""
    names = metrics(table())
    return {*names, *(f"{name}{suffix}" for name in names for suffix in ("_bucket", "_sum", "_count"))}


def anchors(headings: Iterable[str]) -> set[str]:
    return {heading.lower().replace(" ", "-") for heading in headings}


def test_every_alert_asks_for_metrics_that_there_are() -> None:
    expressions = re.sub(r"#.*", "", RULES.read_text())
    assert metrics(expressions) <= known()


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    linked = set(re.findall(r'runbook: "docs/runbooks.md#([\w-]+)"', RULES.read_text()))
    assert len(linked) == RULES.read_text().count("- alert:")
    assert linked == anchors(re.findall(r"^## (.+)$", RUNBOOKS.read_text(), re.MULTILINE))


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "teleport-event-handler.json").read_text())
    asked = [metrics(target["expr"]) for panel in dashboard["panels"] for target in panel["targets"]]
    assert all(asked)
    assert set.union(*asked) <= known()
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@pytest.mark.skipif(bool(absent(PROMTOOL)), reason=absent(PROMTOOL))
@pytest.mark.parametrize(
    "command",
    [
        ("check", "rules", "--lint=all", "teleport-event-handler.rules.yml"),
        ("test", "rules", "teleport-event-handler.test.yml"),
    ],
    ids=["check", "test"],
)
def test_promtool_takes_the_rules_and_their_tests_pass(command: tuple[str, ...]) -> None:
    done = subprocess.run([place(PROMTOOL), *command], cwd=RULES.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
