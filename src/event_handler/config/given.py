"""A value as it was written, and the place where it stands, so that an error can name it."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from event_handler.config.spelling import Described
from event_handler.config.values import clean, convert, is_quoted
from event_handler.errors import ConfigurationError

_PATH_HINT = "Check the path; relative paths start at the working directory."


@dataclass(frozen=True, slots=True)
class Given:
    """`where` is a flag, a variable, or a key of a file."""

    raw: Any
    where: str

    def problem(self, text: str, hint: str = "") -> ConfigurationError:
        return ConfigurationError(f"{self.where}: {text}", hint)

    def unquoted(self, made: Described, raw: Any, warnings: list[str]) -> Any:
        """`raw` without what no editor shows. Raises ConfigurationError for quotes that are part of the value.

        They may belong to a secret, so for one it is a warning.
        """
        text = clean(made, raw)
        if is_quoted(text):
            problem = self.problem(
                "the quotes are part of the value, as docker's --env-file leaves them", "Write it without quotes."
            )
            if not made.secret:
                raise problem
            warnings.append(f"{problem.message}; write it without them if they do not belong to it")
        return text

    def value(self, made: Described, warnings: list[str]) -> Any:
        """The value that was meant. Raises ConfigurationError."""
        text = self.unquoted(made, self.raw, warnings)
        try:
            return convert(made.kind, text)
        except ValueError as error:
            raise self.problem(str(error)) from None

    def check_file(self, path: str, *, awaited: bool = False, directory: bool = False) -> None:
        """Raises ConfigurationError when there is no file at `path` that this user can read.

        `awaited`: it may come later; `directory`: it may be one.
        """
        if path == "-":
            return
        try:
            is_directory = stat.S_ISDIR(Path(path).stat().st_mode)
        except FileNotFoundError as error:
            if awaited:
                return
            raise self.problem(f"{path}: {error.strerror}", _PATH_HINT) from None
        except (OSError, ValueError) as error:
            raise self.problem(f"{path}: {getattr(error, 'strerror', None) or error}", _PATH_HINT) from None
        if is_directory and not directory:
            raise self.problem(f"{path} is a directory", "Name a file.")
        if not is_directory and not os.access(path, os.R_OK):
            raise self.problem(f"{path} may not be read by this user", "Change its owner or mode.")
