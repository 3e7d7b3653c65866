"""A CA file may hold any certificate of the receiver's chain.

What is wrong with one is said with host, names and clock.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from event_handler.ports import Delivered, Retry, Verdict
from event_handler.sinks.fluentd import FluentdOptions, FluentdSink
from tests.contract.chains import DAY, Signed, server, sign
from tests.contract.deliveries import verdict
from tests.contract.receiver import Receiver, Reply, receiving


@asynccontextmanager
async def fluentd(receiver: Receiver, ca: Path) -> AsyncIterator[FluentdSink]:
    sink = FluentdSink(FluentdOptions(url=f"{receiver.url}/a", session_url=f"{receiver.url}/s", ca=str(ca)))
    yield sink
    await sink.close()


async def delivered(directory: Path, trusted: bytes, leaf: Signed, *above: Signed) -> tuple[Verdict, Receiver]:
    """What comes of an event for a server that shows `leaf` and those above it."""
    ca = directory / "ca.pem"
    ca.write_bytes(trusted)
    async with (
        receiving(lambda _: Reply(200), server(directory, leaf, *above)) as receiver,
        fluentd(receiver, ca) as sink,
    ):
        return await verdict(sink), receiver


@pytest.fixture(scope="module")
def root() -> Signed:
    return sign("root", authority=True)


@pytest.fixture(scope="module")
def issuing(root: Signed) -> Signed:
    return sign("issuing", root, authority=True)


@pytest.mark.parametrize("kept", ["root", "issuing", "leaf", "issuing and another"])
async def test_any_certificate_of_the_chain_is_trusted_for_itself(
    tmp_path: Path, root: Signed, issuing: Signed, kept: str
) -> None:
    leaf = sign("collector", issuing, host="localhost")
    trusted = {
        "root": root.pem,
        "issuing": issuing.pem,
        "leaf": leaf.pem,
        "issuing and another": issuing.pem + sign("x").pem,
    }[kept]
    said, _ = await delivered(tmp_path, trusted, leaf, issuing)
    assert said == Delivered()


async def test_a_certificate_that_signed_itself_is_trusted_by_itself(tmp_path: Path) -> None:
    leaf = sign("collector", host="localhost")
    assert (await delivered(tmp_path, leaf.pem, leaf))[0] == Delivered()


async def test_a_server_that_does_not_show_its_issuer_is_trusted_by_the_issuer(tmp_path: Path, issuing: Signed) -> None:
    leaf = sign("collector", issuing, host="localhost")
    assert (await delivered(tmp_path, issuing.pem, leaf))[0] == Delivered()


@pytest.mark.parametrize("kept", ["issuing", "leaf"])
async def test_the_name_is_checked_all_the_same(tmp_path: Path, issuing: Signed, kept: str) -> None:
    leaf = sign("collector", issuing, host="logs.example.com")
    said, receiver = await delivered(tmp_path, (leaf if kept == "leaf" else issuing).pem, leaf, issuing)
    assert isinstance(said, Retry)
    assert said.misconfigured
    for part in (f"localhost:{receiver.port}", "not for localhost", "logs.example.com", "forward.fluentd.url"):
        assert part in said.reason
    assert receiver.requests == []


async def test_a_sibling_of_a_trusted_leaf_is_not_trusted(tmp_path: Path, issuing: Signed) -> None:
    leaf, sibling = (sign("collector", issuing, host="localhost") for _ in range(2))
    said, receiver = await delivered(tmp_path, sibling.pem, leaf, issuing)
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert receiver.requests == []


async def test_a_certificate_of_an_authority_that_is_not_in_the_file_is_named_with_issuer_and_file(
    tmp_path: Path, root: Signed
) -> None:
    leaf = sign("collector", root, host="localhost")
    said, receiver = await delivered(tmp_path, sign("other", authority=True).pem, leaf)
    assert isinstance(said, Retry)
    assert said.misconfigured
    for part in (f"localhost:{receiver.port}", "CN=root", str(tmp_path / "ca.pem"), "forward.fluentd.ca"):
        assert part in said.reason


@pytest.mark.parametrize(
    ("begins", "ends", "said_so"),
    [(-2 * DAY, -DAY, "has expired"), (DAY, 2 * DAY, "is not valid before")],
    ids=["expired", "not yet"],
)
async def test_a_certificate_out_of_its_time_is_said_with_both_times(
    tmp_path: Path, root: Signed, begins: timedelta, ends: timedelta, said_so: str
) -> None:
    leaf = sign("collector", root, host="localhost", begins=begins, ends=ends)
    said, receiver = await delivered(tmp_path, root.pem, leaf)
    assert isinstance(said, Retry)
    assert said.misconfigured
    moment = leaf.certificate.not_valid_after_utc if said_so == "has expired" else leaf.certificate.not_valid_before_utc
    for part in (f"localhost:{receiver.port}", said_so, f"{moment:%Y-%m-%d %H:%M} UTC", "clock"):
        assert part in said.reason


async def test_an_expired_authority_is_not_taken_for_an_expired_receiver(tmp_path: Path) -> None:
    old = sign("old root", begins=-2 * DAY, ends=-DAY, authority=True)
    leaf = sign("collector", old, host="localhost")
    said, _ = await delivered(tmp_path, old.pem, leaf)
    assert isinstance(said, Retry)
    assert "an authority above the certificate of the receiver" in said.reason
