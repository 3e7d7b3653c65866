"""Sinks and transforms that have a name of the user's, in tables and in variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from event_handler.config.components import ConfiguredSink
from event_handler.config.load import Loaded, load
from event_handler.config.model import secrets, settings_shown
from event_handler.errors import ConfigurationError, EventHandlerError, SinkError
from event_handler.event import Event
from event_handler.pipeline.transforms.add_fields import AddFields

STORAGE = {"storage": "s"}
LOGIN = Event("user.login", "e1", 0.0, 0, b'{"event":"user.login","uid":"e1"}')


def loaded(directory: Path, text: str, environment: dict[str, str] | None = None, **flags: str) -> Loaded:
    config = directory / "some.toml"
    config.write_text(text)
    return load(STORAGE | flags, environment or {}, str(config))


def sinks(directory: Path, text: str, environment: dict[str, str] | None = None) -> dict[str, ConfiguredSink]:
    found = loaded(directory, text, environment)
    assert not found.warnings
    return {sink.name: sink for sink in found.settings.sinks}


def refused(directory: Path, text: str, environment: dict[str, str] | None = None) -> str:
    with pytest.raises((ConfigurationError, SinkError)) as caught:
        loaded(directory, text, environment)
    assert caught.value.exit_code == 80
    return str(caught.value)


def test_two_sinks_of_one_type_beside_the_plugins_own(tmp_path: Path) -> None:
    text = """
[forward.fluentd]
url = "https://c/a"
session-url = "https://c/s"
[sinks.near]
type = "file"
path = "/var/log/near"
types = ["user.login"]
[sinks.far]
type = "file"
path = "/var/log/far"
max-age = "1h"
"""
    found = sinks(tmp_path, text)
    assert list(found) == ["fluentd", "near", "far"]
    assert found["near"].shown() == {"type": "file", "path": "/var/log/near", "types": "user.login"}
    assert found["far"].options.model_dump()["max_age"] == 3600.0
    assert found["far"].section == "sinks.far"


def test_named_sinks_alone_are_enough(tmp_path: Path) -> None:
    assert list(sinks(tmp_path, '[sinks.a]\ntype = "file"\npath = "-"')) == ["a"]


def test_a_sink_out_of_variables_alone(tmp_path: Path) -> None:
    variables = {
        "FDFWD_SINKS_MY_SIEM_TYPE": "elasticsearch",
        "FDFWD_SINKS_MY_SIEM_URL": "https://e:9200",
        "FDFWD_SINKS_MY_SIEM_API_KEY": "hunter2",
        "FDFWD_SINKS_MY_SIEM_SKIP_EVENT_TYPES": "exec,scp",
    }
    found = loaded(tmp_path, "", variables)
    (sink,) = found.settings.sinks
    assert (sink.name, sink.chosen.skip_event_types) == ("my-siem", ("exec", "scp"))
    assert "hunter2" in secrets(found.settings)
    shown = settings_shown(found.settings)
    assert (shown["sinks.my-siem.api_key"], shown["sinks.my-siem.type"]) == ("***", "elasticsearch")


def test_a_variable_fills_in_what_the_file_leaves_out(tmp_path: Path) -> None:
    text = '[sinks.a-b]\ntype = "elasticsearch"\nurl = "https://file"'
    variables = {
        "FDFWD_SINKS_A_B_URL": "https://variable",
        "FDFWD_SINKS_A_B_PASSWORD": "p",
        "FDFWD_SINKS_A_TYPE": "file",
    }
    variables["FDFWD_SINKS_A_PATH"] = "-"
    found = sinks(tmp_path, text, variables)
    options = found["a-b"].options.model_dump()
    assert (options["url"], options["password"]) == ("https://file", "p")  # the file wins, as everywhere
    assert found["a"].options.model_dump()["path"] == "-"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[sinks.a]\npath = "-"', "[sinks.a] has no type"),
        ('[sinks.a]\ntype = "fiel"', "there is no sink type 'fiel'. Did you mean file?"),
        ('[sinks.a]\ntype = "file"\npaht = "-"', "paht in FILE: there is no such option. Did you mean path?"),
        ('[sinks.a]\ntype = "file"\nzzz = "-"', "[sinks.a] takes type, path, session-path"),
        ('[sinks.a]\ntype = "file"', "the option path is missing"),
        ('[sinks.a]\ntype = "file"\npath = 7', "sinks.a.path in FILE: expected text in quotes, got a number"),
        ('[sinks.a]\ntype = "file"\npath = "-"\nkeep = 0', "0 is not allowed; allowed is 1 to 10000"),
        ('[sinks.a]\ntype = "file"\npath = "-"\nmode = "0777"', "allowed is 0600 or 0640"),
        ('[sinks.a]\ntype = "file"\npath = "-"\ntypes = ["user.lgin"]', "user.login"),
        ('[sinks.a]\ntype = "elasticsearch"\nurl = "https://e"\nca = "/nowhere/ca"', "sinks.a.ca in FILE: /nowhere/ca"),
        ("[sinks.A]\ntype = 'file'", "the name cannot be used"),
        ("[sinks.'a/b']\ntype = 'file'", "the name cannot be used"),
        ("[sinks.recordings]\ntype = 'file'", "cannot have the name recordings"),
        ("sinks = 'file'", "expected tables [sinks.NAME]"),
        ("[sinks]\na = 'file'", "sinks.a in FILE: expected a table"),
        ("[[sinks.a]]\ntype = 'file'", "sinks.a in FILE: expected a table"),
        ("[sinks.a-b]\ntype = 'file'\n[sinks.a_b]\ntype = 'file'", "differ in - and _ only"),
        ("[sinks.a]\ntype = 7", "expected the name of a type"),
        ('[sinks.a]\ntype = "file"\npath = "-"\ntransforms = ["x"]', "[sinks.a]: there is no transform x"),
        ('[transforms.x]\nfields = ["a"]', "[transforms.x] has no type"),
        ('[transforms.x]\ntype = "drop-field"', "there is no transform type 'drop-field'. Did you mean drop-fields?"),
        ('[transforms.x]\ntype = "drop-fields"', "the option fields is missing"),
        ('[transforms.x]\ntype = "add-fields"\nfields = "a"', "expected name=value, got 'a'"),
        ('[transforms.x]\ntype = "add-fields"\nfields.a = 2026-01-01', "got a date"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    good = '\n[sinks.other]\ntype = "file"\npath = "-"\n' if text.startswith("[") else ""
    assert said.replace("FILE", str(tmp_path / "some.toml")) in refused(tmp_path, text + good)


def test_two_sinks_of_one_name_are_refused(tmp_path: Path) -> None:
    said = refused(tmp_path, '[forward.file]\npath = "-"\n[sinks.file]\ntype = "file"\npath = "-"')
    assert "there are two sinks of the name file" in said
    assert "[sinks.file]" in said


def test_a_variable_of_no_table_is_named(tmp_path: Path) -> None:
    said = refused(tmp_path, "", {"FDFWD_SINKS_SIEM_URL": "https://e"})
    assert "FDFWD_SINKS_SIEM_URL" in said
    assert "FDFWD_SINKS_NAME_TYPE" in said


def test_transforms_are_chosen_by_name_and_in_that_order(tmp_path: Path) -> None:
    text = """
