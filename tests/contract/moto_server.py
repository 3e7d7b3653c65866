"""moto, which stands in for AWS and can check signatures as AWS does: `pip install 'moto[server]'` in an environment of
its own.

EVENT_HANDLER_MOTO names the directory of that environment where it is elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from yarl import URL

from event_handler.sinks.aws_signing import AwsCredentials, signed
from tests.contract.ports import free_ports
from tests.contract.server_process import listens, serving
from tests.support.receiver_cache import place

PLACE = place("moto", "EVENT_HANDLER_MOTO")
SERVER, PYTHON = PLACE / "bin" / "moto_server", PLACE / "bin" / "python"
START = 60.0  # seconds that it may take to start on a loaded machine
REGION = "eu-central-1"
ANYBODY = AwsCredentials("AKIDEXAMPLE", "any-secret-does")
# Requests that moto takes from anybody: the user, the key and the policy that are made at the start.
UNCHECKED = 3
ALLOWED = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}'
JSON = {"kinesis": "Kinesis_20131202", "firehose": "Firehose_20150804", "sqs": "AmazonSQS", "logs": "Logs_20140328"}


def no_moto() -> str:
    """Why there is no moto, "" where there is."""
    if SERVER.is_file():
        return ""
    return f"there is no moto in {PLACE}: make receivers fetches it"


@dataclass(frozen=True, slots=True)
class Moto:
    """A server that takes signatures of `credentials` only."""

    url: str
    credentials: AwsCredentials = ANYBODY

    def options(self) -> dict[str, Any]:
        return {
            "url": f"{self.url}/",
            "sts_endpoint": f"{self.url}/",
            "region": REGION,
            "access_key_id": self.credentials.access_key,
            "secret_access_key": self.credentials.secret_key,
        }

    def ask(self, service: str, action: str, **what: Any) -> dict[str, Any]:
        """Call a service that speaks JSON. Raises OSError for an error."""
        headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"{JSON[service]}.{action}"}
        found = self.send(service, "POST", "/", json.dumps(what).encode(), headers)
        said: dict[str, Any] = json.loads(found or b"{}")
        return said

    def query(self, service: str, action: str, version: str, **what: str) -> str:
        """Call a service that takes forms and answers in XML. Raises OSError for an error."""
        body = urllib.parse.urlencode({"Action": action, "Version": version, **what}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.send(service, "POST", "/", body, headers).decode()

    def make_bucket(self, name: str) -> None:
        place = (
            f"<CreateBucketConfiguration><LocationConstraint>{REGION}</LocationConstraint></CreateBucketConfiguration>"
        )
        self.send("s3", "PUT", f"/{name}", place.encode(), {"Content-Type": "application/xml"})

    async def asked(self, service: str, action: str, **what: Any) -> dict[str, Any]:
        return await asyncio.to_thread(lambda: self.ask(service, action, **what))

    def send(self, service: str, method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
        url = URL(f"{self.url}{path}")
        made = signed(self.credentials, REGION, service, datetime.now(UTC), method, url, body, headers)
        request = urllib.request.Request(str(url), body, made, method=method)  # noqa: S310 - on loopback
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - on loopback
            content: bytes = answer.read()
        return content


@contextlib.contextmanager
def running(scratch: Path) -> Iterator[Moto]:
    """A server that checks signatures, with a user who may do everything."""
    (port,) = free_ports(1)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("AWS_") and name != "PYTHONPATH"
    }
    environment["INITIAL_NO_AUTH_ACTION_COUNT"] = str(UNCHECKED)
    command = [str(SERVER), "-H", "127.0.0.1", "-p", str(port)]
    with serving(command, scratch / "moto.log", lambda: listens(port), START, environment):
        yield _with_user(Moto(f"http://127.0.0.1:{port}"))


def _with_user(moto: Moto) -> Moto:
    version = "2010-05-08"
    moto.query("iam", "CreateUser", version, UserName="teleport")
    answer = moto.query("iam", "CreateAccessKey", version, UserName="teleport")
    policy = {"UserName": "teleport", "PolicyName": "all", "PolicyDocument": ALLOWED}
    moto.query("iam", "PutUserPolicy", version, **policy)
    key, secret = (re.findall(rf"<{name}>([^<]+)<", answer)[0] for name in ("AccessKeyId", "SecretAccessKey"))
    return Moto(moto.url, AwsCredentials(key, secret))
