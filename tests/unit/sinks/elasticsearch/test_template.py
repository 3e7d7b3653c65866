"""The index template of each product and version."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from event_handler.cli import cli
from event_handler.sinks.elasticsearch.fields import FIELDS
from event_handler.sinks.elasticsearch.template import DATA_STREAM, FIELD_LIMIT, Product, index_template, template_name

ELASTIC = Product(False, (9, 1))
OPEN = Product(True, (2, 19))


def types(node: Any) -> set[str]:
    """Every type below a mapping."""
    found = {node["type"]} if isinstance(node.get("type"), str) else set()
    for child in [*node.get("properties", {}).values(), *node.get("fields", {}).values()]:
        found |= types(child)
    return found


def count(properties: dict[str, Any]) -> int:
    """Fields as `index.mapping.total_fields.limit` counts them: objects and sub-fields too."""
    return sum(1 + count(field.get("properties", {})) + len(field.get("fields", {})) for field in properties.values())


@pytest.mark.parametrize(
    ("product", "flat", "not_there"), [(ELASTIC, "flattened", "flat_object"), (OPEN, "flat_object", "flattened")]
)
def test_objects_are_of_the_products_flat_type(product: Product, flat: str, not_there: str) -> None:
    mappings = index_template("t", product, data_stream=False)["template"]["mappings"]
    assert types(mappings) == {"text", "keyword", "date", "long", "boolean", flat}
    assert not_there not in str(mappings)
    assert mappings["dynamic"] is False
    assert len(FIELDS) < count(mappings["properties"]) < FIELD_LIMIT
    assert mappings["properties"]["addr"]["properties"]["remote"]["fields"]["keyword"]["type"] == "keyword"


@pytest.mark.parametrize(
    ("version", "lifecycle", "settings"),
    [
        ((8, 0), None, {"index.lifecycle.name": "logs"}),
        ((8, 14), {"enabled": True}, {}),
        ((8, 17), {"enabled": True}, {"index.mode": "standard"}),
        ((9, 1), {"enabled": True}, {"index.mode": "standard"}),
    ],
)
def test_a_data_stream_of_elasticsearch_still_goes_on_to_its_next_index(
    version: tuple[int, int], lifecycle: object, settings: dict[str, str]
) -> None:
    made = index_template("logs-a-b", Product(False, version), data_stream=True)
    assert made["data_stream"] == {}
    assert made["index_patterns"] == ["logs-a-b"]
    assert made["template"].get("lifecycle") == lifecycle
    assert made["template"]["settings"] == {"index.mapping.total_fields.limit": FIELD_LIMIT} | settings
    assert made["priority"] > 100, "the built-in template for logs-*-*"


def test_an_index_and_a_data_stream_of_opensearch_have_no_settings_of_elasticsearch() -> None:
    for made in (index_template("t", ELASTIC, data_stream=False), index_template("logs-a-b", OPEN, data_stream=True)):
        assert "lifecycle" not in str(made)
        assert "index.mode" not in str(made)
    assert "data_stream" not in index_template("t", ELASTIC, data_stream=False)


@pytest.mark.parametrize(
    ("target", "expected"),
    [("logs-teleport.audit-default", True), ("logs-a-b-c", True), ("logs-a", False), ("x-a-b", False)],
)
def test_the_naming_scheme_of_data_streams(target: str, expected: bool) -> None:
    assert bool(DATA_STREAM.fullmatch(target)) is expected


def printed(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["elasticsearch-template", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_prints_what_would_be_installed() -> None:
    assert orjson.loads(printed()) == index_template(
        "logs-teleport.audit-default", Product(False, (9, 0)), data_stream=True
    )
    made = orjson.loads(printed("--product=opensearch", "--target=teleport"))
    assert made == index_template("teleport", Product(True, (3, 0)), data_stream=False)
    assert "index.lifecycle.name" in printed("--product-version=8.10")
    assert printed("--name").strip() == template_name("logs-teleport.audit-default")


def test_an_odd_version_is_named() -> None:
    done = CliRunner().invoke(cli, ["elasticsearch-template", "--product-version=new"])
    assert done.exit_code != 0
    assert "expected a version such as 9.0, got 'new'" in str(done.exception)
