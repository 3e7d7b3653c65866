"""Makes one sentence of an error that nobody foresaw."""

from __future__ import annotations

import errno
import traceback

from event_handler import about

OF_A_STREAM = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})  # without a file name
REPORT = "Please report it to whoever maintains this program, with the output of the same command with --debug"


def sentence(error: BaseException) -> str:
    """What failed, where, and what to do next."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, OSError) and error.strerror and (error.filename is not None or error.errno in OF_A_STREAM):
        where = "standard output" if error.filename is None else error.filename
        return f"{where}: {error.strerror}. Check that it is there, that this user may use it, and that the disk has room."
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {frames[-1].filename.rpartition('/')[2]}, line {frames[-1].lineno}" if frames else ""
    return f"this is a fault of the program: {type(error).__name__}: {error}{place}. {REPORT} ({about.line()})."
