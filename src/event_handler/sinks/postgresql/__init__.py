"""Delivers to a table of PostgreSQL, in which an event that is sent again is stored once."""

from __future__ import annotations

from event_handler.sinks.postgresql.options import PostgresqlOptions as PostgresqlOptions
from event_handler.sinks.postgresql.sink import PostgresqlSink as PostgresqlSink
from event_handler.sinks.registry import SinkType

SINK = SinkType("a table of PostgreSQL, TimescaleDB or what speaks its protocol", PostgresqlOptions, PostgresqlSink)
