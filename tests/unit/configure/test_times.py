"""The time formats in the generated files against every form of a time: what a real collector is run with in
tests/contract.
"""

from __future__ import annotations

import re

import pytest

from event_handler.configure.collectors import COLLECTORS
from tests.contract.times import FORMS, SMALL_LETTERS

DIRECTIVES = {"%Y": r"\d{4}", "%L": r"\d{1,9}", "%z": r"(Z|[+-]\d\d:\d\d)"} | {
    f"%{letter}": r"\d\d" for letter in "mdHMS"
}
ANY_ISO_8601 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d([.]\d+)?(Z|[+-]\d\d:\d\d)", re.IGNORECASE)


def as_pattern(time_format: str) -> re.Pattern[str]:
    """What a format takes: it must be met from the first to the last letter."""
    pieces = re.split(r"(%[A-Za-z])", time_format)
    return re.compile("".join(DIRECTIVES[piece] if piece.startswith("%") else re.escape(piece) for piece in pieces))


def rendered(output: str) -> str:
    return COLLECTORS[output].render("ca.crt", "server.crt", "server.key", "secret")


def takes_fluentd(text: str) -> bool:
    found = re.search(r"^ *time_format (\S+)$", rendered("fluentd"), re.MULTILINE)
    assert found is not None
    return bool((ANY_ISO_8601 if found[1] == "%iso8601" else as_pattern(found[1])).fullmatch(text))


def takes_fluent_bit(text: str) -> bool:
    """The first parser of the filter whose expression fits decides, and its format must fit too."""
    file = rendered("fluent-bit")
    parsers = re.findall(
        r"- name: (\S+)\n +format: regex\n +regex: '(.+)'\n +time_key: time\n +time_format: '(.+)'\n", file
    )
    asked = re.search(r"parser: \[(.+)\]", file)
    assert asked is not None
    assert asked[1].split(", ") == [name for name, _, _ in parsers]
    first = next(time_format for _, fits, time_format in parsers if re.search(fits.replace("(?<", "(?P<"), text))
    return bool(as_pattern(first).fullmatch(text))


def takes_logstash(text: str) -> bool:
    assert 'match => ["time", "ISO8601"]' in rendered("logstash")
    return bool(ANY_ISO_8601.fullmatch(text))


@pytest.mark.parametrize("text", FORMS)
def test_every_form_that_go_writes_is_taken_by_every_collector(text: str) -> None:
    assert takes_fluentd(text)
    assert takes_fluent_bit(text)
    assert takes_logstash(text)


@pytest.mark.parametrize("text", SMALL_LETTERS)
def test_small_letters_are_taken_too_except_by_fluent_bit(text: str) -> None:
    assert takes_fluentd(text)
    assert takes_logstash(text)
    assert not takes_fluent_bit(text)


def test_vector_reads_no_time_so_it_can_refuse_none() -> None:
    assert "parse_timestamp" not in rendered("vector")


@pytest.mark.parametrize("text", ["2026-01-01T10:20:30Z", "2026-01-01T10:20:30.5Z"])
def test_a_format_with_a_fixed_fraction_would_be_found(text: str) -> None:
    assert bool(as_pattern("%Y-%m-%dT%H:%M:%S.%L%z").fullmatch(text)) is ("." in text)
