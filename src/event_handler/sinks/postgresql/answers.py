"""Turns what PostgreSQL, or libpq on the way to it, says into a verdict.

Facts: PostgreSQL's documentation, "PostgreSQL Error Codes" (SQLSTATE).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from event_handler.ports import Denied, Reject, Retry, Verdict
from event_handler.sinks.answers import readable
from event_handler.sinks.http_faults import MISCONFIGURED_WAIT

if TYPE_CHECKING:
    import psycopg

EVENT_ERROR_CLASSES = ("22", "54")  # classes: data exception, program limit exceeded
CONSTRAINT, SYNTAX_OR_ACCESS, UNSUPPORTED, RAISED = "23", "42", "0A", "P0"
QUERY_CANCELED, READ_ONLY, NO_PERMISSION = "57014", "25006", "42501"
NO_TABLE = frozenset({"42P01", "3F000"})  # undefined table, invalid schema name
# What libpq says of a connection has no code. On a server that speaks another language than English none of these is
# found, and the reason is told without the next step.
SIGN_IN = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|role .* does not exist|not permitted to log in"
)
NO_DATABASE = re.compile(r"database .* does not exist|permission denied for database")
TLS = re.compile(
    r"certificate|private key|does not support SSL|sslrootcert|sslmode|unsupported protocol|wrong version number"
    r"|tls\w* alert"
)


def judge_error(error: psycopg.Error, section: str, table: str) -> Verdict:
    """A verdict about a batch whose statement failed: nothing of it is stored."""
    state = error.sqlstate
    if state is None:
        return Retry(f"the connection ended before an answer: {_message(error)}; check {section}.url", unanswered=True)
    said = f"the receiver answered {state}: {_message(error)}"
    if state.startswith(EVENT_ERROR_CLASSES):
        return Reject(said)
    if state == QUERY_CANCELED:
        return Retry(f"{said}; check {section}.timeout", unanswered=True)
    if state == READ_ONLY:
        return Retry(f"{said}; is it a replica? Name the primary in {section}.url, or all hosts")
    if state in NO_TABLE:
        return Denied(f"{said}; create it or set create-table, and check {section}.table")
    if state == NO_PERMISSION:
        return Denied(f"{said}; grant INSERT on {table} to the user, and check {section}.username and {section}.table")
    if state.startswith(CONSTRAINT):
        return Denied(f"{said}; it is a constraint, or a missing partition, of the table: check {section}.table")
    if state.startswith((SYNTAX_OR_ACCESS, UNSUPPORTED, RAISED)):
        return Denied(f"{said}; compare the columns, rules and triggers of the table: check {section}.table")
    return Retry(f"{said}; check {section}.url")


def judge_connection(error: Exception, section: str) -> Retry:
    """Why there is no connection."""
    text = readable(str(error).encode())
    for found, options in (
        (SIGN_IN, ("username", "password")),
        (NO_DATABASE, ("url",)),
        (TLS, ("sslmode", "ca", "cert")),
    ):
        if found.search(text):
            named = " and ".join(f"{section}.{option}" for option in options)
            return Retry(f"cannot connect: {text}; check {named}", MISCONFIGURED_WAIT, misconfigured=True)
    return Retry(f"cannot connect: {text}; check {section}.url")


def _message(error: psycopg.Error) -> str:
    """The message without its details, which quote the event."""
    return readable((error.diag.message_primary or str(error)).encode())
