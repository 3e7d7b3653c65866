"""Writes the reference page: `python -m event_handler.config.reference > docs/options.md`."""

from __future__ import annotations

import sys

from event_handler.config.model import allowed_text, default_text, options
from event_handler.config.option import Option

PAGE_HEAD = """\
# Options of `start`

<!-- Made by `python -m event_handler.config.reference > docs/options.md`; a test compares. Do not edit. -->

A value on the command line wins over the TOML file, the file over the environment, the environment over the default.
`--config FILE`, `-c FILE` or `FDFWD_CONFIG` names the file.
Where there are several variables or keys, the first one wins.

* flag: `--dry-run`, or `--dry-run=true`, `false`, `1`, `0`, `yes`, `no`
* duration: a number and a unit, also several: `500ms`, `10s`, `1m30s`, `24h`; never a bare number
* list: `a,b`, or the flag again; `\\,` is a comma inside a name; an empty value clears the default; names of event types are checked
* blanks and a carriage return around a value are taken away; quotes around it are an error
* number: `20`, `1_000`, `0x10`, `0o10`
* time: RFC 3339 with any offset, `2026-11-23T00:00:00Z`; parts of a second are dropped
* file: an existing file; `~/` is the home directory, relative paths start at the working directory
"""


def render() -> str:
    """The whole page, with a line end at its end."""
    return PAGE_HEAD + "".join(_section(name, option) for name, option in options().items())


def _section(name: str, option: Option) -> str:
    rows: list[tuple[str, str]] = [("type", option.kind)]
    if option.required:
        rows.append(("default", "none: required"))
    elif default_text(name):
        rows.append(("default", default_text(name) if option.unset else f"`{default_text(name)}`"))
    if allowed_text(name):
        rows.append(("allowed", allowed_text(name)))
    rows.append(("environment", _codes(option.variables)))
    rows.append(("TOML", _codes(tuple(_toml(key) for key in option.keys))))
    lines = "".join(f"* {title}: {value}\n" for title, value in rows)
    return f"\n## `--{option.flag}`\n\n{_sentence(option.help)}\n\n{lines}"


def _sentence(text: str) -> str:
    """With a capital, unless it begins with something that is written as it is."""
    plain = text.split()[0].isalpha()
    return f"{text[0].upper() if plain else text[0]}{text[1:]}."


def _toml(key: str) -> str:
    table, _, last = key.rpartition(".")
    return f"[{table}] {last}" if table else last


def _codes(words: tuple[str, ...]) -> str:
    return ", ".join(f"`{word}`" for word in words)


if __name__ == "__main__":
    sys.stdout.write(render())
