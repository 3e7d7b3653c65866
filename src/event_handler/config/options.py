"""Makes the click options of a command from the settings model. Values stay raw text: `load` converts them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from event_handler.config.model import default_text, options
from event_handler.config.option import Option

F = TypeVar("F", bound=Callable[..., Any])
METAVARS = {
    "text": "STRING",
    "url": "URL",
    "file": "FILE",
    "number": "INT",
    "duration": "DURATION",
    "list": "TYPES,...",
    "time": "TIME",
}
SHORT = {"debug": "-d"}


def click_options(*, only: frozenset[str] = frozenset()) -> Callable[[F], F]:
    """A decorator that adds one click option per field, in the order of the model; of all fields or of those in `only`.

    The command receives None, text, or a tuple of texts by field name; `given` makes of them what `load` takes.
    """

    def decorate(command: F) -> F:
        for name, option in reversed(options().items()):
            if not only or name in only:
                for wrap in _decorators(name, option):
                    command = wrap(command)
        return command

    return decorate


def given(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Only the settings that were on the command line."""
    known = options()
    return {name: value for name, value in parameters.items() if name in known and value not in (None, ())}


def help_text(name: str) -> str:
    """One line of help: purpose, default and variables."""
    option = options()[name]
    default = "" if option.kind == "flag" else default_text(name)
    shown = " [required]" if option.required else f" [default: {default}]" if default else ""
    short = f", same as {SHORT[name]}" if name in SHORT else ""
    return f"{option.help}{short}{shown} ({', '.join(f'${variable}' for variable in option.variables)})"


def _decorators(name: str, option: Option) -> list[Callable[[F], F]]:
    flag, text = f"--{option.flag}", help_text(name)
    if option.kind == "flag":
        made = [
            click.option(
                flag,
                name,
                is_flag=False,
                flag_value="true",
                default=None,
                metavar="",
                help=text,
                callback=_or_short,
            )
        ]
        if name in SHORT:  # a flag of its own, so that it may be glued: -dc FILE
            short = click.option(
                SHORT[name],
                f"{name}_short",
                is_flag=True,
                is_eager=True,
                expose_value=False,
                hidden=True,
                callback=_note(name),
            )
            made.append(short)
        return made
    metavar = "|".join(option.choices) or METAVARS[option.kind]
    return [click.option(flag, name, default=None, multiple=option.kind == "list", metavar=metavar, help=text)]


def _note(name: str) -> Callable[[click.Context, click.Parameter, bool], None]:
    def note(context: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            context.meta[f"{__name__}.{name}"] = "true"

    return note


def _or_short(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    noted: str | None = context.meta.get(f"{__name__}.{parameter.name}")
    return value if value is not None else noted
