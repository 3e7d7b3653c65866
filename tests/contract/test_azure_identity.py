"""Every way to a token of Entra ID, against servers that check what they are asked with as Microsoft documents it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import (
    CertificateBuilder,
    Name,
    NameAttribute,
    load_pem_x509_certificate,
    random_serial_number,
)
from cryptography.x509.oid import NameOID

from event_handler.errors import SinkError
from event_handler.ports import Retry
from event_handler.sinks.access_token import Token
from event_handler.sinks.azure_identity import ArcSource, AzureOptions, azure_source
from tests.contract.receiver import Reply, Request, answer, receiving
from tests.contract.token_server import TokenServer, form_of, part_of_jwt, refusal

RESOURCE = "https://monitor.azure.com"
TENANT, CLIENT = "0f0f0f0f-0000-4000-8000-000000000001", "0f0f0f0f-0000-4000-8000-000000000002"
PATH = f"/{TENANT}/oauth2/v2.0/token"
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


async def fetched(server: TokenServer, environment: Mapping[str, str] | None = None, **given: Any) -> Token | Retry:
    """What comes of asking once; URL in the environment becomes the server's address."""
    async with receiving(server, None) as receiver:
        named = {key: value.replace("URL", receiver.url) for key, value in (environment or {}).items()}
        if given.get("login") != "managed-identity" and "AZURE_AUTHORITY_HOST" not in named:
            given = {"tenant_id": TENANT, "client_id": CLIENT, "authority": receiver.url, **given}
        source = azure_source(AzureOptions(**given), "sinks.s", RESOURCE, named)
        source.reload()
        got = await source.fetch()
        await source.close()
    return got


def nobody(_: Request) -> Reply:
    return Reply(404)


def value(got: Token | Retry) -> str:
    assert isinstance(got, Token), got
    return got.value


def made_pair() -> tuple[bytes, bytes]:
    """A certificate that is signed with its own RSA key, as `az ad app credential reset` makes it, and the key."""
    key = generate_private_key(65537, 2048)
    whose = Name([NameAttribute(NameOID.COMMON_NAME, "app")])
    now = datetime.now(UTC)
    building = CertificateBuilder().subject_name(whose).issuer_name(whose).public_key(key.public_key())
    building = building.serial_number(random_serial_number()).not_valid_before(now)
    certificate = building.not_valid_after(now + timedelta(days=1)).sign(key, SHA256())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM), pem


@pytest.fixture(scope="module")
def pair() -> bytes:
    return b"".join(made_pair())


async def test_a_secret_is_sent_in_the_form() -> None:
    server = TokenServer(nobody, PATH)
    assert value(await fetched(server, client_secret="a-secret")) == "token-1"
    assert form_of(server.asked[0]) == {
        "grant_type": "client_credentials",
        "client_id": CLIENT,
        "scope": f"{RESOURCE}/.default",
        "client_secret": "a-secret",
    }


async def test_a_certificate_signs_an_assertion_that_entra_id_can_verify(tmp_path: Path, pair: bytes) -> None:
    file = tmp_path / "app.pem"
    file.write_bytes(pair)
    server = TokenServer(nobody, PATH)
    got = await fetched(server, login="client-certificate", client_certificate=str(file))
    assert value(got) == "token-1"
    (asked,) = server.asked
    form = form_of(asked)
    assert form["client_assertion_type"] == JWT_BEARER
    assertion = form["client_assertion"]
    certificate = load_pem_x509_certificate(pair)
    content, _, signature = assertion.rpartition(".")
    public = certificate.public_key()
    assert isinstance(public, RSAPublicKey)
    public.verify(base64.urlsafe_b64decode(signature + "=="), content.encode(), PSS(MGF1(SHA256()), 32), SHA256())
    digest = hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()
    assert part_of_jwt(assertion, 0) == {
        "alg": "PS256",
        "typ": "JWT",
        "x5t#S256": base64.urlsafe_b64encode(digest).decode().rstrip("="),
    }
    claims = part_of_jwt(assertion, 1)
    assert (claims["iss"], claims["sub"]) == (CLIENT, CLIENT)
    assert claims["aud"] == f"http://{asked.headers['host']}{PATH}"
    assert claims["nbf"] <= time() < claims["exp"] <= time() + 600
    assert len(claims["jti"]) >= 16


