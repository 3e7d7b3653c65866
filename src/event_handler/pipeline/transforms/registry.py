"""Finds a transform by the name of its type."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from event_handler.errors import ConfigurationError
from event_handler.ports import Transform
from event_handler.setting import Options

TYPES = {  # modules are loaded when their type is used; each has its TransformType in TRANSFORM
    "add-fields": "event_handler.pipeline.transforms.add_fields",
    "drop-fields": "event_handler.pipeline.transforms.drop_fields",
}
LIKE = 0.6  # how alike two names are at least, of 1, before one is offered for the other


@dataclass(frozen=True, slots=True)
class TransformType:
    """What a transform does in one line, its options, and how one is made of its options and its name."""

    summary: str
    options: type[Options]
    make: Callable[[Any, str], Transform]


def transform_type(name: str) -> TransformType:
    """Load the module of a type. Raises ConfigurationError when there is none of that name."""
    if name not in TYPES:
        near = difflib.get_close_matches(name, TYPES, n=1, cutoff=LIKE)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise ConfigurationError(f"there is no transform type {name!r}", f"{hint}The types are {', '.join(TYPES)}.")
    found = import_module(TYPES[name]).TRANSFORM
    assert isinstance(found, TransformType)  # noqa: S101 - our own module
    return found
