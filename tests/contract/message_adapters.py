"""The sinks that do not speak HTTP, each with a receiver: a new one joins the suite by one entry in ADAPTERS."""

from __future__ import annotations

from tests.contract.bus_receivers import BUSES
from tests.contract.forward_receiver import FORWARD
from tests.contract.message_adapter import MessageAdapter
from tests.contract.postgresql_server import POSTGRESQL
from tests.contract.syslog_receiver import SYSLOG

ADAPTERS: list[MessageAdapter] = [
    *BUSES,
    *FORWARD,
    *POSTGRESQL,
    *SYSLOG,
]