async def test_each_assertion_has_an_id_of_its_own_and_a_renewed_file_is_used(tmp_path: Path, pair: bytes) -> None:
    file = tmp_path / "app.pem"
    file.write_bytes(pair)
    certificate, key = made_pair()
    server = TokenServer(nobody, PATH)
    async with receiving(server, None) as receiver:
        options = AzureOptions(
            login="client-certificate",
            tenant_id=TENANT,
            client_id=CLIENT,
            authority=receiver.url,
            client_certificate=str(file),
        )
        source = azure_source(options, "sinks.s", RESOURCE, {})
        await source.fetch()
        file.write_bytes(key + certificate)
        await source.fetch()
        file.unlink()
        gone = await source.fetch()
        await source.close()
    jwts = [form_of(asked)["client_assertion"] for asked in server.asked]
    assert len({part_of_jwt(jwt, 1)["jti"] for jwt in jwts}) == 2
    assert len({part_of_jwt(jwt, 0)["x5t#S256"] for jwt in jwts}) == 2
    assert isinstance(gone, Retry)
    assert gone.misconfigured
    assert f"sinks.s.client-certificate {file} cannot be read" in gone.reason


async def test_a_kubernetes_workload_shows_the_token_in_its_file(tmp_path: Path) -> None:
    file = tmp_path / "azure-identity-token"
    file.write_text("a.kubernetes.token\n")
    environment = {
        "AZURE_TENANT_ID": TENANT,
        "AZURE_CLIENT_ID": CLIENT,
        "AZURE_FEDERATED_TOKEN_FILE": str(file),
        "AZURE_AUTHORITY_HOST": "URL/",
    }
    server = TokenServer(nobody, PATH)
    assert value(await fetched(server, environment, login="workload-identity")) == "token-1"
    form = form_of(server.asked[0])
    assert (form["client_id"], form["client_assertion_type"]) == (CLIENT, JWT_BEARER)
    assert form["client_assertion"] == "a.kubernetes.token"
    file.unlink()
    gone = await fetched(server, environment, login="workload-identity")
    assert isinstance(gone, Retry)
    assert "sinks.s.federated-token-file" in gone.reason


async def test_a_virtual_machine_is_asked_for_its_managed_identity_never_through_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://localhost:1")
    server = TokenServer(nobody, "/metadata/identity/oauth2/token")
    environment = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": "URL"}
    got = await fetched(server, environment, login="managed-identity", client_id=CLIENT, proxy="http://localhost:1")
    assert value(got) == "token-1"
    (asked,) = server.asked
    assert asked.headers["metadata"] == "true"
    query = {"api-version": ["2018-02-01"], "resource": [RESOURCE], "client_id": [CLIENT]}
    assert parse_qs(urlsplit(asked.target).query) == query


async def test_app_service_is_asked_with_its_header_and_tells_the_end_as_a_time() -> None:
    def answers(request: Request) -> Reply:
        assert request.headers["x-identity-header"] == "a-header"
        assert request.target == f"/msi/token?api-version=2019-08-01&resource={RESOURCE}"
        return Reply(200, orjson.dumps({"access_token": "an-app-token", "expires_on": str(int(time()) + 7200)}))

    environment = {"IDENTITY_ENDPOINT": "URL/msi/token", "IDENTITY_HEADER": "a-header"}
    async with receiving(answers, None) as receiver:
        named = {key: text.replace("URL", receiver.url) for key, text in environment.items()}
        source = azure_source(AzureOptions(login="managed-identity"), "sinks.s", RESOURCE, named)
        got = await source.fetch()
        await source.close()
    assert value(got) == "an-app-token"
    assert isinstance(got, Token)
    assert 7000 < got.seconds <= 7200


@pytest.mark.parametrize("status", [404, 410, 429, 500])
async def test_a_metadata_server_that_is_updated_is_asked_again(status: int) -> None:
    server = TokenServer(nobody, "/metadata", refusals=[Reply(status)])
    got = await fetched(server, {"AZURE_POD_IDENTITY_AUTHORITY_HOST": "URL"}, login="managed-identity")
    assert isinstance(got, Retry)
    assert not got.misconfigured


async def test_a_machine_without_an_identity_is_told_so() -> None:
    server = TokenServer(nobody, "/metadata", refusals=[refusal(400, "invalid_request", "Identity not found")])
    got = await fetched(server, {"AZURE_POD_IDENTITY_AUTHORITY_HOST": "URL"}, login="managed-identity")
    assert isinstance(got, Retry)
    assert got.misconfigured
    assert "Identity not found; check that this machine has a managed identity" in got.reason


