"""The real process delivers by the forward protocol through kills and lost acknowledgements: nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.forward_receiver import KEY, PASSWORD, USER, forwarding
from tests.e2e.kills import FEW, MANY, deliver_through_kills

TABLE = """
[sinks.fluent]
type = "forward"
url = "tls://localhost:{port}"
ca = "{ca}"
cert = "{cert}"
key = "{key}"
shared-key = "{shared}"
username = "{user}"
password = "{password}"
"""


@pytest.mark.parametrize("kills", [FEW, pytest.param(MANY, marks=pytest.mark.soak)])
async def test_nothing_is_lost_by_the_forward_protocol(tmp_path: Path, kills: int) -> None:
    chunks = 0

    def behave() -> str:
        nonlocal chunks
        chunks += 1
        return "acknowledge" if chunks % 10 else ("forget", "close")[chunks // 10 % 2]

    async with forwarding(tmp_path, secure=True, key=KEY) as receiver:
        receiver.behave = behave
        files = receiver.options()
        tables = TABLE.format(
            port=receiver.port, ca=files.ca, cert=files.cert, key=files.key, shared=KEY, user=USER, password=PASSWORD
        )
        expected, log = await deliver_through_kills(tmp_path, tables, lambda: chunks, kills, apart=2)
        taken = [record["uid"] for record in await receiver.taken()]
    assert set(taken) == expected
    assert KEY not in log
    assert PASSWORD not in log
