"""The schema of the configuration file has every option, and no place for a secret."""

from __future__ import annotations

import re
from typing import Any

from event_handler.config.durations import parse
from event_handler.config.json_schema import DURATION_PATTERN, config_schema
from event_handler.config.model import options
from event_handler.sinks.registry import OWN

SCHEMA = config_schema()


def at(key: str) -> dict[str, Any] | None:
    found: Any = SCHEMA
    for part in key.split("."):
        found = found["properties"].get(part) if found else None
    return found if found is None else dict(found)


def test_every_option_has_its_place_and_every_secret_has_none() -> None:
    for option in options().values():
        assert (at(option.key) is None) is option.secret, option.flag


def test_the_spelling_of_the_plugins_files_is_known() -> None:
    for key in (
        "lock-enabled",
        "lock-failed-attempts-count",
        "teleport.refresh.enabled",
        "forward.fluentd.session-url",
    ):
        assert at(key), key


def test_every_type_of_sink_says_what_may_stand_beside_it() -> None:
    table = SCHEMA["properties"]["sinks"]["additionalProperties"]
    of_type = {case["if"]["properties"]["type"]["const"]: case["then"] for case in table["allOf"]}
    assert sorted(of_type) == sorted(OWN) == table["properties"]["type"]["enum"]
    for name, allowed in of_type.items():
        assert not allowed["additionalProperties"]
        assert {"type", "types", "over-limit"} <= allowed["properties"].keys(), name
        assert not {"token", "password", "api-key", "bearer"} & allowed["properties"].keys(), name
    assert "token-file" in of_type["splunk-hec"]["properties"]


def test_the_pattern_of_durations_is_what_is_read() -> None:
    for text in ("10s", "1m30s", "0", "1.5h", ".5s", "2µs", "500ms", "+5m", "24h", "10", "1d", "5 s", "s", "", "1m30"):
        try:
            parse(text)
        except ValueError:
            assert not re.search(DURATION_PATTERN, text), text
        else:
            assert re.search(DURATION_PATTERN, text), text
