"""Prints docs/licences.md: what the archive, the packages and the image bring of others, and under which licence.

Raises RefusedError for a licence that is not known, or that would bind the whole (GPL, AGPL).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata

from deploy.bundle.bundle import LOCK

LINE = re.compile(r"^([a-z0-9._-]+)==(\S+)", re.MULTILINE)
# Tools of the build, and what only other systems or older Pythons need.
NOT_SHIPPED = frozenset(
    [
        "altgraph",
        "async-timeout",
        "macholib",
        "packaging",
        "pefile",
        "pyinstaller",
        "pyinstaller-hooks-contrib",
        "pywin32-ctypes",
        "setuptools",
        "tzdata",
    ]
)
SPDX = {  # what packages without a licence expression say, as SPDX names it
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
}
# The last one is psycopg's: in the archive it is a library of its own, which may be replaced.
ACCEPTED = frozenset(
    [
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "EPL-2.0",
        "ISC",
        "MIT",
        "MIT-0",
        "MPL-2.0",
        "PSF-2.0",
        "LGPL-3.0-only",
    ]
)
HEAD = """\
# Licences

<!-- Made by `make licences`; a test compares. Do not edit. -->

The event handler is under the Apache License 2.0 (`LICENSE`). The archive, the Debian and RPM packages and the image
bring these packages as well, in the versions of `requirements/bundle.lock`; where a licence offers a choice with "OR",
we take the first. The full texts are in the directory `licences` of each.

| package | version | licence |
|---|---|---|
"""
TAIL = """
They also bring Python (PSF-2.0) with OpenSSL (Apache-2.0), SQLite (public domain) and other libraries of the system
that they were made on, and the starter of PyInstaller (GPL-2.0-or-later with an exception for what it starts).
psycopg-binary has libpq, confluent-kafka has librdkafka, with licences of their own.
"""


class RefusedError(Exception):
    """A package whose licence nobody has looked at, or that we cannot ship."""


def shipped() -> Iterator[tuple[str, str]]:
    """Names and versions."""
    for name, version in LINE.findall(LOCK.read_text()):
        if name not in NOT_SHIPPED:
            yield name, version


def licence(name: str) -> str:
    """As an SPDX expression. Raises PackageNotFoundError where it is not installed."""
    told = metadata(name).json
    said = str(told.get("license_expression") or told.get("license") or "")
    texts = [text for text in told.get("classifier", ()) if text.startswith("License")]
    classifiers = [text.rpartition(" :: ")[2] for text in texts]
    if not said or "\n" in said:  # none, or the whole text
        said = classifiers[0] if classifiers else "unknown"
    return SPDX.get(said, said)


def accept(name: str, expression: str) -> None:
    """Raises RefusedError unless one of the choices has accepted parts only."""
    plain = expression.replace("(", "").replace(")", "")
    choices = plain.split(" OR ") if " AND " not in plain else [plain.replace(" OR ", " AND ")]
    if not any(set(choice.split(" AND ")) <= ACCEPTED for choice in choices):
        raise RefusedError(f"{name} is under {expression}, which is not among the accepted licences of {__file__}")


def row(name: str, version: str) -> str:
    expression = licence(name)
    accept(name, expression)
    return f"| {name} | {version} | {expression} |"


def main() -> None:
    print(HEAD + "\n".join(row(*one) for one in shipped()) + "\n" + TAIL, end="")


def installed(name: str) -> bool:
    try:
        metadata(name)
    except PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
