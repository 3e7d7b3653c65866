"""How the command line is read and its mistakes are reported, as the Go plugin does it where click differs."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TypeVar

import click

from event_handler.config.model import options
from event_handler.config.options import click_options

F = TypeVar("F", bound=Callable[..., Any])


class Command(click.Command):
    """A flag takes a value only after "=": `--dry-run true` has an argument too many, `--debug start` a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _with_values(self, args))


class Group(click.Group):
    """As `Command`; an unknown command is reported with the nearest one.

    `lazy` names commands that are imported when they are asked for, as `module:attribute` of this package.
    """

    def __init__(self, *arguments: Any, lazy: Mapping[str, str] | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._lazy = lazy or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *self._lazy])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self._lazy[cmd_name].partition(":")
        found: click.Command = getattr(import_module(f"event_handler.cli.{module}"), attribute)
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _with_values(self, args))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None:
            raise click.UsageError(
                f"unexpected argument {args[0]}{_did_you_mean(args[0], self.list_commands(ctx))}", ctx
            )
        return super().resolve_command(ctx, args)


def _with_values(command: click.Command, args: list[str]) -> list[str]:
    known = {name for name, option in options().items() if option.kind == "flag"}
    own = [parameter for parameter in command.params if isinstance(parameter, click.Option) and not parameter.is_flag]
    flags = {spelling for option in own if option.name in known for spelling in option.opts}
    end = args.index("--") if "--" in args else len(args)
    return [f"{arg}=true" if arg in flags else arg for arg in args[:end]] + args[end:]


def app_options(command: F) -> F:
    """`--config` and `--debug`, which may stand before the command as well as after it."""
    config = click.option("--config", "-c", default="", metavar="FILE", help="TOML file with settings ($FDFWD_CONFIG)")
    return config(click_options(only=frozenset({"debug"}))(command))


def in_words(error: click.UsageError) -> tuple[str, str]:
    """The usage of the command that was called wrong, and what is wrong."""
    usage = error.ctx.get_help() if error.ctx else ""
    if isinstance(error, click.NoSuchOption):
        near = (error.possibilities or [""])[0]
        return usage, f"unknown flag {error.option_name}" + (f', did you mean "{near}"?' if near else "")
    return usage, error.format_message()


def _did_you_mean(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f', did you mean "{near[0]}"?' if near else ""
