"""The ways into a simulated cluster: a Proxy with its web port and tunnel, and a load balancer that ends TLS."""

from __future__ import annotations

from enum import StrEnum


class Front(StrEnum):
    """What stands in front of Auth.

    `tls-routing`: one port for everything. `separate`: a web port that routes nothing, and the tunnel on a port of its
    own.
    `load-balancer`: a load balancer that ends TLS, in front of a Proxy with TLS routing.
    """

    TLS_ROUTING = "tls-routing"
    SEPARATE = "separate"
    LOAD_BALANCER = "load-balancer"
