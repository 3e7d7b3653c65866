"""Every mistake in the names of a configuration file is told with what was meant, also before an error that it led
to.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from event_handler.config.load import load
from event_handler.errors import ConfigurationError

REQUIRED = {"fluentd_url": "https://c/a", "fluentd_session_url": "https://c/s", "storage": "st"}
TOP = " (above the first table)"
# file, and for each key that is not known: its name and the advice
MISTAKES: list[tuple[str, dict[str, str]]] = [
    ("stroage = 'x'", {"stroage": "did you mean storage?"}),
    ("Storage = 'x'", {"Storage": "did you mean storage?"}),
    ("type = 'x'", {"type": "did you mean types?"}),
    ("skip_event_types = ['scp']", {"skip_event_types": "did you mean skip-event-types?"}),
    ("skip-event-type = ['scp']", {"skip-event-type": "did you mean skip-event-types?"}),
    ("'window-size ' = '1h'", {"window-size ": "did you mean window-size?"}),
    (
        "[fluentd]\nurl = 'x'\nsession_url = 'x'\nca = 'x'",
        {
            "fluentd.url": "did you mean forward.fluentd.url?",
            "fluentd.session_url": "did you mean forward.fluentd.session-url?",
            "fluentd.ca": "did you mean forward.fluentd.ca?",
        },
    ),
    (
        "[forward.fluentd]\nsession_url = 'x'",
        {"forward.fluentd.session_url": "did you mean forward.fluentd.session-url?"},
    ),
    ("[forward.Fluentd]\nURL = 'x'", {"forward.Fluentd.URL": "did you mean forward.fluentd.url?"}),
    (
        "[forward]\nfluentd = {sesion-url = 'x'}",
        {"forward.fluentd.sesion-url": "did you mean forward.fluentd.session-url?"},
    ),
    ("[[forward.fluentd]]\nurl = 'x'", {"forward.fluentd": "write [forward.fluentd], with one bracket"}),
    ("'forward.fluentd.url' = 'x'", {'"forward.fluentd.url"': "did you mean forward.fluentd.url?"}),
    ("['teleport.adr']\nx = 1", {'"teleport.adr".x': ""}),
    ("fluentd-url = 'x'", {"fluentd-url": "did you mean forward.fluentd.url?"}),
    ("[teleport]\ntypes = 'scp'", {"teleport.types": f"did you mean types{TOP}?"}),
    (
        "[teleport]\nskip_event_types = []\nstart_time = 'x'\ntimeout = '5s'\nlock-enabled = true\nstroage = 'x'",
        {
            "teleport.skip_event_types": f"did you mean skip-event-types{TOP}?",
            "teleport.start_time": f"did you mean start-time{TOP}?",
            "teleport.timeout": f"did you mean timeout{TOP}?",
            "teleport.lock-enabled": "did you mean lock.enabled?",
            "teleport.stroage": f"did you mean storage{TOP}?",
        },
    ),
    ("[forward.fluentd]\nbatch = 1", {"forward.fluentd.batch": f"did you mean batch{TOP}?"}),
    ("[Teleport]\nAddr = 'x'", {"Teleport.Addr": "did you mean teleport.addr?"}),
    ("[teleport]\nrefresh_enabled = true", {"teleport.refresh_enabled": "did you mean teleport.refresh-enabled?"}),
    ("teleport = 'host:3025'", {"teleport": "it is a table: write [teleport], and its keys below"}),
    ("[storage]\npath = 'x'", {"storage.path": "storage is a value, not a table"}),
    (
        "[forward.splunk]\nurl = 'x'",
        {"forward.splunk.url": "there is no sink splunk, the sinks are fluentd, file, elasticsearch"},
    ),
    ("[forward.fluent]\nurl = 'x'", {"forward.fluent.url": "did you mean forward.fluentd.url?"}),
    ("[elasticsearch]\npassword = 'x'", {"elasticsearch.password": "did you mean forward.elasticsearch.password?"}),
    ("[qqq]\nzzz = 1", {"qqq.zzz": ""}),
]


@pytest.mark.parametrize(("text", "expected"), MISTAKES, ids=[text for text, _ in MISTAKES])
def test_a_key_that_is_not_known_is_told_with_the_right_next_step(
    tmp_path: Path, text: str, expected: dict[str, str]
) -> None:
    config = tmp_path / "c.toml"
    config.write_text(text)
    warnings = load(REQUIRED, {}, str(config)).warnings
    assert len(warnings) == len(expected)
    for key, advice in expected.items():
        (warning,) = [line for line in warnings if line.startswith(f"{config}: the key {key} is not known")]
        assert advice in warning


@pytest.mark.parametrize("text", ["[forward.fluentd]\n", "[teleport]\n[lock]\n[forward]", "forward.fluentd = {}"])
def test_an_empty_table_is_no_mistake(tmp_path: Path, text: str) -> None:
    config = tmp_path / "c.toml"
    config.write_text(text)
    assert load(REQUIRED, {}, str(config)).warnings == []


def test_an_error_comes_with_the_keys_that_are_not_known(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("stroage = 'x'\n[forward.fluentd]\nurl = 'x'\nsession-url = 'y'\n")
    with pytest.raises(ConfigurationError, match="missing flags: --storage=STRING") as caught:
        load({}, {}, str(config))
    assert caught.value.__notes__ == [f"{config}: the key stroage is not known; did you mean storage?"]


def test_variables_that_are_not_known_are_told_too() -> None:
    environment = {
        "FDFWD_TYPE": "x",
        "FDFWD_STROAGE": "x",
        "FDFWD_CONFIG": "",
        "fdfwd_storage": "x",
        "\ufeffFDFWD_DEBUG": "",
        "OTHER": "x",
    }
    assert load(REQUIRED, environment).warnings == [
        "the variable FDFWD_STROAGE is not known; did you mean FDFWD_STORAGE?",
        "the variable FDFWD_TYPE is not known; did you mean FDFWD_TYPES?",
        "the variable fdfwd_storage is not known; did you mean FDFWD_STORAGE?",
        # the first line of a file with a byte-order mark
        "the variable \ufeffFDFWD_DEBUG is not known; did you mean FDFWD_DEBUG?",
    ]


# file, what is missing
SINKS = [
    ("", ["fluentd-session-url", "fluentd-url"]),
    ("[forward.fluentd]\nurl = 'x'", ["fluentd-session-url"]),
    ("[forward.fluentd]\nformat = 'array'", ["fluentd-session-url", "fluentd-url"]),
    ("[forward.elasticsearch]\nusername = 'x'", ["elasticsearch-url"]),
    ("[forward.file]\nkeep = 3", ["file-path"]),
    ("[forward.file]\nkeep = 3\n[forward.elasticsearch]\nca = '-'", ["elasticsearch-url", "file-path"]),
    ("[forward.elasticsearch]\nurl = 'x'\n[forward.fluentd]\nurl = 'x'", ["fluentd-session-url"]),
]


@pytest.mark.parametrize(("text", "missing"), SINKS)
def test_only_what_the_sink_needs_that_was_begun_is_missing(tmp_path: Path, text: str, missing: list[str]) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f"storage = 'x'\n{text}")
    with pytest.raises(ConfigurationError) as caught:
        load({}, {}, str(config))
    assert caught.value.message == f"missing flags: {', '.join(f'--{flag}=STRING' for flag in missing)}"


def test_a_table_of_a_sink_that_there_is_not_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("storage = 'x'\n[forward.splunk]\nurl = 'x'")
    with pytest.raises(
        ConfigurationError, match=r"a table for splunk, which is not a sink.*The sinks are fluentd, file, elastic"
    ):
        load({}, {}, str(config))


def test_options_of_a_sink_that_is_not_used_are_told(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("[forward.elasticsearch]\nusername = 'x'\n[forward.file]\nkeep = 5")
    assert load(REQUIRED, {}, str(config)).warnings == [
        f"nothing is delivered to file, for forward.file.path is not set; set all the same: forward.file.keep in "
        f"{config}",
        "nothing is delivered to elasticsearch, for forward.elasticsearch.url is not set; set all the same: "
        f"forward.elasticsearch.username in {config}",
    ]
