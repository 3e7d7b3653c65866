"""The command line of the simulated cluster, and its page.

`python -m event_handler.simulator.options > docs/simulator.md`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from event_handler.simulator import forward_proxy
from event_handler.simulator.back_ends import BACK_ENDS
from event_handler.simulator.certificates import KeyKind
from event_handler.simulator.credentials import Renewal
from event_handler.simulator.fronts import Front

HEAD = """\
# The simulated cluster

<!-- Made by `python -m event_handler.simulator.options > docs/simulator.md`; a test compares. Do not edit. -->

`python -m event_handler.simulator --directory DIR` runs a Teleport cluster to test against: real TLS, real gRPC, events of its own
making, everything on loopback. It comes with a checkout, not with the wheel, and needs the
dependency group `simulator`. It shares no code with the handler.

When it is ready it prints one line of JSON: `address` (Auth), `web`, `tunnel` and `load_balancer` where there is one, `identity`,
`cluster`, and the numbers of `events` and `recordings`. SIGTERM or SIGINT ends it; where connections have faults it then prints how
many `connections` there were and how many `cuts`. Started again on the same directory it has the same authorities.

| file in DIR | content |
|---|---|
| `identity`, or `tls.crt`, `tls.key`, `tls.cas` | what the handler signs in with |
| `manifest.json`, `live.ids` | what a perfect reader delivers: the past, and the events that came since |
| `web-ca.pem` | the authority of the Proxy's public certificate; give it to the handler with `SSL_CERT_FILE` |
| `authorities.json` | keys of the authorities, and the phase of their rotation |
| `locks.jsonl` | locks that were made |
| `server.pem`, `proxy.pem`, `web.pem`, `ssh-host…`, `user-ca…` | what the servers use |

## Options
"""
FRONTS = """
## Fronts

| front | dial | ways in |
|---|---|---|
| none | `address` | directly to Auth |
| `tls-routing` | `web` | TLS routing (`teleport-auth@…`), the tunnel inside TLS (`teleport-reversetunnel`), the connection upgrade |
| `separate` | `web` | discovery tells the port of the tunnel, `tunnel`; nothing is routed |
| `load-balancer` | `load_balancer` | the connection upgrade: the balancer ends TLS and passes HTTP only, to a Proxy as above |

A rotation (`--rotate`) has four phases of that length for Host CA and User CA: `init` (the new authorities are trusted),
`update_clients` (identities are of the new one), `update_servers` (server certificates too), `standby` (the old ones are gone).
The user's files are renewed at the start of each, as tbot does. Running connections stay.

The faults of connections concern Auth, and with it all fronts: `address` is then a relay in front of it.

## Forward proxies

`python -m event_handler.simulator.forward_proxy` prints its `address` as JSON, and at its end how many connections it `accepted` and
the `targets` that it connected to.

"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m event_handler.simulator",
        description="Runs a simulated Teleport cluster as a process of its own. Described in docs/simulator.md.",
    )
    made.add_argument("--directory", type=Path, required=True, help="where credentials and the manifest are written")
    made.add_argument("--port", type=int, default=0, help="Auth's port on loopback, 0 takes a free one")
    made.add_argument("--cluster", default="sim.test", help="name of the cluster")
    made.add_argument(
        "--mode",
        choices=["bulk", "search"],
        default="bulk",
        help="how events can be read: exported in chunks, or searched",
    )
    made.add_argument("--back-end", choices=list(BACK_ENDS), default="file", help="which one to search in")
    made.add_argument("--events", type=int, default=5000, help="events of the past")
    made.add_argument("--sessions", type=int, default=10, help="sessions among them, each with a recording")
    made.add_argument("--days", type=float, default=2.0, help="days that the past events are spread over")
    made.add_argument("--chunk", type=int, default=500, help="events of a chunk")
    made.add_argument(
        "--distinct", type=int, default=0, help="events made one by one, the rest are copies with own ids (0 = all)"
    )
    made.add_argument("--seed", type=int, default=1, help="the same seed makes the same events")
    made.add_argument("--live", type=float, default=0.0, help="new events a second")
    made.add_argument("--live-seconds", type=float, default=0.0, help="how long new events come, 0 = for ever")
    made.add_argument("--late-chunks", type=int, default=0, help="chunks of past days that appear later")
    made.add_argument("--late-seconds", type=float, default=3.0, help="how much later")
    made.add_argument("--late-recordings", type=float, default=0.0, help="seconds until every third recording exists")
    made.add_argument("--duplicates", type=float, default=0.0, help="share of the events that stand in two chunks")
    made.add_argument(
        "--unavailable-every", type=int, default=0, help="exported events between two outages in mid-stream"
    )
    made.add_argument(
        "--invalid-every", type=int, default=0, help="searches until one gets an INVALID_ARGUMENT that passes"
    )
    made.add_argument(
        "--large-event",
        type=int,
        default=0,
        help="bytes of one event that is larger than all others (not with file and dynamodb)",
    )
    made.add_argument(
        "--pace", type=float, default=0.0, help="events a second that the server gives out at most, 0 = no limit"
    )
    made.add_argument(
        "--search-cost",
        type=float,
        default=0.0,
        help="µs that a search takes for each event that it gives; a real one takes 54, with --pace=31200 for all "
        "together",
    )
    _add_access(made)
    _add_faults(made)
    return made


def _add_access(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--front", type=Front, choices=list(Front), help="what stands in front of Auth; by default nothing"
    )
    made.add_argument("--web-port", type=int, default=0, help="port of the front that clients dial, 0 takes a free one")
    made.add_argument(
        "--key-kind", type=KeyKind, choices=list(KeyKind), default=KeyKind.ECDSA, help="kind of the identity's key"
    )
    made.add_argument("--lifetime", type=float, default=86_400.0, help="seconds until an identity expires")
    made.add_argument(
        "--renew", type=float, default=0.0, help="seconds between two renewals of the user's files, 0 = never"
    )
    made.add_argument(
        "--renew-by",
        type=Renewal,
        choices=list(Renewal),
        default=Renewal.IN_PLACE,
        help="as tbot does, or as Kubernetes does",
    )
    made.add_argument(
        "--rotate", type=float, default=0.0, help="seconds of each phase of one rotation of the authorities, 0 = none"
    )


def _add_faults(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--cut-every", type=float, default=0.0, help="seconds between two cuts of a random connection, 0 = never"
    )
    made.add_argument(
        "--cut-handshakes", type=int, default=0, help="so many connections are cut in the TLS handshake first"
    )
    made.add_argument(
        "--slow", type=int, default=0, help="bytes a second of each direction of a connection, 0 = no limit"
    )
    made.add_argument("--blackhole", action="store_true", help="accept connections and never answer")


def render() -> str:
    """The whole page, with a line end at its end."""
    return HEAD + "\n" + _table(parser()) + FRONTS + _table(forward_proxy.parser())


def _table(described: argparse.ArgumentParser) -> str:
    rows = ["| option | default | meaning |", "|---|---|---|"]
    for action in described._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        default = "required" if action.required else _default(action.default)
        choices = ": " + ", ".join(f"`{choice}`" for choice in action.choices) if action.choices else ""
        rows.append(f"| `{action.option_strings[0]}` | {default} | {action.help}{choices} |")
    return "\n".join(rows) + "\n"


def _default(value: object) -> str:
    if value is None or value is False or value == "":
        return ""
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    sys.stdout.write(render())
