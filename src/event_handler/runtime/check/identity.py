"""The files that prove who we are to Teleport: there, readable by us alone, of one piece, and valid now."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from event_handler.config.model import StartSettings
from event_handler.errors import ConfigurationError, CredentialsError
from event_handler.runtime.check.finding import Finding, fault, ok, warning
from event_handler.teleport.auth import credentials
from event_handler.teleport.auth.credentials import RENEW, TIME, Credentials

IDENTITY_AREA = "identity"
LONGEST_TRAITS = 200  # characters
SOON = timedelta(hours=24)
OTHERS = stat.S_IRWXG | stat.S_IRWXO
# tbot's identities live for an hour and are renewed each twenty minutes; who lives so short is renewed by somebody.
RENEWED = timedelta(hours=12)


def check_identity(settings: StartSettings) -> Iterator[tuple[Finding, Credentials | None]]:
    """The findings, with the credentials where they can be used."""
    files = settings.teleport_identity, settings.teleport_cert, settings.teleport_key, settings.teleport_ca
    for path in (settings.teleport_identity, settings.teleport_key):
        if path and (finding := _mode(path)):
            yield finding, None
    try:
        found = credentials.load(*files)
        found.check_not_expired()
    except (ConfigurationError, CredentialsError) as error:
        yield fault(IDENTITY_AREA, error), None
        return
    now = datetime.now(UTC)
    if found.not_before > now:
        when = f"{found.not_before:{TIME}}"
        what = f"by this machine's clock the certificate in {found.source} is not valid before {when}"
        yield fault(IDENTITY_AREA, what, "Set the clock of this machine (`date -u`, NTP)."), None
        return
    left = found.not_after - now
    if left < SOON and found.not_after - found.not_before > RENEWED:
        yield (
            warning(IDENTITY_AREA, f"the certificate in {found.source} expires at {found.not_after:{TIME}}", RENEW),
            None,
        )
    yield ok(IDENTITY_AREA, f"{_who(found)}, of the cluster {found.cluster}, until {found.not_after:{TIME}}"), found


def _mode(path: str) -> Finding | None:
    """Who may read a private key may be us. One that is not ours is read by its group, as Kubernetes mounts Secrets."""
    try:
        status = Path(path).stat()
    except OSError:
        return None  # which loading it says better
    mode = status.st_mode
    by_group = os.geteuid() not in (0, status.st_uid)
    if not mode & (OTHERS & ~stat.S_IRGRP if by_group else OTHERS):
        return None
    return warning(
        IDENTITY_AREA, f"{path} may be read by other users ({stat.filemode(mode)})", f"Run: chmod 600 {path}"
    )


def _who(found: Credentials) -> str:
    """The user and the roles that the certificate names."""
    leaf = x509.load_pem_x509_certificate(found.certificate_pem)
    user = [str(one.value) for one in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    roles = [str(one.value) for one in leaf.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    return f"user {', '.join(user) or 'without a name'} with the roles {', '.join(roles) or 'none'}{_traits(leaf)}"


def _traits(leaf: x509.Certificate) -> str:
    """What the roles' templates see of the user, "" where that is nothing: JSON in the postal code of the subject."""
    texts = [str(one.value) for one in leaf.subject.get_attributes_for_oid(NameOID.POSTAL_CODE)]
    try:
        traits = json.loads(texts[0]) if texts else None
    except ValueError:
        return ""
    if not isinstance(traits, dict) or not traits:
        return ""
    named = [f"{name}={'|'.join(map(str, values))}" for name, values in traits.items() if isinstance(values, list)]
    text = ", ".join(named)
    shown = text if len(text) <= LONGEST_TRAITS else f"{text[:LONGEST_TRAITS]}…"
    return f", the traits {shown}" if named else ""
