"""The beginning of a message that is too large to be taken in whole: enough to tell which event it was."""

from __future__ import annotations

from event_handler.teleport.wire.decode import read_varint


class Beginning(bytes):
    """The first bytes of a message of `size` bytes."""

    size: int

    @classmethod
    def of(cls, data: bytes, size: int) -> Beginning:
        beginning = cls(data)
        beginning.size = size
        return beginning

    def unwrapped(self) -> Beginning:
        """The event's own bytes, where this is an ExportEventUnstructured."""
        _, at = read_varint(self, 1)
        return Beginning.of(self[at:], self.size)
