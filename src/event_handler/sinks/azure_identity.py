"""Access tokens of Microsoft Entra ID: for an application with a secret, a certificate or a federated token, and for
the managed identity of the machine that we run on.

Facts: Microsoft's "client credentials grant", "Certificate credentials", "How to use managed identities to get an
access token" for virtual machines, App Service and Arc, and "Workload identity" for Kubernetes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from time import time
from typing import Annotated, Literal
from uuid import uuid4

from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import Field
from yarl import URL

from event_handler.errors import SinkError
from event_handler.ports import Retry
from event_handler.setting import Setting
from event_handler.sinks.access_token import Token, TokenSource
from event_handler.sinks.http import DIRECT, MISCONFIGURED_WAIT, endpoint
from event_handler.sinks.http_options import HttpOptions
from event_handler.sinks.secret import Secret
from event_handler.sinks.signed_jwt import ASSERTION, base64url, certificate_and_key, read, signed
from event_handler.sinks.token_endpoint import FormSource, MetadataSource, TokenEndpoint, form_client, metadata_client

ASSERTION_SECONDS = 600  # that a signed assertion is good for; Entra ID takes no longer ones
LARGEST_ARC_KEY = 4096  # bytes of a file that Arc's agent writes as a challenge; a larger one is not its
IMDS = "http://169.254.169.254"
IMDS_VARIABLE = "AZURE_POD_IDENTITY_AUTHORITY_HOST"  # another address of it, as Microsoft's own libraries have it
ENTRA_ID = {
    "public": "https://login.microsoftonline.com",
    "government": "https://login.microsoftonline.us",
    "china": "https://login.chinacloudapi.cn",
}
TENANT_NAME = re.compile(r"[A-Za-z0-9._-]+")  # a tenant's id or domain

AzureCloud = Literal["public", "government", "china"]
AzureLogin = Literal["client-secret", "client-certificate", "managed-identity", "workload-identity"]


class AzureOptions(HttpOptions):
    """How to sign in at Entra ID."""

    login: Annotated[AzureLogin, Setting("choice", "how to sign in at Entra ID")] = "client-secret"
    tenant_id: Annotated[
        str, Setting("text", "id of the tenant", unset="AZURE_TENANT_ID for workload-identity, else none")
    ] = ""
    client_id: Annotated[
        str,
        Setting(
            "text",
            "id of the application, or of a user-assigned managed identity",
            unset="AZURE_CLIENT_ID for workload-identity, else none",
        ),
    ] = ""
    client_secret: Annotated[
        str,
        Setting("text", "secret of the application; better in client-secret-file or the variable", secret=True),
        Field(repr=False),
    ] = ""
    client_secret_file: Annotated[str, Setting("file", "file with that secret; it is read again when it changes")] = ""
    client_certificate: Annotated[
        str, Setting("file", "PEM file with the application's certificate and its RSA key")
    ] = ""
    federated_token_file: Annotated[
        str, Setting("file", "file with the token of workload-identity", unset="AZURE_FEDERATED_TOKEN_FILE")
    ] = ""
    cloud: Annotated[AzureCloud, Setting("choice", "which of Microsoft's clouds")] = "public"
    authority: Annotated[
        str, Setting("url", "address of Entra ID", unset="that of the cloud, or AZURE_AUTHORITY_HOST")
    ] = ""


def azure_source(options: AzureOptions, section: str, resource: str, environment: Mapping[str, str]) -> TokenSource:
    """Where tokens for `resource` come from. Raises SinkError for options that contradict one another."""
    _only_what_the_login_needs(options, section)
    if options.login == "managed-identity":
        return _managed(options, section, resource, environment)
    workload = options.login == "workload-identity"
    tenant = options.tenant_id or (environment.get("AZURE_TENANT_ID", "") if workload else "")
    client = options.client_id or (environment.get("AZURE_CLIENT_ID", "") if workload else "")
    for name, value in (("tenant-id", tenant), ("client-id", client)):
        if not TENANT_NAME.fullmatch(value):
            raise SinkError(f"{section}.{name} is missing, or it is none", f"Set it: login is {options.login}.")
    authority = options.authority or environment.get("AZURE_AUTHORITY_HOST", "") or ENTRA_ID[options.cloud]
    base = options.address(authority, f"{section}.authority")
    url = base.with_path(f"{base.path.rstrip('/')}/{tenant}/oauth2/v2.0/token")
    form = {"grant_type": "client_credentials", "client_id": client, "scope": f"{resource}/.default"}
    proof, checked = _proof(options, section, client, str(url), environment)
    asking = TokenEndpoint(
        section,
        form_client(options, section),
        url=f"{section}.authority and {section}.tenant-id",
        check=f"{checked}, {section}.client-id and {section}.tenant-id",
        by_error={"invalid_scope": f"{section}.cloud", "invalid_resource": f"{section}.cloud"},
    )
    return FormSource(asking, url, lambda: ({**form, **proof()}, ""))


def _only_what_the_login_needs(options: AzureOptions, section: str) -> None:
    given = {
        "client-secret": bool(options.client_secret or options.client_secret_file),
        "client-certificate": bool(options.client_certificate),
        "federated-token-file": bool(options.federated_token_file),
    }
    needed = {"workload-identity": "federated-token-file"}.get(options.login, options.login)
    if other := [f"{section}.{name}" for name, set_ in given.items() if set_ and name != needed]:
        raise SinkError(
            f"{' and '.join(other)} stands beside login = {options.login}, which does not use it",
            f"Remove it, or set {section}.login.",
        )


class _SecretProof:
    def __init__(self, options: AzureOptions, section: str) -> None:
        self._secret = Secret(options.client_secret, options.client_secret_file, f"{section}.client-secret")

    def __call__(self) -> dict[str, str]:
        self._secret.changed()
        return {"client_secret": self._secret.value}


class _CertificateProof:
    """An assertion signed with the key of a certificate; the file is read for each, so a renewed one is taken up."""

    def __init__(self, file: str, option: str, client: str, audience: str) -> None:
        if not file:
            raise SinkError(f"{option} is missing", "Set it to a PEM file with the certificate and its key.")
        self._file = file
        self._option = option
        self._claims = {"aud": audience, "iss": client, "sub": client}
        certificate_and_key(file, option)

    def __call__(self) -> dict[str, str]:
        certificate, key = certificate_and_key(self._file, self._option)
        print_ = base64url(hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest())
        now = int(time())
        claims = {**self._claims, "jti": str(uuid4()), "nbf": now, "iat": now, "exp": now + ASSERTION_SECONDS}
        assertion = signed({"x5t#S256": print_}, claims, key, "PS256")
        return {"client_assertion_type": ASSERTION, "client_assertion": assertion}


class _FederatedProof:
    """The token of a Kubernetes service account, as it stands in the file: Kubernetes renews it there."""

    def __init__(self, file: str, option: str) -> None:
        if not file:
            raise SinkError(
                f"{option} is missing, and so is AZURE_FEDERATED_TOKEN_FILE",
                "Label the pod azure.workload.identity/use: true, or set the option.",
            )
        self._file = file
        self._option = option

    def __call__(self) -> dict[str, str]:
        token = read(self._file, self._option).decode("ascii", "replace").strip()
        if not token:
            raise SinkError(f"{self._option} {self._file} is empty", "Check the path.")
        return {"client_assertion_type": ASSERTION, "client_assertion": token}


_Proof = _SecretProof | _CertificateProof | _FederatedProof


def _proof(
    options: AzureOptions, section: str, client: str, audience: str, environment: Mapping[str, str]
) -> tuple[_Proof, str]:
    """What proves who we are, and the option that it is from."""
    if options.login == "client-secret":
        return _SecretProof(options, section), f"{section}.client-secret"
    if options.login == "client-certificate":
        option = f"{section}.client-certificate"
        return _CertificateProof(options.client_certificate, option, client, audience), option
    option = f"{section}.federated-token-file"
    file = options.federated_token_file or environment.get("AZURE_FEDERATED_TOKEN_FILE", "")
    return _FederatedProof(file, option), option


def _managed(options: AzureOptions, section: str, resource: str, environment: Mapping[str, str]) -> TokenSource:
    asked = {"resource": resource}
    if options.client_id:
        asked["client_id"] = options.client_id
    given, header = environment.get("IDENTITY_ENDPOINT", ""), environment.get("IDENTITY_HEADER", "")
    headers, version = {"Metadata": "true"}, "2018-02-01"
    base = endpoint(given or IMDS, "IDENTITY_ENDPOINT", proxy=DIRECT)
    if given and header:  # App Service, Functions, Container Apps
        headers, version = {"X-IDENTITY-HEADER": header}, "2019-08-01"
    elif given and environment.get("IMDS_ENDPOINT"):  # Azure Arc
        version = "2020-06-01"
    else:  # a virtual machine, AKS
        base = endpoint(environment.get(IMDS_VARIABLE, "") or IMDS, IMDS_VARIABLE, proxy=DIRECT)
        base = base.with_path("/metadata/identity/oauth2/token")
    url = base.with_query({"api-version": version, **asked})
    asking = TokenEndpoint(
        section,
        metadata_client(section, headers),
        url=f"{section}.login (does this machine have a managed identity?)",
        check=f"that this machine has a managed identity, and {section}.client-id",
    )
    return ArcSource(asking, url, section) if version == "2020-06-01" else MetadataSource(asking, url)


class ArcSource:
    """Tokens of a machine that Azure Arc manages. Its agent wants to see that we may read a file that it names."""

    def __init__(
        self, endpoint: TokenEndpoint, url: URL, section: str, keys: Path = Path("/var/opt/azcmagent/tokens")
    ) -> None:
        self._endpoint = endpoint
        self._url = url
        self._section = section
        self._keys = keys

    async def fetch(self) -> Token | Retry:
        answer = await self._endpoint.get(self._url)
        if isinstance(answer, Retry) or answer.status != 401:
            return self._endpoint.token(self._url, answer)
        file = Path(answer.challenge.partition("=")[2].strip('" '))
        if file.suffix != ".key" or file.parent != self._keys:
            reason = (
                f"no access token: {self._url.origin()} names no file below {self._keys}; check {self._section}.login"
            )
            return Retry(reason, MISCONFIGURED_WAIT, misconfigured=True)
        try:
            if file.stat().st_size > LARGEST_ARC_KEY:
                raise ValueError
            key = file.read_bytes().decode("ascii").strip()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is no key of Azure Arc's agent"
            reason = f"no access token: {file} cannot be read ({why})"
            hint = "the user of this process must be a member of the group himds"
            return Retry(f"{reason}; {hint}", MISCONFIGURED_WAIT, misconfigured=True)
        again = await self._endpoint.get(self._url, f"Basic {key}")
        return self._endpoint.token(self._url, again)

    def reload(self) -> None:
        """There are no files that stay."""

    async def close(self) -> None:
        await self._endpoint.close()
