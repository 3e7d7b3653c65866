"""Where AWS credentials may stand: in options, variables, files, or behind a token of Kubernetes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from math import inf
from time import time
from typing import Protocol

from event_handler import redact
from event_handler.errors import SinkError
from event_handler.ports import Retry
from event_handler.sinks.aws_metadata import Container, Found, Instance
from event_handler.sinks.aws_options import AwsLoginOptions
from event_handler.sinks.aws_profiles import Profiles
from event_handler.sinks.aws_signing import AwsCredentials
from event_handler.sinks.aws_sts import SESSION, Sts
from event_handler.sinks.http import MISCONFIGURED_WAIT
from event_handler.sinks.secret import Secret

FILES_AGE = 60.0  # seconds until the shared files are read again; other programs write new keys into them
DEEPEST_PROFILE = 5  # profiles that may stand behind one another, each with a role


class Source(Protocol):
    """A place of credentials. A Retry ends the search: others must not be used where these were meant."""

    name: str

    async def find(self) -> Found: ...


class OptionKeys:
    """The access key in the options. Raises SinkError where a part is missing or cannot be used."""

    name = "options"

    def __init__(self, options: AwsLoginOptions, section: str) -> None:
        self._options = options
        secret, file = options.secret_access_key, options.secret_access_key_file
        self._secret: Secret | None = None
        if options.access_key_id:
            self._secret = Secret(secret, file, f"{section}.secret-access-key")
        elif secret or file or options.session_token:
            raise SinkError(f"{section}.access-key-id is missing beside its secret", "Set both.")
        if options.access_key_id and options.profile:
            raise SinkError(f"{section}.access-key-id and {section}.profile are set together", "Set one of them.")
        for option, text in (("access-key-id", options.access_key_id), ("session-token", options.session_token)):
            if not text.isascii() or (text and not text.isprintable()):
                raise SinkError(f"{section}.{option} has a character that no header can hold", "Correct it.")
        redact.know([options.session_token])

    async def find(self) -> Found:
        if self._secret is None:
            return "access-key-id is not set"
        self._secret.changed()
        renew = 0.0 if self._options.secret_access_key_file else inf  # the file is looked at for every request
        return AwsCredentials(self._options.access_key_id, self._secret.value, self._options.session_token, renew)


class Environment:
    """The variables AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN."""

    name = "environment"

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    async def find(self) -> Found:
        key, secret, token = (
            self._environment.get(f"AWS_{name}", "").strip()
            for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")
        )
        if not key or not secret:
            return "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both set"
        return _lasting(key, secret, token, inf, "the variables AWS_ACCESS_KEY_ID and on")


class WebIdentity:
    """A role for the token in a file, as EKS gives it to pods (IAM roles for service accounts)."""

    name = "web identity"

    def __init__(self, environment: Mapping[str, str], sts: Sts) -> None:
        self._environment = environment
        self._sts = sts

    async def find(self) -> Found:
        file, role = (self._environment.get(name, "") for name in ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"))
        if not file or not role:
            return "AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN are not both set"
        return await self._sts.with_web_identity(role, file, self._environment.get("AWS_ROLE_SESSION_NAME") or SESSION)


class SharedFiles:
    """A profile of `~/.aws/credentials` and `~/.aws/config`: its keys, or a role that it assumes.

    `needed` when the profile was named in an option, so that its absence is no reason to look elsewhere.
    """

    name = "shared files"

    def __init__(self, environment: Mapping[str, str], profiles: Profiles, sts: Sts, *, needed: bool) -> None:
        self._profiles = profiles
        self._sts = sts
        self._needed = needed
        self._named: dict[str, Source] = {
            "Environment": Environment(environment),
            "EcsContainer": Container(environment),
            "Ec2InstanceMetadata": Instance(environment),
        }

    async def find(self) -> Found:
        found = await self._of(self._profiles.name, DEEPEST_PROFILE)
        if isinstance(found, str) and self._needed:
            return _unusable(found)
        return found

    async def _of(self, name: str, depth: int) -> Found:
        try:
            profile = await asyncio.to_thread(self._profiles.read, name)
        except ValueError as error:
            return _unusable(str(error))
        key, secret = profile.get("aws_access_key_id", ""), profile.get("aws_secret_access_key", "")
        if role := profile.get("role_arn"):
            return await self._assumed(name, role, profile, depth)
        if key and secret:
            what = f"the profile {name}"
            return _lasting(key, secret, profile.get("aws_session_token", ""), time() + FILES_AGE, what)
        if other := [one for one in ("credential_process", "sso_session", "sso_start_url") if profile.get(one)]:
            return _unusable(
                f"the profile {name} has {other[0]}, which is not supported; give it an access key or role"
            )
        return f"no access key or role for the profile {name} in {self._profiles.files}"

    async def _assumed(self, name: str, role: str, profile: Mapping[str, str], depth: int) -> Found:
        if file := profile.get("web_identity_token_file"):
            return await self._sts.with_web_identity(role, file, profile.get("role_session_name") or SESSION)
        source, origin = profile.get("source_profile", ""), profile.get("credential_source", "")
        found: Found = f"no source_profile or credential_source for the role of the profile {name}"
        if source == name:  # its own keys
            found = _lasting(
                profile.get("aws_access_key_id", ""),
                profile.get("aws_secret_access_key", ""),
                profile.get("aws_session_token", ""),
                inf,
                f"the profile {name}",
            )
        elif source and depth:
            found = await self._of(source, depth - 1)
        elif origin in self._named:
            found = await self._named[origin].find()
        if isinstance(found, str):
            return _unusable(found)
        if isinstance(found, Retry):
            return found
        return await self._sts.assume_role(found, role, profile.get("external_id", ""))


def sources(options: AwsLoginOptions, section: str, environment: Mapping[str, str], sts: Sts) -> list[Source]:
    """Where to look, in this order. What the options name is the only place then."""
    keys = OptionKeys(options, section)
    files = SharedFiles(environment, Profiles(environment, options.profile), sts, needed=bool(options.profile))
    if options.access_key_id or options.profile:
        return [keys if options.access_key_id else files]
    return [
        keys,
        Environment(environment),
        WebIdentity(environment, sts),
        files,
        Container(environment),
        Instance(environment),
    ]


def _lasting(key: str, secret: str, token: str, renew: float, what: str) -> Found:
    """Credentials that do not end, as far as is known."""
    if not (key and secret) or not all(text.isascii() and text.isprintable() for text in (key, secret, token)):
        return _unusable(f"the access key of {what} is not complete, or has a character that no header can hold")
    redact.know([secret, token])
    return AwsCredentials(key, secret, token, renew)


def _unusable(reason: str) -> Retry:
    return Retry(reason, MISCONFIGURED_WAIT, misconfigured=True)
