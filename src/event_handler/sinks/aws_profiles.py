"""Reads the shared files of AWS's tools, `~/.aws/credentials` and `~/.aws/config`."""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from pathlib import Path

PLACES = (("AWS_CONFIG_FILE", "config"), ("AWS_SHARED_CREDENTIALS_FILE", "credentials"))  # the last one wins


class Profiles:
    """`chosen` is the profile of an option, "" for that of the environment."""

    def __init__(self, environment: Mapping[str, str], chosen: str = "") -> None:
        self.name = chosen or environment.get("AWS_PROFILE") or "default"
        self._files = [
            (name, Path(environment.get(variable) or f"~/.aws/{name}").expanduser()) for variable, name in PLACES
        ]

    def read(self, profile: str) -> dict[str, str]:
        """What both files say of a profile, {} where they know none of that name. Raises ValueError, without content.

        An empty value in the file of credentials hides that of the other one.
        """
        found: dict[str, str] = {}
        for name, file in self._files:
            parser = configparser.RawConfigParser(default_section="\0", strict=False)
            try:
                parser.read_string(file.read_text())
            except FileNotFoundError:
                continue
            except OSError as error:
                raise ValueError(f"{file} cannot be read ({error.strerror})") from None
            except (configparser.Error, UnicodeDecodeError):
                raise ValueError(f"{file} cannot be read (it is not in the form of AWS's files)") from None
            plain = name == "credentials" or (profile == "default" and parser.has_section(profile))
            section = profile if plain else f"profile {profile}"
            if parser.has_section(section):
                found |= dict(parser.items(section))
        return found

    def region(self) -> str:
        """The region of the profile, "" where it has none or the files cannot be read."""
        try:
            return self.read(self.name).get("region", "")
        except ValueError:
            return ""

    @property
    def files(self) -> str:
        return " and ".join(str(file) for _, file in reversed(self._files))
