"""What editors, shells and Docker leave around a value is taken away, or named."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from event_handler.config.load import load
from event_handler.config.model import options
from event_handler.errors import ConfigurationError
from event_handler.redact import without_secrets

REQUIRED = {"fluentd_url": "https://c/a", "fluentd_session_url": "https://c/s", "storage": "st"}
VALUES = {
    "url": "https://c/x",
    "text": "plain",
    "number": "5",
    "duration": "90s",
    "flag": "true",
    "list": "scp,exec",
    "time": "2026-01-02T03:04:05Z",
    "file": "-",
}


def text_for(name: str) -> str:
    option = options()[name]
    if name == "max_in_flight_bytes":
        return "1048576"
    return option.choices[0] if option.choices else VALUES[option.kind]


# A transform must have a table of its own (test_components).
OPEN = [name for name, option in options().items() if not option.secret and not name.endswith("_transforms")]


@pytest.mark.parametrize("left", ["\r", " ", "\r\n", "\t"])
@pytest.mark.parametrize("name", OPEN)
def test_a_carriage_return_or_blanks_around_a_value_are_taken_away(name: str, left: str, tmp_path: Path) -> None:
    text = text_for(name)
    others = {key: value for key, value in REQUIRED.items() if key != name}
    expected = getattr(load({**others, name: text}, {}).settings, name)
    assert getattr(load(others, {options()[name].variables[0]: f"{text}{left}"}).settings, name) == expected
    flag: Any = [f"{text}{left}"] if options()[name].kind == "list" else f"{text}{left}"
    assert getattr(load({**others, name: flag}, {}).settings, name) == expected
    config = tmp_path / "c.toml"
    escaped = left.replace("\r", "\\r").replace("\n", "\\n").replace("\t", "\\t")
    config.write_text(f'{options()[name].key} = "{text}{escaped}"')
    assert getattr(load(others, {}, str(config)).settings, name) == expected


def test_a_carriage_return_in_an_entry_of_a_list_is_taken_away(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_bytes(b'types = ["scp\\r", "exec"]\r\n')
    assert load(REQUIRED, {"FDFWD_CONFIG": f"{config}\r"}).settings.types == ("scp", "exec")


@pytest.mark.parametrize("name", [name for name in options() if options()[name].secret])
def test_a_password_keeps_its_blanks_and_loses_the_line_end(name: str) -> None:
    assert getattr(load(REQUIRED, {options()[name].variables[0]: " a b \r\n"}).settings, name) == " a b "


@pytest.mark.parametrize("quote", ["'", '"'])
@pytest.mark.parametrize("name", OPEN)
def test_quotes_around_a_value_are_named(name: str, quote: str) -> None:
    variable = options()[name].variables[0]
    others = {key: value for key, value in REQUIRED.items() if key != name}
    with pytest.raises(ConfigurationError, match=f"{variable}: the quotes are part of the value"):
        load(others, {variable: f"{quote}{text_for(name)}{quote}"})


def test_quotes_of_a_password_may_belong_to_it_and_are_told() -> None:
    loaded = load(REQUIRED | {"elasticsearch_url": "https://e"}, {"FDFWD_ELASTICSEARCH_PASSWORD": '"hunter2"'})
    assert loaded.settings.sinks[1].options.model_dump()["password"] == '"hunter2"'
    assert "the quotes are part of the value" in loaded.warnings[0]
    assert "hunter2" not in loaded.warnings[0]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_the_text_of_powershell_is_named(tmp_path: Path, encoding: str) -> None:
    config = tmp_path / "c.toml"
    config.write_bytes("batch = 7".encode(encoding))
    with pytest.raises(ConfigurationError, match=r"its text is UTF-16.*Save it as UTF-8"):
        load(REQUIRED, {}, str(config))


@pytest.mark.parametrize("text", [f"batch = {'9' * 5000}", f"types = {'[' * 5000}"], ids=["digits", "brackets"])
def test_a_file_that_is_too_much_for_the_parser_is_named(tmp_path: Path, text: str) -> None:
    config = tmp_path / "c.toml"
    config.write_text(text)
    with pytest.raises(ConfigurationError, match=r"c\.toml is not TOML"):
        load(REQUIRED, {}, str(config))


SECRET = "hunter2-of-the-settings"
BAD_LINES = [
    f"password = {SECRET}",
    f"[forward.elasticsearch]\npassword = '{SECRET}",
    f"[forward.elasticsearch]\npassword = '{SECRET}' x",
    f'[forward.elasticsearch]\npassword = "{SECRET}\\q"',
    f"[forward.elasticsearch]\npassword {SECRET}",
    f"[forward.elasticsearch]\npassword = ['{SECRET}']",
    f"[forward.elasticsearch]\napi-key = {{x = '{SECRET}'}}",
    f"[forward.fluentd]\nurl = ['https://u:{SECRET}@c/']",
    f"batch = 'https://u:{SECRET}@c/'",
    f"timeout = 'https://c/?token={SECRET}'",
    f"[teleport]\nkey = '''-----BEGIN PRIVATE KEY-----\n{SECRET}\n'''",
]


@pytest.mark.parametrize("text", BAD_LINES)
def test_no_error_shows_the_line_that_it_is_about(tmp_path: Path, text: str) -> None:
    config = tmp_path / "c.toml"
    config.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load({"storage": "st"}, {}, str(config))
    assert SECRET not in without_secrets("\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])]))


@pytest.mark.parametrize("content", [f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n", f"{SECRET}/{'QUJD/' * 300}"])
def test_the_content_of_a_key_in_the_place_of_its_file_is_not_shown(content: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"FDFWD_TELEPORT_KEY: expected the name of a file, got [0-9]+ characters"
    ) as caught:
        load(REQUIRED, {"FDFWD_TELEPORT_KEY": content})
    assert SECRET not in str(caught.value)


def test_a_start_time_in_the_future_is_told() -> None:
    soon = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    (warning,) = load({**REQUIRED, "start_time": soon.isoformat()}, {}).warnings
    assert (
        warning
        == f"--start-time: {soon.isoformat().replace('+00:00', 'Z')} is in the future; nothing is read until then"
    )