[transforms.label]
type = "add-fields"
fields = { environment = "production", tags = ["a", 1, true] }
[transforms.less]
type = "drop-fields"
fields = ["environment"]
[sinks.a]
type = "file"
path = "-"
transforms = ["label", "less"]
[sinks.b]
type = "file"
path = "-"
transforms = ["less", "label"]
[forward.elasticsearch]
url = "https://e"
transforms = "label"
"""
    found = sinks(tmp_path, text)
    assert [type(one).__name__ for one in found["a"].transforms] == ["AddFields", "DropFields"]
    assert [one.name for one in found["b"].transforms] == ["less", "label"]
    (label,) = found["elasticsearch"].transforms
    assert isinstance(label, AddFields)
    changed = label.apply(LOGIN)
    assert changed is not None
    assert changed.body == (b'{"environment":"production","event":"user.login","tags":["a",1,true],"uid":"e1"}')


def test_a_transform_out_of_variables(tmp_path: Path) -> None:
    variables = {
        "FDFWD_TRANSFORMS_LABEL_TYPE": "add-fields",
        "FDFWD_TRANSFORMS_LABEL_FIELDS": "environment=production,site=a=b",
        "FDFWD_FLUENTD_TRANSFORMS": "label",
    }
    text = '[forward.fluentd]\nurl = "https://c/a"\nsession-url = "https://c/s"'
    (label,) = sinks(tmp_path, text, variables)["fluentd"].transforms
    changed = label.apply(LOGIN)
    assert changed is not None
    assert b'"environment":"production"' in changed.body
    assert b'"site":"a=b"' in changed.body


def test_the_table_of_sinks_is_nothing_to_a_command_that_needs_the_storage_only(tmp_path: Path) -> None:
    config = tmp_path / "some.toml"
    config.write_text('storage = "s"\n[sinks.a]\ntype = "of another version"')
    settings = load({}, {}, str(config), only=frozenset({"storage"})).settings
    assert settings.storage.endswith("s")
    with pytest.raises(EventHandlerError):
        load({}, {}, str(config))