@pytest.mark.parametrize("case", ["right", "elsewhere", "missing", "no header", "too large", "no text"])
async def test_arc_wants_to_see_that_its_file_can_be_read(tmp_path: Path, case: str) -> None:
    key = tmp_path / "keys" / "challenge.key"
    key.parent.mkdir()
    if case != "missing":
        key.write_bytes({"too large": b"x" * 4097, "no text": b"\xff"}.get(case, b"the-challenge\n"))
    named = tmp_path / "challenge.key" if case == "elsewhere" else key
    server = TokenServer(nobody, "/metadata")
    async with receiving(server, None) as receiver:
        asked = {"IDENTITY_ENDPOINT": f"{receiver.url}/metadata/identity/oauth2/token", "IMDS_ENDPOINT": receiver.url}
        source = azure_source(AzureOptions(login="managed-identity"), "sinks.s", RESOURCE, asked)
        assert isinstance(source, ArcSource)
        source._keys = key.parent
        challenge = "" if case == "no header" else f"Basic realm={named}"
        receiver.script.append(answer(401, WWW_Authenticate=challenge))
        got = await source.fetch()
        await source.close()
    if case == "right":
        assert value(got) == "token-1"
        assert server.asked[0].headers["authorization"] == "Basic the-challenge"
        assert server.asked[0].headers["metadata"] == "true"
    else:
        assert isinstance(got, Retry)
        assert got.misconfigured
        assert server.asked == []


async def test_a_refusal_of_entra_id_names_the_options() -> None:
    refusals = [refusal(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.")]
    got = await fetched(TokenServer(nobody, PATH, refusals=refusals), client_secret="a-secret")
    assert isinstance(got, Retry)
    assert got.misconfigured
    assert "AADSTS7000215" in got.reason
    assert "check sinks.s.client-secret, sinks.s.client-id and sinks.s.tenant-id" in got.reason


@pytest.mark.parametrize(
    ("cloud", "host"),
    [
        ("public", "login.microsoftonline.com"),
        ("government", "login.microsoftonline.us"),
        ("china", "login.chinacloudapi.cn"),
    ],
)
def test_each_cloud_has_an_entra_id_of_its_own(cloud: str, host: str) -> None:
    given = {"tenant_id": TENANT, "client_id": CLIENT, "client_secret": "x-secret", "cloud": cloud}
    source: Any = azure_source(AzureOptions.model_validate(given), "sinks.s", RESOURCE, {})
    assert str(source._url) == f"https://{host}{PATH}"


def other_key() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tenant_id": ""}, r"sinks\.s\.tenant-id is missing"),
        ({"tenant_id": "a/b"}, r"sinks\.s\.tenant-id"),
        ({"client_id": ""}, r"sinks\.s\.client-id is missing"),
        ({}, r"client-secret and sinks\.s\.client-secret-file are missing"),
        ({"client_secret": "x", "login": "managed-identity"}, r"client-secret stands beside login = managed-identity"),
        ({"client_secret": "x", "login": "workload-identity"}, "stands beside"),
        ({"login": "client-certificate"}, "client-certificate is missing"),
        ({"login": "client-certificate", "client_certificate": "/nowhere.pem"}, r"/nowhere\.pem cannot be read"),
        ({"login": "client-certificate", "client_certificate": "NOTHING"}, "has no certificate"),
        ({"login": "client-certificate", "client_certificate": "NO KEY"}, "has no private key"),
        ({"login": "client-certificate", "client_certificate": "EC"}, "is not RSA"),
        ({"login": "workload-identity"}, "AZURE_FEDERATED_TOKEN_FILE"),
    ],
)
def test_options_that_cannot_be_used_are_refused(
    tmp_path: Path, pair: bytes, given: dict[str, str], words: str
) -> None:
    certificate = pair[: pair.index(b"-----END CERTIFICATE-----") + 26]
    files = {"NOTHING": b"", "NO KEY": certificate, "EC": certificate + other_key()}
    if (content := files.get(given.get("client_certificate", ""))) is not None:
        (tmp_path / "app.pem").write_bytes(content)
        given = {**given, "client_certificate": str(tmp_path / "app.pem")}
    options = AzureOptions.model_validate({"tenant_id": TENANT, "client_id": CLIENT, **given})
    with pytest.raises(SinkError, match=words):
        azure_source(options, "sinks.s", RESOURCE, {})


@pytest.mark.parametrize("environment", [{"AZURE_POD_IDENTITY_AUTHORITY_HOST": "nonsense"}, {"IDENTITY_ENDPOINT": "x"}])
def test_an_address_in_the_environment_that_is_none_is_named(environment: dict[str, str]) -> None:
    with pytest.raises(SinkError, match=f"{next(iter(environment))} is not a URL"):
        azure_source(AzureOptions(login="managed-identity"), "sinks.s", RESOURCE, environment)
