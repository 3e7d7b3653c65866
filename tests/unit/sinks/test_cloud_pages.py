"""The settings on the pages of the cloud sinks are ones that the program takes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from event_handler.sinks.registry import sink_type

PAGES = Path(__file__).parents[3] / "docs" / "sinks"
OF_ALL_SINKS = {"type", "over-limit"}


def tables(page: str) -> list[dict[str, Any]]:
    text = (PAGES / f"{page}.md").read_text()
    blocks = [tomllib.loads(block) for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL)]
    return [table for block in blocks for table in block["sinks"].values()]


@pytest.mark.parametrize(
    "page",
    [
        "sentinel",
        "google-secops",
        "gcp-pubsub",
        *(f"aws-{name}" for name in ("kinesis", "firehose", "sqs", "cloudwatch")),
    ],
)
def test_every_table_on_the_page_is_taken(page: str) -> None:
    found = tables(page)
    assert found
    for table in found:
        assert table["type"] == page
        given = {key.replace("-", "_"): value for key, value in table.items() if key not in OF_ALL_SINKS}
        sink_type(page).options.model_validate(given)
