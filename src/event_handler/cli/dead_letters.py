"""`dead-letter`: looks at the events that a sink refused, sends them again, or drops them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import wraps
from typing import Any

import click
import orjson

from event_handler.cli.command_line import Command
from event_handler.cli.storage import (
    cluster_option,
    config_option,
    sink_option,
    states_of,
    storage_option,
    storage_settings,
)
from event_handler.errors import UsageError
from event_handler.state.dead_letters import KeptDeadLetter
from event_handler.state.places import Place

REASON_SHOWN = 60  # characters of a reason in the list
all_option = click.option("--all", "everything", is_flag=True, help="all of them")


class Box:
    """The letters of one sink's state; `name` is `<cluster>/<sink>`."""

    def __init__(self, place: Place) -> None:
        self.name = place.name
        self.letters = place.letters()


def over_boxes(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say where the state lies; the command gets the boxes that they mean."""

    @config_option
    @storage_option
    @cluster_option
    @sink_option
    @click.pass_obj
    @wraps(command)
    def wrapped(
        before: Mapping[str, str],
        /,
        config: str,
        storage_directory: str | None,
        cluster: str,
        sink: str,
        **parameters: Any,
    ) -> None:
        settings = storage_settings(config or before["config"], storage_directory)
        command([Box(place) for place in states_of(settings, cluster, sink)], **parameters)

    return wrapped


@click.group("dead-letter", help="Look at the events that a sink refused; send them again or drop them.")
def dead_letter() -> None:
    """The group. All commands work while an event handler runs."""


@dead_letter.command("list", cls=Command, help="List the dead letters, oldest first, one a line.")
@click.option("--json", "as_json", is_flag=True, help="one JSON object a line, with the event")
@over_boxes
def list_dead_letters(boxes: Sequence[Box], as_json: bool) -> None:
    for box in boxes:
        for letter in box.letters.all():
            if as_json:
                click.echo(_json(box, letter))
                continue
            kept = datetime.fromtimestamp(letter.time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            again = "  (to be sent again)" if letter.retry else ""
            click.echo(f"{box.name}/{letter.number}  {kept}  {letter.type or '-'}  {_short(letter.reason)}{again}")


@dead_letter.command("show", cls=Command, help="Show one dead letter, with the whole event.")
@click.argument("letter")
@over_boxes
def show(boxes: Sequence[Box], letter: str) -> None:
    ((box, numbers),) = _chosen(boxes, (letter,), everything=False)
    found = box.letters.get(next(iter(numbers)))
    if found is None:  # while this command was at work
        raise UsageError(f"the dead letter {letter} is gone", "It was delivered or dropped just now.")
    click.echo(orjson.dumps(orjson.loads(_json(box, found)), option=orjson.OPT_INDENT_2).decode())


@dead_letter.command(
    "retry", cls=Command, help="Send dead letters again, by the running event handler or the next one started."
)
@click.argument("letters", nargs=-1)
@all_option
@over_boxes
def retry(boxes: Sequence[Box], letters: tuple[str, ...], everything: bool) -> None:
    for box, numbers in _chosen(boxes, letters, everything=everything):
        click.echo(f"{box.letters.retry(numbers)} of {box.name} will be sent again")


@dead_letter.command("drop", cls=Command, help="Forget dead letters for good.")
@click.argument("letters", nargs=-1)
@all_option
@over_boxes
def drop(boxes: Sequence[Box], letters: tuple[str, ...], everything: bool) -> None:
    for box, numbers in _chosen(boxes, letters, everything=everything):
        click.echo(f"{box.letters.drop(numbers)} of {box.name} dropped")


def _chosen(boxes: Sequence[Box], names: Sequence[str], *, everything: bool) -> list[tuple[Box, Iterable[int]]]:
    """The letters that `names` mean, by box.

    `7`, `fluentd/7` or `cluster/fluentd/7`, as long as it is clear which one that is.
    """
    if everything == bool(names):
        raise UsageError("which dead letters?", "Name them as `dead-letter list` does, or say --all.")
    if everything:
        return [(box, box.letters.numbers()) for box in boxes if box.letters.any()]
    chosen: dict[str, tuple[Box, list[int]]] = {}
    for name in dict.fromkeys(names):
        number = name.rpartition("/")[2]
        meant = [box for box in boxes if f"/{box.name}/{number}".endswith(f"/{name}") and _has(box, number)]
        if len(meant) != 1:
            could_be = " or ".join(f"{box.name}/{number}" for box in meant)
            problem = f"{name} could be {could_be}" if meant else f"there is no dead letter {name}"
            raise UsageError(problem, "`dead-letter list` shows their names.")
        chosen.setdefault(meant[0].name, (meant[0], []))[1].append(int(number))
    return [(box, numbers) for box, numbers in chosen.values()]


def _has(box: Box, number: str) -> bool:
    return number.isascii() and number.isdigit() and len(number) < 19 and box.letters.get(int(number)) is not None


def _json(box: Box, letter: KeptDeadLetter) -> str:
    facts = {
        "letter": f"{box.name}/{letter.number}",
        "kept": datetime.fromtimestamp(letter.time, UTC).isoformat(),
        "reason": letter.reason,
        "sink": letter.sink,
        "type": letter.type,
        "id": letter.id,
        "session_id": letter.session_id,
        "to_be_sent_again": bool(letter.retry),
        "event": orjson.Fragment(letter.body),
    }
    return orjson.dumps(facts).decode()


def _short(reason: str) -> str:
    return reason if len(reason) <= REASON_SHOWN else f"{reason[: REASON_SHOWN - 1]}…"
