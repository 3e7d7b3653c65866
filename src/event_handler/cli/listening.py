"""Where a running process tells of itself: what the settings say of it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from event_handler import about
from event_handler.config.model import StartSettings
from event_handler.errors import ConfigurationError, SinkError, StateError
from event_handler.sinks.secret import Secret
from event_handler.state.bucket import is_bucket
from event_handler.state.postgresql.session import is_database
from event_handler.telemetry.listener import ListenOptions
from event_handler.telemetry.otlp import ExportOptions


def listen_options(settings: StartSettings) -> ListenOptions | None:
    """How to listen, None for not at all. Raises ConfigurationError for options that cannot be used."""
    if not settings.listen:
        return None
    if bool(settings.listen_user) != bool(settings.listen_password or settings.listen_password_file):
        raise ConfigurationError("only one of listen-user and listen-password is set", "Set both or none.")
    return ListenOptions(
        settings.listen,
        settings.listen_cert,
        settings.listen_key,
        settings.listen_client_ca,
        _secret(settings.listen_token, settings.listen_token_file, "listen-token"),
        settings.listen_user,
        _secret(settings.listen_password, settings.listen_password_file, "listen-password"),
        settings.listen_unprotected,
    )


def export_options(settings: StartSettings) -> ExportOptions | None:
    """Where to export metrics and traces to, None for nowhere."""
    if not settings.telemetry_endpoint:
        return None
    return ExportOptions(settings.telemetry_endpoint, settings.telemetry_interval, settings.telemetry_traces)


def local_socket(settings: StartSettings, cluster: str) -> Path:
    """Where `status` finds the process that reads `cluster`."""
    return local_directory(settings.storage) / f"{cluster}.sock"


def local_directory(storage: str) -> Path:
    """Where the sockets of this machine's processes are, and how far a replay is: the storage itself, or where that is
    a database or a bucket a directory of this user.
    """
    if not is_database(storage) and not is_bucket(storage):
        return Path(storage).absolute()
    given = os.environ.get("RUNTIME_DIRECTORY") or os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    directory = Path(given) / f"{about.PROGRAM}-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.lstat().st_uid != os.getuid():
        raise StateError(f"{directory} belongs to another user", "Remove it, or set XDG_RUNTIME_DIR.")
    return directory


def _secret(value: str, file: str, option: str) -> str:
    if not value and not file:
        return ""
    try:
        return Secret(value, file, option).value
    except SinkError as error:
        raise ConfigurationError(error.message, error.hint) from None
