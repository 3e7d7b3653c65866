"""The real process delivers to the clouds' interfaces with tokens that end, through kills and refusals."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.contract.pubsub_emulator import PROJECT, VARIABLE, emulator_jar, running_emulator
from tests.contract.receiver import Reply, Request, receiving
from tests.e2e.kills import FEW, MANY, deliver_through_kills

TABLES = """
[sinks.sentinel]
type = "sentinel"
url = "{url}"
authority = "{url}"
tenant-id = "tenant"
client-id = "client"
client-secret = "a-client-secret"
dcr-immutable-id = "dcr-0f0f"

[sinks.secops]
type = "google-secops"
url = "{url}"
instance-id = "instance"
project-id = "project"
credentials-file = "{directory}/account.json"
"""
EVENTS_A_KILL = 4000  # enough for some requests of a thousand between two kills
SOAK = 900  # seconds for many kills; each run begins with a start of the process on a machine that may be busy
PUBSUB = """
[sinks.pubsub]
type = "gcp-pubsub"
url = "{url}"
emulator = true
project-id = "project"
topic = "teleport"
"""


@dataclass(slots=True)
class Clouds:
    """Both at one address. A token is taken for ten requests, and every tenth answer is a refusal."""

    answers: int = 0
    given: int = 0
    left: dict[str, int] = field(default_factory=dict)  # requests that a token is still good for
    taken: dict[str, list[str]] = field(default_factory=lambda: {"sentinel": [], "secops": []})

    def __call__(self, request: Request) -> Reply:
        self.answers += 1
        if self.answers % 10 == 0:
            return Reply(503)
        if request.target.endswith("/token"):
            self.given += 1
            token = f"an-access-token-{self.given}"
            self.left[token] = 10
            return Reply(200, json.dumps({"access_token": token, "expires_in": 3600}).encode())
        token = request.headers["authorization"].removeprefix("Bearer ")
        if not self.left.get(token):
            return Reply(401)
        self.left[token] -= 1
        content = json.loads(request.body)
        if request.target.startswith("/dataCollectionRules/"):
            self.taken["sentinel"] += [row["UID"] for row in content]
            return Reply(204)
        logs = (json.loads(b64decode(log["data"])) for log in content["inlineSource"]["logs"])
        self.taken["secops"] += [log["uid"] for log in logs]
        return Reply(200, b"{}")


@pytest.mark.parametrize("kills", [FEW, pytest.param(MANY, marks=pytest.mark.soak)])
async def test_nothing_is_lost_while_tokens_end_and_the_process_is_killed(tmp_path: Path, kills: int) -> None:
    clouds = Clouds()
    pem = generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    async with receiving(clouds, None) as receiver:
        account = {"type": "service_account", "client_email": "a@b", "private_key": pem, "token_uri": "x"}
        (tmp_path / "account.json").write_text(json.dumps({**account, "token_uri": f"{receiver.url}/token"}))
        tables = TABLES.format(url=receiver.url, directory=tmp_path)
        expected, log = await deliver_through_kills(tmp_path, tables, lambda: clouds.answers, kills)
    for name, ids in clouds.taken.items():
        assert set(ids) == expected, name
    assert clouds.given > kills  # a process may be killed before each of its sinks had a token
    assert "an-access-token" not in log
    assert "a-client-secret" not in log


@pytest.mark.parametrize("kills", [FEW, pytest.param(MANY, marks=[pytest.mark.soak, pytest.mark.timeout(SOAK)])])
async def test_the_emulator_of_pubsub_has_every_event_after_kills(tmp_path: Path, kills: int) -> None:
    """The process speaks with the emulator through a relay that counts requests, and loses every fifth answer."""
    jar = emulator_jar()
    if jar is None:
        pytest.skip(f"no emulator of Pub/Sub: install google-cloud-cli-pubsub-emulator, or set {VARIABLE} to its jar")
    assert PROJECT == "project"
    published: list[int] = []
    with running_emulator(jar, tmp_path) as emulator:
        emulator.make("teleport")

        def relay(request: Request) -> Reply:
            said = emulator.ask("POST", "topics/teleport:publish", json.loads(request.body))
            published.append(len(said["messageIds"]))
            return Reply(503 if len(published) % 5 == 0 else 200, json.dumps(said).encode())

        async with receiving(relay, None) as receiver:
            tables = PUBSUB.format(url=receiver.url)
            expected, _ = await deliver_through_kills(
                tmp_path, tables, lambda: len(published), kills, events=EVENTS_A_KILL * kills, apart=1
            )
        seen = {message.body["uid"] for message in emulator.pull("teleport")}
    assert seen == expected
    assert max(published) > 100, "they go out in batches"
