"""Every error that a user can meet, as one tree; each message names the thing that failed and the next step.

EventHandlerError                 exit 1
├── UsageError                    exit 80   a wrong flag or argument
├── ConfigurationError            exit 80   a setting that is missing or makes no sense, in flags, variables or file
├── CredentialsError              exit 80   files that prove who we are to Teleport
├── SinkError                     exit 80   a collector that cannot be used as configured, its TLS files
├── StateError                    exit 1    the storage directory: in use by another process, full
│   └── StorageError              exit 80   a storage that only a person can make usable: another user's, damaged, newer
├── ConnectError                  exit 1    no route into the cluster (retried while the process runs)
├── RpcError                      exit 1    the cluster answered a call with an error
├── FilesError                    exit 255  files that `configure` cannot write
├── MalformedEventError           exit 1    bytes that are not an event; they become a dead letter
└── TransformError                exit 1    an event that a transform cannot change; it becomes a dead letter

80 is what only a person can change: a service manager should not start the process again (RestartPreventExitStatus=80).
"""

from __future__ import annotations


class EventHandlerError(Exception):
    """Base of all errors shown to the user without a traceback.

    `message` says what failed and on which file or address, `hint` what to do next. Neither may hold a secret.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


class UsageError(EventHandlerError):
    exit_code = 80


class ConfigurationError(EventHandlerError):
    exit_code = 80


class CredentialsError(EventHandlerError):
    """`lasting` tells that no renewal and no waiting repairs it: the file is of another kind, or may not be read."""

    exit_code = 80

    def __init__(self, message: str, hint: str = "", *, lasting: bool = False) -> None:
        super().__init__(message, hint)
        self.lasting = lasting


class ConnectError(EventHandlerError):
    """`conclusive` tells that the other side was reached and showed why: of several causes, this is the real one."""

    def __init__(self, message: str, hint: str = "", *, conclusive: bool = False) -> None:
        super().__init__(message, hint)
        self.conclusive = conclusive


class RpcError(EventHandlerError):
    """The cluster answered with a gRPC status other than OK.

    `code` is the upper-case status name of the gRPC specification, for example "UNAVAILABLE".
    """

    def __init__(self, method: str, code: str, message: str) -> None:
        super().__init__(f"Teleport answered {method} with {code}: {message}")
        self.method = method
        self.code = code
        self.server_message = message


class StateError(EventHandlerError):
    pass


class StorageError(StateError):
    """Opening the storage again changes nothing; a person has to."""

    exit_code = 80


class FilesError(EventHandlerError):
    exit_code = 255  # what the Go plugin exits with when configure fails


class SinkError(EventHandlerError):
    exit_code = 80


class MalformedEventError(EventHandlerError):
    pass


class TransformError(EventHandlerError):
    pass
