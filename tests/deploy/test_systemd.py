"""The unit that `configure` writes, under a real systemd: started, reloaded, killed, hung, wrongly set, stopped."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from event_handler.configure.templates import systemd_unit
from tests.deploy.machine import READABLE, boot, program, without_systemd
from tests.e2e.conftest import a_collector
from tests.e2e.processes import configuration, simulated

UNIT = "teleport-event-handler.service"
USER = "daemon"  # of Debian; it owns none of this machine's files
EVENTS = 50
TRIES = 600  # of a twentieth of a second

SCRIPT = f"""
until_is() {{ # a property of the unit, and what it shall be
    n=0; while [ "$(shown $1)" != "$2" ] && [ $n -lt {TRIES} ]; do sleep 0.05; n=$((n+1)); done; echo $1 $(shown $1)
}}
shown() {{ systemctl show --property=$1 --value {UNIT}; }}
drop_in() {{ printf "[Service]\\n$2\\n" > /etc/systemd/system/{UNIT}.d/$1.conf; systemctl daemon-reload; }}

trap 'journalctl --unit={UNIT} --output=cat --no-pager > journal' EXIT
{READABLE}
# The client's key is root's.
chown -R {USER} . && chown root collector/client.key
cp {UNIT} /etc/systemd/system/ && mkdir /etc/systemd/system/{UNIT}.d
drop_in test 'RestartSec=100ms\\nLoadCredential=client.key:/given/collector/client.key'

systemctl start {UNIT}; echo start $?
stat -c '%a %U' /var/lib/teleport-event-handler
until [ -e delivered ]; do sleep 0.05; done
until shown StatusText | grep -q .; do sleep 0.05; done; echo status $(shown StatusText | wc -l)
systemctl reload {UNIT}; echo reload $?

systemctl kill --signal=KILL --kill-who=main {UNIT}; until_is NRestarts 1; until_is SubState running

drop_in watchdog WatchdogSec=2s
systemctl restart {UNIT}; systemctl kill --signal=STOP --kill-who=main {UNIT}
until_is NRestarts 1; until_is SubState running

systemctl stop {UNIT}; echo stop $? $(shown Result)

echo 'timeout = "soon"' > teleport-event-handler.toml
systemctl start {UNIT} 2>/dev/null || echo refused
until_is ActiveState failed; echo code $(shown ExecMainStatus), restarts $(shown NRestarts)
"""

pytestmark = pytest.mark.skipif(bool(without_systemd()), reason=without_systemd() or "-")


async def test_the_unit_does_under_systemd_what_it_says(tmp_path: Path) -> None:
    async with (
        a_collector(tmp_path / "collector") as collector,
        simulated(tmp_path / "sim", f"--events={EVENTS}", "--sessions=0") as cluster,
    ):
        config = configuration(tmp_path, cluster, collector)
        key = f"/run/credentials/{UNIT}/client.key"
        settings = config.read_text().replace(f"{tmp_path}/storage", "/var/lib/teleport-event-handler")
        settings = settings.replace(f"{tmp_path}/collector/client.key", key).replace(str(tmp_path), "/given")
        config.write_text(settings)
        program(tmp_path / "handler")
        unit = systemd_unit(USER, "/given/handler", "/given", "/given/teleport-event-handler.toml")
        (tmp_path / UNIT).write_text(unit)
        machine = asyncio.create_task(asyncio.to_thread(boot, tmp_path, SCRIPT))
        while len(collector.ids()) < EVENTS and not machine.done():
            await asyncio.sleep(0.05)
        (tmp_path / "delivered").touch()
        told = await machine
    journal = (tmp_path / "journal").read_text()
    assert told == [
        "start 0",
        f"700 {USER}",
        "status 1",
        "reload 0",
        *("NRestarts 1", "SubState running"),  # killed
        *("NRestarts 1", "SubState running"),  # hung
        "stop 0 success",
        "refused",
        "ActiveState failed",
        "code 80, restarts 0",
    ], journal + "\n".join(told)
    assert collector.ids().total() == EVENTS  # nothing was lost, and nothing was remembered wrongly
    assert "expected a duration with its unit" in journal
