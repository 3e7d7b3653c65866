"""No two constants have one name and different values: who reads a name knows what it means."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "src" / "event_handler"
ONE_A_MODULE = {"SINK", "TRANSFORM", "FILE"}  # what a registry looks for in each; a name that is passed on


def constants(module: Path) -> dict[str, str]:
    found = {}
    for node in ast.parse(module.read_text()).body:
        target = (
            node.targets[0] if isinstance(node, ast.Assign) else node.target if isinstance(node, ast.AnnAssign) else 0
        )
        if isinstance(target, ast.Name) and target.id.isupper() and getattr(node, "value", None) is not None:
            found[target.id] = ast.unparse(node.value)  # type: ignore[attr-defined]
    return found


def test_a_name_stands_for_one_value() -> None:
    values: dict[str, set[str]] = defaultdict(set)
    for module in PACKAGE.rglob("*.py"):
        if "simulator" not in module.parts:
            for name, value in constants(module).items():
                values[name].add(value)
    assert {name: texts for name, texts in values.items() if len(texts) > 1 and name not in ONE_A_MODULE} == {}
