"""A secret in a file that is gone stays in use, and that is said once, not at every request."""

from __future__ import annotations

from pathlib import Path

from structlog.testing import capture_logs

from event_handler.sinks.secret import Secret


def test_a_file_that_is_gone_is_said_once_and_read_when_it_is_back(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("the-first")
    secret = Secret("", str(file), "sinks.a.token")
    file.unlink()
    with capture_logs() as lines:
        assert not any(secret.changed() for _ in range(3))
    assert [line["option"] for line in lines] == ["sinks.a.token"]
    assert secret.value == "the-first"
    file.write_text("the-second")
    assert secret.changed()
    assert secret.value == "the-second"
