"""The real process delivers to syslog over TLS through kills and broken connections: nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.syslog_receiver import server
from tests.e2e.kills import FEW, MANY, deliver_through_kills

TABLE = """
[sinks.log]
type = "syslog"
url = "{url}"
ca = "{ca}"
cert = "{cert}"
key = "{key}"
"""


def every_tenth() -> Iterator[int]:
    """A connection in ten is reset in the middle."""
    number = 0
    while True:
        number += 1
        yield 0 if number % 10 else 700


@pytest.mark.parametrize("kills", [FEW, pytest.param(MANY, marks=pytest.mark.soak)])
async def test_nothing_is_lost_on_the_way_to_syslog(tmp_path: Path, kills: int) -> None:
    resets = every_tenth()
    async with server("tls", tmp_path, secure=True) as receiver:
        receiver.reset_after = lambda: next(resets)
        options = receiver.options()
        tables = TABLE.format(url=receiver.url, ca=options.ca, cert=options.cert, key=options.key)
        expected, _ = await deliver_through_kills(
            tmp_path, tables, lambda: len(receiver.messages) // 500, kills, apart=1
        )
        taken = [body["uid"] for body in await receiver.taken()]
    assert set(taken) == expected
