"""Keeps the three standard streams from doing harm when they are closed, full, or read by nobody."""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def open_closed() -> None:
    """Let the numbers 0 to 2 lead nowhere where they are closed, or the next file that is opened would get one of
    them.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one


def flush() -> None:
    """Raises OSError when what was printed cannot be written."""
    if sys.stdout is not None:
        sys.stdout.flush()


def let_go() -> None:
    """Give up what cannot be written: Python tries again when it ends, and would end with status 120."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(ValueError):  # closed
            try:
                if stream is not None:
                    stream.flush()
            except OSError:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
