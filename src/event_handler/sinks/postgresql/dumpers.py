"""Teaches psycopg to send arrays in binary form as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from event_handler.sinks.columns import COLUMNS

if TYPE_CHECKING:
    import psycopg


class TextArray(bytes):
    """A `text[]` in binary form."""


class JsonbArray(bytes):
    """A `jsonb[]` in binary form."""


Column = TextArray | JsonbArray | str


def parameters(columns: Sequence[bytes | str]) -> list[Column]:
    """The columns of arrays.arrays, those in binary form by their type."""
    return [
        column if isinstance(column, str) else (JsonbArray if name == "body" else TextArray)(column)
        for name, column in zip(COLUMNS, columns, strict=True)
    ]


def dump_arrays(connection: psycopg.AsyncConnection[Any]) -> None:
    from psycopg.adapt import Dumper
    from psycopg.pq import Format

    class ArrayDumper(Dumper):
        format = Format.BINARY

        def dump(self, obj: TextArray | JsonbArray) -> bytes:
            return obj

    class TextArrayDumper(ArrayDumper):
        oid = 1009  # text[]: pg_type.dat

    class JsonbArrayDumper(ArrayDumper):
        oid = 3807  # jsonb[]

    connection.adapters.register_dumper(TextArray, TextArrayDumper)
    connection.adapters.register_dumper(JsonbArray, JsonbArrayDumper)
