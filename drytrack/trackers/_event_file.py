"""Event files, as TensorBoard reads them: a sequence of framed messages."""

from __future__ import annotations

import os
import pathlib
import socket
import struct
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

PATTERN = "events.out.tfevents.*"
"""What TensorBoard takes for an event file."""

_FRAME = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")


class EventFile:
    """Writes one event file; a flush writes whole messages or none.

    What was added is in memory until `flush`, so a process that is killed leaves
    what it had flushed, and a full disk leaves no half message that would hide
    whatever follows it.

    Source:
        TensorFlow, "TFRecord and tf.train.Example", section "TFRecords format
        details".
    """

    def __init__(self, folder: pathlib.Path, checksum: Callable[[bytes], int]) -> None:
        """Create the file.

        Args:
            folder: Where; it exists.
            checksum: Returns the CRC-32C of bytes.
        """
        self._checksum = checksum
        # TensorBoard reads the files of a folder in the order of their names; two
        # runs of a second must not share one.
        name = f"{PATTERN[:-1]}{time.time():017.6f}.{socket.gethostname()}"
        self.path = folder / f"{name}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
        self._file = self.path.open("xb", buffering=0)
        self._size = 0
        self._pending: list[bytes] = []

    def add(self, message: bytes) -> None:
        """Take a serialized event.

        Args:
            message: The bytes of an ``Event`` message.
        """
        head = struct.pack("<Q", len(message))
        self._pending += (
            head,
            self._mask(head),
            message,
            self._mask(message),
        )

    def flush(self) -> None:
        """Hand what was added to the operating system.

        Raises:
            OSError: If it cannot be written; then it is tried again next time.
        """
        if not self._pending:
            return
        data = memoryview(b"".join(self._pending))
        written = 0
        try:
            while written < len(data):
                written += self._file.write(data[written:]) or 0
        except BaseException:
            self._file.seek(self._size)
            self._file.truncate()
            raise
        self._size += len(data)
        self._pending = []

    def close(self) -> None:
        """Flush and close."""
        try:
            self.flush()
        finally:
            self._file.close()

    def _mask(self, data: bytes) -> bytes:
        value = self._checksum(data)
        rotated = ((value >> 15) | (value << 17)) & 0xFFFFFFFF
        return _CHECKSUM.pack((rotated + 0xA282EAD8) & 0xFFFFFFFF)


def read_messages(folder: pathlib.Path) -> Iterator[bytes]:
    """Read the event files of a folder, oldest first, each up to what is torn.

    Args:
        folder: A run's folder; it may not exist.

    Yields:
        Serialized events.
    """
    for path in sorted(folder.glob(PATTERN)):
        with path.open("rb") as file:
            while len(head := file.read(_FRAME.size)) == _FRAME.size:
                length: Any = _FRAME.unpack(head)[0]
                body = file.read(length + _CHECKSUM.size)
                if len(body) < length + _CHECKSUM.size:
                    break
                yield body[:length]
