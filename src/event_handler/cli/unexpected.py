"""Makes one sentence of an error that nobody foresaw."""

from __future__ import annotations

import errno
import traceback

from event_handler import about

OF_A_STREAM = frozenset(
    {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}
)  # without a file name
EXIT_CONFIGURATION = 80
REPORT = "Please report it to whoever maintains this program, with the output of the same command with --debug"


def exit_code(error: BaseException) -> int:
    """80 where only a person can change it, as with all errors that somebody foresaw."""
    return EXIT_CONFIGURATION if isinstance(_first(error), PermissionError) else 1


def sentence(error: BaseException) -> str:
    """What failed, where, and what to do next."""
    error = _first(error)
    if isinstance(error, OSError) and error.strerror and (where := _where(error)):
        return (
            f"{where}: {error.strerror}. Check that it is there, that this user may use it, and that the disk has room."
        )
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {frames[-1].filename.rpartition('/')[2]}, line {frames[-1].lineno}" if frames else ""
    return f"this is a fault of the program: {type(error).__name__}: {error}{place}. {REPORT} ({about.line()})."


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _where(error: OSError) -> str:
    """What the system has refused; "" when it does not tell."""
    if error.filename is not None:
        return str(error.filename)
    if error.errno == errno.ENOENT:
        return "the working directory"  # what else has no name here
    return "standard output" if error.errno in OF_A_STREAM else ""
