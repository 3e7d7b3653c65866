"""Where the credentials of AWS come from: each place, their order, and how long they are kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import Any
from urllib.parse import parse_qs

import orjson
import pytest
from structlog.testing import capture_logs
from yarl import URL

from event_handler.errors import SinkError
from event_handler.ports import Retry
from event_handler.redact import without_secrets
from event_handler.sinks import http_dial
from event_handler.sinks.aws_credentials import AwsAccess, Keeper
from event_handler.sinks.aws_metadata import Container, Found, Instance
from event_handler.sinks.aws_options import AwsOptions
from event_handler.sinks.aws_signing import AwsCredentials
from tests.contract.receiver import Receiver, Reply, Request, answer, receiving

URL_ = URL("https://kinesis.eu-central-1.amazonaws.com/")
HOUR = 3600.0
ROLE = "arn:aws:iam::123456789012:role/audit"


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def of_sts(request: Request) -> Reply:
    """As STS answers; the key names the role."""
    asked = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
    name = f"{asked['Action']}Response"
    key = asked["RoleArn"].rpartition("/")[2].upper()
    parts = f"<AccessKeyId>ASIA{key}</AccessKeyId><SecretAccessKey>secret-of-{key}</SecretAccessKey>"
    parts += f"<SessionToken>token/+=&amp;</SessionToken>\n<Expiration>{stamp(time() + HOUR)}</Expiration>"
    return Reply(200, f"<{name}><Credentials>{parts}</Credentials></{name}>".encode())


def of_metadata(request: Request) -> Reply:
    if request.target.endswith("/api/token"):
        return Reply(200, b"imds-token")
    if request.target.endswith("/security-credentials/"):
        return Reply(200, b"machine-role\n")
    return Reply(200, credentials("ASIAMACHINE"))


def credentials(key: str, left: float = HOUR) -> bytes:
    content = {"Code": "Success", "AccessKeyId": key, "SecretAccessKey": "secret-of-it", "Token": "the-token"}
    return orjson.dumps({**content, "Expiration": stamp(time() + left)})


@pytest.fixture
async def sts() -> AsyncIterator[Receiver]:
    async with receiving(of_sts, None) as running:
        yield running


async def key_of(options: AwsOptions, environment: dict[str, str]) -> str:
    """The access key that signs, or why there is none."""
    nowhere = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/no", "AWS_SHARED_CREDENTIALS_FILE": "/no"}
    access = AwsAccess(options, "sinks.k", "kinesis", {**nowhere, **environment})
    try:
        found = await access.sign("POST", URL_, b"{}", {})
    finally:
        await access.close()
    return found.reason if isinstance(found, Retry) else found["Authorization"].split("Credential=")[1].split("/")[0]


def given(sts: Receiver | None = None, **more: str) -> AwsOptions:
    return AwsOptions(region="eu-central-1", sts_endpoint=sts.url if sts else "", **more)


async def test_the_options_come_before_the_environment() -> None:
    environment = {"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "of-the-environment"}
    assert await key_of(given(), environment) == "AKIAENV"
    assert await key_of(given(access_key_id="AKIAOPT", secret_access_key="of-the-options"), environment) == "AKIAOPT"


async def test_a_session_token_of_the_environment_is_sent() -> None:
    environment = {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "of-it", "AWS_SESSION_TOKEN": "a-token"}
    access = AwsAccess(given(), "sinks.k", "kinesis", environment)
    headers = await access.sign("POST", URL_, b"{}", {})
    assert not isinstance(headers, Retry)
    assert headers["X-Amz-Security-Token"] == "a-token"


async def test_a_token_of_kubernetes_is_changed_for_a_role(sts: Receiver, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("header.payload.signature\n")
    environment = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(token), "AWS_ROLE_ARN": ROLE, "AWS_ROLE_SESSION_NAME": "pod-7"}
    assert await key_of(given(sts), environment) == "ASIAAUDIT"
    (request,) = sts.requests
    assert "authorization" not in request.headers
    assert {name: values[0] for name, values in parse_qs(request.body.decode()).items()} == {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": ROLE,
        "RoleSessionName": "pod-7",
        "WebIdentityToken": "header.payload.signature",
    }


async def test_a_role_is_assumed_with_the_credentials_that_were_found(sts: Receiver) -> None:
    environment = {"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "of-the-environment"}
    assert await key_of(given(sts, role_arn=ROLE, external_id="tenant-4"), environment) == "ASIAAUDIT"
    (request,) = sts.requests
    assert "Credential=AKIAENV/" in request.headers["authorization"]
    assert "/eu-central-1/sts/aws4_request" in request.headers["authorization"]
    assert parse_qs(request.body.decode())["ExternalId"] == ["tenant-4"]


async def test_profiles_of_the_shared_files(sts: Receiver, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = of-default\n"
        "[base]\naws_access_key_id=AKIABASE\naws_secret_access_key=of%base\n"
    )
    (tmp_path / "config").write_text(
        "[default]\nregion = eu-west-1\n[profile audit]\nrole_arn = arn:aws:iam::1:role/audit\nsource_profile = base\n"
        "external_id = tenant-5\n[profile loop]\nrole_arn = arn:aws:iam::1:role/a\nsource_profile = other\n"
        "[profile other]\nrole_arn = arn:aws:iam::1:role/b\nsource_profile = loop\n"
        "[profile sso]\nsso_session = corporate\n"
        "[profile from-env]\nrole_arn = arn:aws:iam::1:role/env\ncredential_source = Environment\n"
    )
    files = {
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
    }
    assert await key_of(given(), files) == "AKIADEFAULT"
    assert await key_of(given(), {**files, "AWS_PROFILE": "base"}) == "AKIABASE"
    assert await key_of(given(sts, profile="audit"), files) == "ASIAAUDIT"
    assert "Credential=AKIABASE/" in sts.requests[0].headers["authorization"]
    assert parse_qs(sts.requests[0].body.decode())["ExternalId"] == ["tenant-5"]
    environment = {"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "of-the-environment"}
    assert await key_of(given(sts, profile="from-env"), {**files, **environment}) == "ASIAENV"
    assert "no source_profile" in await key_of(given(profile="loop"), files)
    assert "has sso_session, which is not supported" in await key_of(given(profile="sso"), files)
    assert "no access key or role for the profile absent" in await key_of(given(profile="absent"), files)
    assert AwsAccess(AwsOptions(), "sinks.k", "kinesis", files).region == "eu-west-1"


async def test_a_file_that_is_none_of_awss_is_named_without_its_content(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text("hunter2 is no section\n")
    said = await key_of(given(), {"AWS_SHARED_CREDENTIALS_FILE": str(file)})
    assert str(file) in said
    assert "hunter2" not in said


async def test_the_credentials_of_a_container(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("pod-identity-token\n")
    async with receiving(lambda _: Reply(200, credentials("ASIAPOD")), None) as agent:
        environment = {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{agent.url}/v1/credentials?x=1",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token),
        }
        assert await key_of(given(), environment) == "ASIAPOD"
    assert agent.requests[0].target == "/v1/credentials?x=1"
    assert agent.requests[0].headers["authorization"] == "pod-identity-token"


@pytest.mark.parametrize("url", ["http://192.0.2.1/", "http://[x", "ftp://localhost/", "nothing"])
async def test_a_token_is_not_sent_in_the_clear_to_another_machine(url: str) -> None:
    environment = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": url, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "t"}
    assert "neither https nor an address of the machine" in await key_of(given(), environment)


async def test_the_credentials_of_a_machine() -> None:
    async with receiving(of_metadata, None) as imds:
        found = await Instance({"AWS_EC2_METADATA_SERVICE_ENDPOINT": imds.url}).find()
    assert isinstance(found, AwsCredentials)
    assert (found.access_key, found.session_token) == ("ASIAMACHINE", "the-token")
    first, second, third = imds.requests
    assert first.headers["x-aws-ec2-metadata-token-ttl-seconds"] == "21600"
    assert {second.headers["x-aws-ec2-metadata-token"], third.headers["x-aws-ec2-metadata-token"]} == {"imds-token"}
    assert third.target == "/latest/meta-data/iam/security-credentials/machine-role"


async def test_an_address_of_the_metadata_service_that_is_none_is_said() -> None:
    found = await Instance({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://[x"}).find()
    assert found == "AWS_EC2_METADATA_SERVICE_ENDPOINT is not a URL"


async def test_tls_files_that_are_gone_when_a_role_is_assumed_are_no_crash(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    options = given(role_arn=ROLE, access_key_id="AKIA", secret_access_key="a-secret", ca=str(ca))
    assert f"the receiver's CA file {ca} cannot be used" in await key_of(options, {})


Find = Callable[[], Any]


@pytest.mark.parametrize(
    "find",
    [lambda: Instance({}).find(), lambda: Container({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/c"}).find()],
    ids=["EC2", "ECS"],
)
async def test_the_machine_itself_is_not_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch, find: Find) -> None:
    asked = []

    async def resolve(host: str, port: int) -> list[Any]:
        asked.append((host, port))
        raise OSError("nobody is asked in this test")

    monkeypatch.setenv("http_proxy", "http://proxy.example.com:3128")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example.com:3128")
    monkeypatch.setattr(http_dial, "resolve", resolve)
    assert not isinstance(await find(), AwsCredentials)
    assert asked[0][0].startswith("169.254.")


async def test_when_there_are_none_all_that_was_tried_is_named() -> None:
    said = await key_of(given(), {})
    assert said.startswith("there are no AWS credentials for sinks.k; tried: options (")
    for name in ("environment", "web identity", "shared files", "container", "EC2 metadata"):
        assert f"{name} (" in said


async def test_a_place_that_is_set_up_and_fails_ends_the_search(tmp_path: Path) -> None:
    environment = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "absent"), "AWS_ROLE_ARN": ROLE}
    said = await key_of(given(), environment)
    assert "the file cannot be read (No such file or directory)" in said


@pytest.mark.parametrize(
    ("status", "body", "misconfigured", "words"),
    [
        (
            403,
            b"<Error><Code>AccessDenied</Code><Message>not you</Message></Error>",
            True,
            "AccessDenied not you",
        ),
        (400, b"<Error><Code>Throttling</Code><Message>slow down</Message></Error>", False, "Throttling slow down"),
        (503, b"busy", False, "answered 503 busy"),
        (200, b"<html>a portal</html>", False, "holds no credentials"),
    ],
)
async def test_what_the_token_service_says_is_shown(
    sts: Receiver, status: int, body: bytes, misconfigured: bool, words: str
) -> None:
    sts.script.append(answer(status, body))
    options = given(sts, role_arn=ROLE, access_key_id="AKIA", secret_access_key="a-secret")
    access = AwsAccess(options, "sinks.k", "kinesis", {})
    said = await access.sign("POST", URL_, b"", {})
    await access.close()
    assert isinstance(said, Retry)
    assert said.misconfigured is misconfigured
    assert words in said.reason
    assert ROLE in said.reason


async def test_what_was_found_is_known_as_secret(sts: Receiver) -> None:
    await key_of(given(sts, role_arn=ROLE, access_key_id="AKIA", secret_access_key="hunter2-of-aws"), {})
    assert without_secrets("hunter2-of-aws, secret-of-AUDIT and token/+=&") == "***, *** and ***"


class Scripted:
    """A source that gives one thing after the other."""

    name = "scripted"

    def __init__(self, *found: Found) -> None:
        self.left = list(found)

    async def find(self) -> Found:
        await asyncio.sleep(0)
        return self.left.pop(0)


def lasting(key: str, renew: float, expires: float) -> AwsCredentials:
    return AwsCredentials(key, "secret", "token", time() + renew, time() + expires)


async def test_credentials_are_kept_and_asked_for_once_by_all_who_wait() -> None:
    keeper = Keeper([Scripted(lasting("A", HOUR, HOUR))], "sinks.k")
    found = await asyncio.gather(*(keeper.get() for _ in range(3)))
    assert [one.access_key for one in found if isinstance(one, AwsCredentials)] == ["A"] * 3


async def test_credentials_are_renewed_before_they_end_and_stay_while_that_fails() -> None:
    source = Scripted(lasting("A", -1.0, HOUR), Retry("not now"), lasting("B", HOUR, HOUR))
    keeper = Keeper([source], "sinks.k")
    assert (await keeper.get()).access_key == "A"  # type: ignore[union-attr]
    with capture_logs() as lines:
        found = [await keeper.get() for _ in range(3)]
    assert [one.access_key for one in found if isinstance(one, AwsCredentials)] == ["A"] * 3
    assert [line["error"] for line in lines] == ["not now"]  # and it is not tried again at once
    keeper.forget()
    assert (await keeper.get()).access_key == "B"  # type: ignore[union-attr]


async def test_credentials_that_have_ended_are_not_used() -> None:
    keeper = Keeper([Scripted(lasting("A", -2.0, -1.0), Retry("not now"))], "sinks.k")
    await keeper.get()
    assert await keeper.get() == Retry("not now")


async def test_a_secret_in_a_file_is_taken_up_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("the-first")
    options = given(access_key_id="AKIA", secret_access_key_file=str(file))
    access = AwsAccess(options, "sinks.k", "kinesis", {})
    first = await access._keeper.get()
    file.write_text("the-second-one")
    second = await access._keeper.get()
    assert isinstance(first, AwsCredentials)
    assert isinstance(second, AwsCredentials)
    assert (first.secret_key, second.secret_key) == ("the-first", "the-second-one")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"region": ""}, "has no region"),
        ({"region": "Frankfurt am Main"}, "cannot be one"),
        ({"access_key_id": "AKIA"}, r"secret-access-key and .* are missing"),
        ({"secret_access_key": "hunter2"}, "access-key-id is missing"),
        ({"access_key_id": "AKIA", "secret_access_key": "hunter2", "profile": "p"}, "set together"),
        ({"external_id": "e"}, "without sinks.k.role-arn"),
        ({"session_token": "hunter2\n", "access_key_id": "A", "secret_access_key": "s"}, "no header can hold"),
        ({"sts_endpoint": "ftp://x"}, "sts-endpoint is not a URL"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, str], words: str) -> None:
    environment = {"AWS_CONFIG_FILE": "/no", "AWS_SHARED_CREDENTIALS_FILE": "/no"}
    with pytest.raises(SinkError, match=words) as raised:
        AwsAccess(AwsOptions(**{"region": "eu-central-1", **options}), "sinks.k", "kinesis", environment)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("eu-central-1", "kinesis.eu-central-1.amazonaws.com"),
        ("us-gov-west-1", "kinesis.us-gov-west-1.amazonaws.com"),
        ("cn-north-1", "kinesis.cn-north-1.amazonaws.com.cn"),
        ("eusc-de-east-1", "kinesis.eusc-de-east-1.amazonaws.eu"),
        ("us-isob-east-1", "kinesis.us-isob-east-1.sc2s.sgov.gov"),
    ],
)
def test_each_partition_has_its_domain(region: str, host: str) -> None:
    access = AwsAccess(AwsOptions(region=region), "sinks.k", "kinesis", {})
    assert access.url("") == URL(f"https://{host}/")
    with pytest.raises(SinkError, match="holds a password"):
        access.url("https://user:hunter2@example.com/")
