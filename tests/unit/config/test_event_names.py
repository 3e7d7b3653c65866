"""A list that names an event type wrong is refused with the nearest name, for it would leave out the log for good."""

from __future__ import annotations

from pathlib import Path

import pytest

from event_handler.config.event_names import known
from event_handler.config.load import load
from event_handler.errors import ConfigurationError

REQUIRED = {"fluentd_url": "https://c/a", "fluentd_session_url": "https://c/s", "storage": "st"}
LISTS = ["types", "skip_event_types", "skip_session_types"]
LISTS += [f"{sink}_{name}" for sink in ("file", "elasticsearch") for name in LISTS]
TYPOS = [
    ("user.logn", "user.login"),
    ("session.strat", "session.start"),
    ("User.Login", "user.login"),
    ("user_login", "user.login"),
    ("sessions.start", "session.start"),
    ("t1000i", "T1000I"),
    ("T1000i", "T1000I"),
    ("tpg00i", "TPG00I"),
    ("!user.logn", "!user.login"),
    ("!t1000i", "!T1000I"),
]


def test_every_type_of_the_table_is_taken_and_every_code() -> None:
    for kind, codes in known().items():
        load({**REQUIRED, "types": [kind, *codes, f"!{kind}"]}, {})
    assert len(known()) > 250


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize(("typo", "meant"), TYPOS)
def test_a_name_that_is_not_known_is_refused_with_the_nearest(name: str, typo: str, meant: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({**REQUIRED, name: [f"user.create,{typo}"]}, {})
    assert f"'{typo}' is not an event type or code; did you mean {meant}?" in caught.value.message
    assert caught.value.message.startswith(f"--{name.replace('_', '-')}: ")
    assert caught.value.exit_code == 80


def test_all_wrong_names_of_a_list_are_told_at_once_and_how_a_newer_type_is_given() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(REQUIRED, {"FDFWD_TYPES": "user.logn,session.strat,scp"})
    assert str(caught.value) == (
        "FDFWD_TYPES: 'user.logn' is not an event type or code; did you mean user.login?, "
        "'session.strat' is not an event type or code; did you mean session.start?. "
        "A type that only a newer Teleport has can be given as a pattern, for example user.logn*."
    )


@pytest.mark.parametrize("entries", [["none"], [""], ["all"], ["!"]])
def test_a_word_for_no_entries_is_answered_with_the_empty_value(entries: list[str], tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f"skip-session-types = {entries}")
    with pytest.raises(ConfigurationError, match="An empty value clears the list"):
        load(REQUIRED, {}, str(config))


@pytest.mark.parametrize("entry", ["new.kind*", "brand_new?", "TZZZ*", "!new.kind*"])
def test_a_pattern_that_matches_nothing_known_is_told_and_used(entry: str) -> None:
    loaded = load({**REQUIRED, "types": [f"user.login,{entry}"]}, {})
    assert loaded.settings.types == ("user.login", entry)
    assert loaded.warnings == [
        f"--types: the pattern {entry!r} matches no event type and no code that this version knows"
    ]


@pytest.mark.parametrize(("entry", "meant"), [("Session.*", "session.*"), ("t20*", "T20*"), ("!T20*i", "!T20*I")])
def test_a_pattern_in_the_wrong_case_is_told_with_the_right_one(entry: str, meant: str) -> None:
    (warning,) = load({**REQUIRED, "types": [entry]}, {}).warnings
    assert warning.endswith(f"; did you mean {meant}?")


@pytest.mark.parametrize("entry", ["session.*", "*", "T20*", "*W", "[st]*", "!session.*", "session.?tart"])
def test_a_pattern_that_matches_something_is_no_news(entry: str) -> None:
    assert load({**REQUIRED, "types": [entry]}, {}).warnings == []
