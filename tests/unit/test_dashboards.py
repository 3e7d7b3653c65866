"""The dashboards in deploy/ ask for fields that events have, and their parts name one another rightly."""

from __future__ import annotations

import configparser
import json
import re
from xml.etree import ElementTree

from tests.event_samples import shapes
from tests.support.dashboards import DEPLOY, saved_objects

SPLUNK = DEPLOY / "splunk" / "teleport" / "default"
MADE_IN_SPLUNK = {"src", "_time", "count", "last", "users", "logins", "uid", "outcome"}


def fields_of(pattern: str) -> set[str]:
    """The fields of all events whose type fits a pattern such as `access_request.*`."""
    fits = re.compile(pattern.replace(".", r"\.").replace("*", ".*"))
    return {field for kind, fields in shapes().items() if fits.fullmatch(kind) for field in fields}


def searches() -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(SPLUNK / "savedsearches.conf")
    return {name: parser[name]["search"] for name in parser.sections()}


def test_a_search_of_splunk_names_fields_of_its_events() -> None:
    assert len(searches()) == 5
    for name, search in searches().items():
        kind = re.findall(r'event="([^"]+)"', search)[0]
        listed = re.findall(r"(?:table|by) ([\w.{}, ]+)", search)[0]
        named = {field.strip().removesuffix("{}") for field in listed.split(",")}
        assert named - MADE_IN_SPLUNK <= fields_of(kind), name


def test_the_view_of_splunk_shows_every_saved_search() -> None:
    view = ElementTree.parse(SPLUNK / "data" / "ui" / "views" / "teleport.xml")  # noqa: S314 - our own
    assert {one.attrib["ref"] for one in view.iter("search") if "ref" in one.attrib} == set(searches())


def test_the_settings_of_splunk_are_of_the_sinks_source_types() -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(SPLUNK / "props.conf")
    assert parser.sections() == ["teleport:audit", "teleport:session"]


def test_what_kibana_imports_refers_to_what_is_there() -> None:
    objects = saved_objects()
    there = {(one["type"], one["id"]) for one in objects}
    assert len(there) == len(objects) == 7
    for one in objects:
        assert {(reference["type"], reference["id"]) for reference in one["references"]} <= there


def test_a_search_of_kibana_shows_fields_of_its_events() -> None:
    for one in saved_objects():
        if one["type"] == "search":
            source = json.loads(one["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])
            kind = re.findall(r"event:(\S+)", source["query"]["query"])[0]
            assert set(one["attributes"]["columns"]) <= fields_of(kind)


def test_a_panel_of_grafana_asks_for_fields_of_its_events() -> None:
    panels = json.loads((DEPLOY / "grafana" / "teleport-events.json").read_text())["panels"]
    for panel in panels:
        (target,) = panel["targets"]
        kind = re.findall(r'event=~?"([^"]+)"', target["expr"])[0].replace("[.].+", ".*")
        named = {field.strip('["]\\') for field in re.findall(r'\w+="((?:\[\\"[\w.]+\\"\])|[a-z_]+)"', target["expr"])}
        assert named - {"teleport", "true", "false"} <= fields_of(kind), panel["title"]
