"""What a Proxy tells about itself at /webapi/find and /webapi/ping, in the shape that a real one answered."""

from __future__ import annotations

from dataclasses import dataclass

from event_handler.simulator.server import VERSION

_DIAL_TIMEOUT = 30_000_000_000  # nanoseconds


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the Proxy listens, each host:port.

    `public` is the web address for clients; `tunnel` is "" when TLS is routed.
    """

    web: str
    public: str
    tunnel: str = ""


def find(cluster: str, addresses: Addresses) -> dict[str, object]:
    """The answer of /webapi/find."""
    ssh: dict[str, object] = {
        "listen_addr": addresses.tunnel or addresses.web,
        "tunnel_listen_addr": addresses.tunnel or addresses.web,
        "web_listen_addr": addresses.web,
        "public_addr": addresses.public,
        "dial_timeout": _DIAL_TIMEOUT,
    }
    if addresses.tunnel:
        ssh["ssh_tunnel_public_addr"] = addresses.tunnel
    return {
        "auth": {"type": "", "private_key_policy": "", "has_motd": False, "signature_algorithm_suite": "balanced-v1"},
        "proxy": {
            "kube": {"enabled": False, "listen_addr": addresses.web},
            "ssh": ssh,
            "db": {"postgres_listen_addr": addresses.web, "mysql_listen_addr": addresses.web},
            "tls_routing_enabled": not addresses.tunnel,
            "scopes_enabled": False,
        },
        "server_version": VERSION,
        "min_client_version": "18.0.0-aa",
        "cluster_name": cluster,
        "automatic_upgrades": False,
        "edition": "oss",
        "fips": False,
    }


def ping(cluster: str, addresses: Addresses) -> dict[str, object]:
    """The answer of /webapi/ping: that of find, with more about signing in."""
    local = {"type": "local", "second_factor": "otp", "preferred_local_mfa": "otp", "local": {"name": ""}}
    sign_in = local | {"private_key_policy": "none", "has_motd": False, "signature_algorithm_suite": "balanced-v1"}
    return find(cluster, addresses) | {"auth": sign_in}
