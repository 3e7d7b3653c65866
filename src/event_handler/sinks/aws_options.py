"""What every sink of AWS can be set to: region, address, and whose credentials sign its requests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from yarl import URL

from event_handler.errors import SinkError
from event_handler.setting import Setting
from event_handler.sinks.aws_profiles import Profiles
from event_handler.sinks.http_options import HttpOptions

REGION = re.compile(r"[a-z0-9-]{1,32}")
# The domain of the partitions that have one of their own, by how the names of their regions begin.
DOMAINS = {
    "cn-": "amazonaws.com.cn",
    "eusc-": "amazonaws.eu",
    "us-iso-": "c2s.ic.gov",
    "us-isob-": "sc2s.sgov.gov",
}
DOMAIN = "amazonaws.com"


class AwsLoginOptions(HttpOptions):
    """Where credentials come from: without any of these, from where AWS's own tools take them too."""

    region: Annotated[str, Setting("text", "AWS region", unset="AWS_REGION, or that of the profile")] = ""
    access_key_id: Annotated[
        str, Setting("text", "access key", unset="credentials are looked for (docs/sinks/aws.md)")
    ] = ""
    secret_access_key: Annotated[
        str,
        Setting("text", "its secret; better in secret-access-key-file or the variable", secret=True),
        Field(repr=False),
    ] = ""
    secret_access_key_file: Annotated[
        str, Setting("file", "file with the secret access key; it is read again when it changes")
    ] = ""
    session_token: Annotated[
        str, Setting("text", "session token of a temporary access key", secret=True), Field(repr=False)
    ] = ""
    profile: Annotated[str, Setting("text", "profile of the shared AWS files", unset="AWS_PROFILE, or `default`")] = ""
    role_arn: Annotated[str, Setting("text", "role that is assumed with these credentials")] = ""
    external_id: Annotated[str, Setting("text", "external id that the role asks for")] = ""
    sts_endpoint: Annotated[str, Setting("url", "address of the token service (STS)", unset="AWS's in the region")] = ""


class AwsOptions(AwsLoginOptions):
    """The same, with an address for what stands in for AWS."""

    url: Annotated[str, Setting("url", "address of the service: a VPC endpoint, FIPS", unset="AWS's in the region")] = (
        ""
    )


def region_of(options: AwsLoginOptions, section: str, environment: Mapping[str, str]) -> str:
    """The region of the options, of the environment or of the profile. Raises SinkError when there is none."""
    found = options.region or environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    if not found:
        found = Profiles(environment, options.profile).region()
    if not REGION.fullmatch(found):
        what = f"has a region that cannot be one ({found!r})" if found else "has no region, nor has the environment"
        raise SinkError(f"{section} {what}", f"Set {section}.region, as eu-central-1, or AWS_REGION.")
    return found


def service_url(options: AwsLoginOptions, service: str, region: str, given: str, option: str) -> URL:
    """The URL that was `given` in an option, or AWS's own of the service. Raises SinkError for one that is none."""
    domain = next((one for start, one in DOMAINS.items() if region.startswith(start)), DOMAIN)
    url = options.address(given or f"https://{service}.{region}.{domain}/", option)
    if url.raw_user or url.raw_password:
        raise SinkError(f"{option} holds a password, and AWS takes signatures only", "Remove it.")
    return url
