"""Says in one sentence why a simulated part cannot start: a library that is not installed, a port that is taken, a
directory.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

EXTRA = "pip install 'teleport-event-handler[simulator]', or in a checkout: pip install '.[simulator]'"


def without_extra(error: ModuleNotFoundError) -> NoReturn:
    """End the process when a library of the extra is missing; another fault stays one."""
    if (error.name or "event_handler").startswith("event_handler"):
        raise error
    sys.exit(f"error: the Python package {error.name} is not installed, which the extra `simulator` brings. {EXTRA}")


@contextmanager
def told() -> Iterator[None]:
    """End the process with one sentence for what the machine refuses, and quietly for Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            sys.exit(f"error: {error.strerror}. Choose another port, or 0 for a free one")
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(
            f"error: {where}{error.strerror or error}. Check that this user may write there, and that the disk has room"
        )
