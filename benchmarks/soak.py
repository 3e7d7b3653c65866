"""Half an hour of a cluster's life in two minutes: credentials renewed, authorities rotated, connections cut, and no
event lost.

Exit code 1 when an event is lost or repeated, or when nothing was renewed, rotated or cut.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from benchmarks import stage

PAST = 5000  # events that are there already when the handler starts
RENEW = 2.0  # seconds between two renewals of the identity
LIFETIME = 6.0  # seconds of an identity, the same share of the time between two renewals as with tbot
REFRESH = "500ms"  # between two looks at the identity
CUT = 1.5  # seconds between two cuts of a random connection
SLOW = 300_000  # bytes a second of a connection: at 400 events a second there is something under way most of the time
ROTATION = 0.8  # share of the time in which the four phases of the rotation follow each other
SPARE = 1.05  # so many times the events: the simulator adds them a little less than once a second
LAST_TICK = 3.0  # seconds after which the simulator has surely added its last events
WAYS = {
    "direct": ("tls-routing", "address"),
    "tls-routing": ("tls-routing", "web"),
    "upgrade": ("load-balancer", "load_balancer"),
    "tunnel": ("separate", "web"),
}


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one run.

    `interrupted` counts how often reading was interrupted and began anew, `renewals` the new identities that were taken
    over.
    """

    way: str
    logged: int
    lost: int
    repeated: int
    cuts: int
    connections: int
    interrupted: int
    renewals: int
    phase: str
    seconds: float

    @property
    def passed(self) -> bool:
        happened = min(self.cuts, self.renewals) > 0 and self.phase == "standby"
        return happened and not self.lost and not self.repeated


async def soak(way: str, events: int, seconds: float, directory: Path) -> Result:
    """Run the handler on one way for so long, while the events come in evenly.

    Then once more, until everything is delivered.
    """
    front, door = WAYS[way]
    files = directory / "cluster"
    life = [f"--front={front}", f"--lifetime={LIFETIME}", f"--renew={RENEW}", f"--cut-every={CUT}", f"--slow={SLOW}"]
    life += [
        f"--rotate={seconds * ROTATION / 4}",
        f"--live={max(1, round((events - PAST) / seconds * SPARE))}",
        f"--live-seconds={seconds}",
    ]
    authority = str(files / "web-ca.pem")
    began = monotonic()
    async with (
        stage.cluster(files, "bulk", PAST, *life) as cluster,
        stage.collector(directory / "collector") as (collector, url),
    ):
        address = cluster[door].replace("127.0.0.1", "localhost")
        options = stage.handler_options(directory, cluster | {"address": address}, url, "array", PAST)
        command = [
            "event_handler",
            *options,
            f"--teleport-dial={way}",
            f"--teleport-refresh-interval={REFRESH}",
            "--poll-interval=500ms",
        ]
        async with stage.handler(command, SSL_CERT_FILE=authority) as handler:
            await handler.until(asyncio.create_task(asyncio.sleep(seconds + LAST_TICK)))
        async with stage.handler([*command, "--exit-on-last-event"], SSL_CERT_FILE=authority) as last:
            if await last.process.wait():
                raise last.failed()
        collector.process.terminate()
        arrived = await collector.line()
    logged = json.loads((files / "manifest.json").read_text())["events"] + (files / "live.ids").read_text().split()
    return Result(
        way,
        len(logged),
        lost=len(logged) - arrived["different"],
        repeated=arrived["events"] - arrived["different"],
        cuts=cluster["cuts"],
        connections=cluster["connections"],
        interrupted=handler.told[stage.CONNECTED] - 1,
        renewals=handler.told[stage.RENEWED],
        phase=json.loads((files / "authorities.json").read_text())["phase"],
        seconds=monotonic() - began,
    )


def report(result: Result) -> None:
    columns = [
        "way",
        "events",
        "lost",
        "repeated",
        "cuts",
        "connections",
        "interrupted",
        "renewals",
        "rotated to",
        "seconds",
    ]
    counts = [result.lost, result.repeated, result.cuts, result.connections, result.interrupted, result.renewals]
    row = [result.way, f"{result.logged:,}", *(str(count) for count in counts), result.phase, f"{result.seconds:.0f}"]
    stage.show("Soak", columns, [row])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument(
        "--events", type=int, default=50_000, help="events in all at least, 5000 of which are there already"
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="how long new events come")
    parser.add_argument(
        "--way", choices=list(WAYS), default="tls-routing", help="how the handler gets into the cluster"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        result = asyncio.run(soak(options.way, options.events, options.seconds, Path(directory)))
    report(result)
    if not result.passed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
