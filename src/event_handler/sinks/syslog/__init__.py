"""Delivers to syslog servers and to SIEMs that listen for syslog."""

from __future__ import annotations

from event_handler.sinks.registry import SinkType
from event_handler.sinks.syslog.sink import SyslogOptions, SyslogSink

SINK = SinkType("syslog (RFC 5424) over TLS, TCP, UDP or a UNIX socket; also as CEF or LEEF", SyslogOptions, SyslogSink)
