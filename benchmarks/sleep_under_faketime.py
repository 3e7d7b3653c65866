"""A pytest plugin for runs under faketime, whose clock_nanosleep fails with EINVAL where the time has passed
already.
"""

from __future__ import annotations

import errno
import time
from typing import Any

_sleep = time.sleep


def sleep(seconds: Any) -> None:
    try:
        _sleep(seconds)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


time.sleep = sleep
