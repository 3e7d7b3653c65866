"""One process at a time holds the Lease, whatever happens: at a server of our own, and at a real API server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import yaml
from structlog.testing import capture_logs

from event_handler.errors import ConfigurationError, StorageError
from event_handler.kubernetes import lease
from event_handler.kubernetes.api import LeaseApi, lease_name
from event_handler.kubernetes.lease import LeaseMembership
from tests.contract.lease_server import NAMESPACE, LeaseServer, lease_server, write_account
from tests.contract.pki import Pki
from tests.deploy.api_server import POD_TOKEN, POD_USER, TOKEN, ApiServer, api_server, no_api_server

NAME = "events"
FASTER = 3  # times, and still slow enough for a busy machine
PATIENCE = 20.0  # seconds, on a busy machine too


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RENEWED_EVERY", "AGAIN_AFTER_FAILURE", "GIVEN_UP_AFTER", "ANSWERED_WITHIN", "LOOK_AT_LEASE_EVERY"):
        monkeypatch.setattr(lease, name, getattr(lease, name) / FASTER)
    monkeypatch.setattr(lease, "HOLDS", lease.HOLDS // FASTER)


@pytest.fixture
async def server(tmp_path: Path, pki: Pki, faster: None) -> AsyncIterator[LeaseServer]:
    async with lease_server(tmp_path, pki) as running:
        yield running


def member(server: LeaseServer, account: Path | None = None) -> LeaseMembership:
    return LeaseMembership(LeaseApi(account or server.account, "", NAME, server.environment))


@asynccontextmanager
async def leaving(*members: LeaseMembership) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for one in members:
            await one.leave()


def has_changed(server: LeaseServer, times: int) -> bool:
    return server.changes >= times


async def within(what: Callable[[], bool], seconds: float = PATIENCE) -> None:
    async with asyncio.timeout(seconds):
        while not what():
            await asyncio.sleep(0.01)


async def test_the_first_one_makes_the_lease_and_others_stand_by(server: LeaseServer) -> None:
    one, other = member(server), member(server)
    async with leaving(one, other):
        await asyncio.wait_for(one.join(), PATIENCE)
        spec = server.leases[NAME]["spec"]
        assert (spec["holderIdentity"], spec["leaseTransitions"], one.epoch) == (one.name, 1, 1)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", spec["renewTime"])
        joining = asyncio.create_task(other.join())
        await asyncio.sleep(2.0 * lease.HOLDS)
        assert not joining.done()
        assert other.standing_by
        assert not one.lost.is_set()
        joining.cancel()


async def test_of_those_that_begin_at_once_one_holds_it(server: LeaseServer) -> None:
    members = [member(server) for _ in range(5)]
    async with leaving(*members):
        joining = [asyncio.create_task(one.join()) for one in members]
        await asyncio.sleep(1.5 * lease.HOLDS)
        assert sum(task.done() for task in joining) == 1
        for task in joining:
            task.cancel()


async def test_one_that_leaves_is_followed_at_the_next_look(server: LeaseServer) -> None:
    one, other = member(server), member(server)
    async with leaving(other):
        await one.join()
        joining = asyncio.create_task(other.join())
        await within(lambda: other.standing_by)
        await one.leave()
        assert server.leases[NAME]["spec"]["holderIdentity"] == ""
        began = monotonic()
        await asyncio.wait_for(joining, PATIENCE)
        assert monotonic() - began < 0.7, "it does not wait until the lease ends"
        assert (other.epoch, other.counter) == (2, one.counter)


async def test_one_that_is_cut_off_gives_it_up_before_another_takes_it(server: LeaseServer) -> None:
    account = server.account_of("cut-off")
    one, other = member(server, account), member(server)
    async with leaving(other):
        await one.join()
        joining = asyncio.create_task(other.join())
        await within(lambda: other.standing_by)
        server.away.add("cut-off")
        await within(one.lost.is_set)
        assert not joining.done()
        await asyncio.wait_for(joining, PATIENCE)
        assert other.epoch == 2
        server.away.clear()
        again = asyncio.create_task(one.join())
        await within(lambda: one.standing_by)
        await other.leave()
        await asyncio.wait_for(again, PATIENCE)
        assert (one.epoch, one.lost.is_set()) == (3, False)
        await one.leave()


async def test_one_that_slept_gives_it_up_without_asking_anybody(
    server: LeaseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = member(server)
    async with leaving(one):
        await one.join()
        asked = len(server.asked)
        slept = monotonic
        monkeypatch.setattr(lease, "monotonic", lambda: slept() + 3600.0)
        await within(one.lost.is_set)
        assert len(server.asked) == asked


async def test_a_lease_that_another_one_took_is_lost_at_the_next_renewal(server: LeaseServer) -> None:
    one = member(server)
    async with leaving(one):
        await one.join()
        found = server.leases[NAME]
        server.leases[NAME] = {
            **found,
            "metadata": {**found["metadata"], "resourceVersion": "x"},
            "spec": {**found["spec"], "holderIdentity": "another", "leaseTransitions": 2},
        }
        await within(one.lost.is_set)


async def test_answers_that_get_lost_do_not_cost_the_lease(server: LeaseServer) -> None:
    one = member(server)
    async with leaving(one):
        server.lost = 1  # of the one that makes it
        await asyncio.wait_for(one.join(), PATIENCE)
        for _ in range(3):
            server.lost = 1
            await within(partial(has_changed, server, server.changes + 2))
        assert not one.lost.is_set()


async def test_labels_that_somebody_adds_to_it_stay_and_do_not_cost_the_lease(server: LeaseServer) -> None:
    one = member(server)
    async with leaving(one):
        await one.join()
        server.leases[NAME]["metadata"] |= {"labels": {"team": "security"}, "resourceVersion": "changed"}
        changes = server.changes
        await within(lambda: server.changes > changes + 1)
        assert not one.lost.is_set()
        assert server.leases[NAME]["metadata"]["labels"] == {"team": "security"}


async def test_one_that_was_deleted_is_lost_and_made_again_with_another_counter(server: LeaseServer) -> None:
    one = member(server)
    async with leaving(one):
        await one.join()
        counter = one.counter
        server.leases.clear()
        await within(one.lost.is_set)
        await asyncio.wait_for(one.join(), PATIENCE)
        assert (one.epoch, one.counter != counter) == (1, True)


async def test_a_token_that_was_replaced_is_used(server: LeaseServer) -> None:
    one = member(server)
    async with leaving(one):
        await one.join()
        server.tokens = {"a-new-one"}
        (server.account / "token").write_text("a-new-one")
        changes = server.changes
        await within(lambda: server.changes > changes)
        assert not one.lost.is_set()


async def test_without_the_right_it_says_which_one_is_needed(server: LeaseServer) -> None:
    server.allowed = False
    one = member(server)
    async with leaving(one):
        with pytest.raises(StorageError, match=r"security/events.*403.*Allow get, create and update on leases"):
            await one.join()


async def test_while_nobody_answers_it_waits_and_is_not_ready(server: LeaseServer) -> None:
    server.away.add("cut-off")
    one = member(server, server.account_of("cut-off"))
    with capture_logs() as lines:
        joining = asyncio.create_task(one.join())
        await within(lambda: bool(lines))
        assert not one.standing_by
        server.away.clear()
        await asyncio.wait_for(joining, PATIENCE)
    assert lines[0]["event"] == "cannot look at the lease, will try again"
    await one.leave()


def test_outside_of_a_pod_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="this is no pod"):
        LeaseApi(tmp_path, "", NAME, {})


@pytest.mark.parametrize(
    ("cluster", "name"),
    [
        ("example.com", "teleport-event-handler-example.com"),
        ("My_Cluster!", "teleport-event-handler-my-cluster"),
        ("x" * 300, f"teleport-event-handler-{'x' * 230}"),
    ],
)
def test_the_lease_of_a_cluster_has_a_name_that_kubernetes_takes(cluster: str, name: str) -> None:
    assert lease_name(cluster) == name


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    if reason := no_api_server():
        pytest.skip(reason)
    with api_server(tmp_path_factory.mktemp("kubernetes")) as running:
        running.namespace(NAMESPACE)
        yield running


def of_kubernetes(kubernetes: ApiServer, directory: Path, token: str = TOKEN) -> tuple[Path, Mapping[str, str]]:
    """A service account there, and the variables of a pod."""
    authority = (kubernetes.kubeconfig.parent / "certificates" / "apiserver.crt").read_bytes()
    host, port = kubernetes.url.removeprefix("https://").split(":")
    variables = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    return write_account(directory / token, authority, token, NAMESPACE), variables


async def test_a_real_api_server_takes_all_of_it(kubernetes: ApiServer, tmp_path: Path) -> None:
    account, variables = of_kubernetes(kubernetes, tmp_path)
    one, other = (LeaseMembership(LeaseApi(account, "", "real", variables)) for _ in range(2))
    joining: asyncio.Task[Any] | None = None
    async with leaving(other):
        await asyncio.wait_for(one.join(), PATIENCE)
        joining = asyncio.create_task(other.join())
        await within(lambda: other.standing_by)
        await asyncio.sleep(lease.HOLDS + 2.0)  # it is renewed meanwhile
        assert not joining.done()
        assert not one.lost.is_set()
        await one.leave()
        began = monotonic()
        await asyncio.wait_for(joining, PATIENCE)
        assert monotonic() - began < 2 * lease.LOOK_AT_LEASE_EVERY
        assert (one.epoch, other.epoch) == (1, 2)
        found = await asyncio.to_thread(
            kubernetes.ask, "GET", f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/real"
        )
        assert found["spec"]["holderIdentity"] == other.name


async def test_a_real_api_server_gives_it_to_one_of_those_that_begin_at_once(
    kubernetes: ApiServer, tmp_path: Path
) -> None:
    account, variables = of_kubernetes(kubernetes, tmp_path)
    members = [LeaseMembership(LeaseApi(account, "", "contended", variables)) for _ in range(6)]
    async with leaving(*members):
        joining = [asyncio.create_task(one.join()) for one in members]
        await asyncio.sleep(4.0)
        assert sum(task.done() for task in joining) == 1
        for task in joining:
            task.cancel()


def documented_role() -> dict[str, Any]:
    """The one that docs/standby.md shows."""
    page = (Path(__file__).parents[2] / "docs" / "standby.md").read_text()
    shown = re.search(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert shown is not None
    role: dict[str, Any] = yaml.safe_load(shown[1])
    return role


async def test_a_pod_needs_the_rights_that_are_documented_and_no_others(kubernetes: ApiServer, tmp_path: Path) -> None:
    account, variables = of_kubernetes(kubernetes, tmp_path, POD_TOKEN)
    one = LeaseMembership(LeaseApi(account, "", "restricted", variables))
    async with leaving(one):
        with pytest.raises(StorageError, match="Allow get, create and update on leases"):
            await one.join()
        rbac, role = "rbac.authorization.k8s.io", documented_role()
        roles = f"/apis/{rbac}/v1/namespaces/{NAMESPACE}"
        binding = {
            "metadata": {"name": "events"},
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": role["metadata"]["name"]},
            "subjects": [{"apiGroup": rbac, "kind": "User", "name": POD_USER}],
        }
        await asyncio.to_thread(kubernetes.ask, "POST", f"{roles}/roles", role)
        await asyncio.to_thread(kubernetes.ask, "POST", f"{roles}/rolebindings", binding)
        async with asyncio.timeout(PATIENCE):
            while not one.epoch:  # the server takes a moment to know
                try:
                    await one.join()
                except StorageError:
                    await asyncio.sleep(0.2)
        await asyncio.sleep(1.5 * lease.RENEWED_EVERY)
        assert not one.lost.is_set()
