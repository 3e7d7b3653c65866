"""Where a running process tells of itself: what the settings say of it."""

from __future__ import annotations

from pathlib import Path

from event_handler.config.model import StartSettings
from event_handler.errors import ConfigurationError, SinkError
from event_handler.sinks.secret import Secret
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
    return Path(settings.storage).absolute() / f"{cluster}.sock"


def _secret(value: str, file: str, option: str) -> str:
    if not value and not file:
        return ""
    try:
        return Secret(value, file, option).value
    except SinkError as error:
        raise ConfigurationError(error.message, error.hint) from None
