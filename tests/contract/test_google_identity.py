"""Every way to a token of Google Cloud, against servers that check what they are asked with as Google documents it."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import time
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from event_handler.errors import SinkError
from event_handler.ports import Retry
from event_handler.sinks.access_token import Token, TokenSource
from event_handler.sinks.google_identity import GoogleOptions, google_source
from tests.contract.receiver import Receiver, Reply, Request, receiving
from tests.contract.token_server import TokenServer, form_of, part_of_jwt, refusal

SCOPE = "https://www.googleapis.com/auth/pubsub"
PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
ACCOUNT = "events@project.iam.gserviceaccount.com"
Content = dict[str, Any]


@pytest.fixture(scope="module")
def key() -> RSAPrivateKey:
    return generate_private_key(65537, 2048)


def account(url: str, key: RSAPrivateKey) -> Content:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return {
        "type": "service_account",
        "project_id": "project",
        "private_key_id": "key-1",
        "private_key": pem,
        "client_email": ACCOUNT,
        "token_uri": f"{url}/token",
    }


def external(url: str, file: Path, *, impersonated: bool = False) -> Content:
    made: Content = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/kubernetes",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{url}/token",
        "credential_source": {"file": str(file)},
    }
    if impersonated:
        path = f"/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken"
        made["service_account_impersonation_url"] = f"{url}{path}"
    return made


@asynccontextmanager
async def source(
    server: Callable[[Request], Reply], tmp_path: Path, content: Callable[[str], Content]
) -> AsyncIterator[tuple[Receiver, TokenSource]]:
    async with receiving(server, None) as receiver:
        file = tmp_path / "credentials.json"
        file.write_bytes(orjson.dumps(content(receiver.url)))
        made = google_source(GoogleOptions(credentials_file=str(file)), "sinks.g", SCOPE, {})
        made.reload()
        yield receiver, made
        await made.close()


def nobody(_: Request) -> Reply:
    return Reply(404)


async def test_a_service_account_signs_an_assertion_that_google_can_verify(tmp_path: Path, key: RSAPrivateKey) -> None:
    server = TokenServer(nobody)
    async with source(server, tmp_path, lambda url: account(url, key)) as (receiver, made):
        assert await made.fetch() == Token("token-1", 3600.0)
    form = form_of(server.asked[0])
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    content, _, signature = form["assertion"].rpartition(".")
    key.public_key().verify(base64.urlsafe_b64decode(signature + "=="), content.encode(), PKCS1v15(), SHA256())
    assert part_of_jwt(form["assertion"], 0) == {"alg": "RS256", "typ": "JWT", "kid": "key-1"}
    claims = part_of_jwt(form["assertion"], 1)
    assert (claims["iss"], claims["scope"], claims["aud"]) == (ACCOUNT, SCOPE, f"{receiver.url}/token")
    assert time() - 60 < claims["iat"] <= time()
    assert claims["exp"] - claims["iat"] == 3600


async def test_a_key_that_was_deleted_is_said_with_the_file(tmp_path: Path, key: RSAPrivateKey) -> None:
    server = TokenServer(nobody, refusals=[refusal(400, "invalid_grant", "Invalid JWT Signature.")])
    async with source(server, tmp_path, lambda url: account(url, key)) as (_, made):
        said = await made.fetch()
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert "invalid_grant: Invalid JWT Signature." in said.reason
    assert f"check sinks.g.credentials-file {tmp_path}/credentials.json" in said.reason
    assert "PRIVATE KEY" not in said.reason


@pytest.mark.parametrize("form", ["text", "json"])
async def test_a_workload_exchanges_the_token_in_its_file(tmp_path: Path, form: str) -> None:
    file = tmp_path / "token"
    file.write_text("a.kubernetes.token\n" if form == "text" else '{"value":"a.kubernetes.token"}')

    def content(url: str) -> Content:
        made = external(url, file)
        if form == "json":
            made["credential_source"]["format"] = {"type": "json", "subject_token_field_name": "value"}
        return made

    server = TokenServer(nobody)
    async with source(server, tmp_path, content) as (_, made):
        assert await made.fetch() == Token("token-1", 3600.0)
        file.write_text("" if form == "text" else "{}")
        said = await made.fetch()
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert "holds no token" in said.reason
    assert form_of(server.asked[0]) == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "audience": external("", file)["audience"],
        "scope": SCOPE,
        "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "subject_token": "a.kubernetes.token",
    }


async def test_a_workload_may_act_as_a_service_account(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a.kubernetes.token")
    end = datetime.now(UTC) + timedelta(hours=1)
    asked: list[Request] = []
    replies = [
        Reply(200, orjson.dumps({"accessToken": "an-account-token", "expireTime": f"{end:%Y-%m-%dT%H:%M:%S}Z"})),
        Reply(403, b'{"error":{"code":403,"message":"Permission denied","status":"PERMISSION_DENIED"}}'),
        Reply(200, b'{"accessToken":"x"}'),
        Reply(200, b'{"accessToken":"x","expireTime":"2026-01-01T00:00:00"}'),
        Reply(200, b'{"accessToken":"","expireTime":"2026-01-01T00:00:00.123456789Z"}'),
    ]

    def answers(request: Request) -> Reply:
        asked.append(request)
        return replies[len(asked) - 1]

    server = TokenServer(answers)
    async with source(server, tmp_path, lambda url: external(url, file, impersonated=True)) as (_, made):
        got, denied, *odd = [await made.fetch() for _ in replies]
        server.refusals = [refusal(400, "invalid_grant")]
        assert isinstance(await made.fetch(), Retry)
    assert isinstance(got, Token)
    assert got.value == "an-account-token"
    assert 3500 < got.seconds <= 3600
    assert asked[0].target == f"/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken"
    assert asked[0].headers["authorization"] == "Bearer token-1"
    assert orjson.loads(asked[0].body) == {"scope": [SCOPE], "lifetime": "3600s"}
    assert form_of(server.asked[0])["scope"] == PLATFORM
    for said in (denied, *odd):
        assert isinstance(said, Retry)
        assert said.misconfigured
    assert isinstance(denied, Retry)
    assert "403 PERMISSION_DENIED: Permission denied" in denied.reason


async def test_a_machine_of_google_is_asked_never_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://localhost:1")
    path = "/computeMetadata/v1/instance/service-accounts/default/token"
    server = TokenServer(nobody, path)
    async with receiving(server, None) as receiver:
        options = GoogleOptions(proxy="http://localhost:1")
        made = google_source(options, "sinks.g", SCOPE, {"GCE_METADATA_HOST": f"localhost:{receiver.port}"})
        made.reload()
        assert await made.fetch() == Token("token-1", 3600.0)
        await made.close()
    assert server.asked[0].headers["metadata-flavor"] == "Google"
    assert server.asked[0].target == f"{path}?scopes={SCOPE}"


async def test_without_a_file_and_outside_of_google_the_option_is_named() -> None:
    made = google_source(GoogleOptions(), "sinks.g", SCOPE, {"GCE_METADATA_HOST": "localhost:1"})
    said = await made.fetch()
    await made.close()
    assert isinstance(said, Retry)
    assert "sinks.g.credentials-file (without it this must be a machine of Google Cloud)" in said.reason


def test_the_file_may_be_named_by_the_environment() -> None:
    with pytest.raises(SinkError, match=r"sinks\.g\.credentials-file /nowhere\.json cannot be read"):
        google_source(GoogleOptions(), "sinks.g", SCOPE, {"GOOGLE_APPLICATION_CREDENTIALS": "/nowhere.json"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"type": "authorized_user"}, "of the type 'authorized_user'"),
        ({"token_uri": ""}, "has no token_uri"),
        ({"token_uri": "nonsense"}, r"sinks\.g\.credentials-file: token_uri is not a URL"),
        ({"client_email": 7}, "has no client_email"),
        ({"private_key": "nonsense"}, "has no private key"),
        ({"type": "external_account"}, r"has no credential_source\.file"),
        ({"type": "external_account", "credential_source": {"file": "/x"}}, "has no token_url"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_and_not_shown(
    tmp_path: Path, key: RSAPrivateKey, change: Content, words: str
) -> None:
    file = tmp_path / "credentials.json"
    file.write_bytes(orjson.dumps({**account("http://localhost", key), **change}))
    with pytest.raises(SinkError, match=words) as raised:
        google_source(GoogleOptions(credentials_file=str(file)), "sinks.g", SCOPE, {})
    assert "BEGIN" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff"])
def test_a_file_that_is_no_object_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "credentials.json"
    file.write_bytes(content)
    with pytest.raises(SinkError, match="is not a JSON object"):
        google_source(GoogleOptions(credentials_file=str(file)), "sinks.g", SCOPE, {})
