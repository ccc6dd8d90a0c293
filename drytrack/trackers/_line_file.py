"""Files that grow by whole lines, and stay readable whatever cuts a line short."""

from __future__ import annotations

import contextlib
import os
import pathlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from drytrack.core._atomic import _move

if TYPE_CHECKING:
    import io

_BLOCK = 65_536


class LineFile:
    """Appends lines; what `append` was given is with the kernel when it returns.

    It therefore survives a kill of the process, though not a loss of power. A
    line that was cut short, by a full disk or a kill in mid-write, is removed
    before the next one is written. Closing is no end: the next line opens the
    file again.
    """

    def __init__(self, path: pathlib.Path) -> None:
        """Choose the file; nothing is opened yet.

        Args:
            path: The file; its folder is created with it.
        """
        self.path = path
        self._file: io.FileIO | None = None

    @property
    def is_open(self) -> bool:
        """Whether the file is open."""
        return self._file is not None

    def open(self) -> io.FileIO:
        """Open the file, created where missing, without a torn last line.

        Raises:
            OSError: If it cannot be written.
        """
        if self._file is None:
            try:
                file = self.path.open("a+b", buffering=0)
            except FileNotFoundError:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                file = self.path.open("a+b", buffering=0)
            try:
                _cut_torn_line(file)
            except BaseException:
                file.close()
                raise
            self._file = file
        return self._file

    def append(self, lines: bytes) -> None:
        """Append whole lines, in one call of the kernel.

        Raises:
            OSError: If they cannot be written as a whole; no part of a line
                stays.
        """
        file = self._file or self.open()
        try:
            written = file.write(lines)
            while written != len(lines):  # the disk is full: the next call says so
                written += file.write(lines[written:])
        except BaseException:
            self.close()
            with contextlib.suppress(OSError):  # the first error is the one to raise
                self.open()  # removes the part that was written
            self.close()
            raise

    def close(self) -> None:
        """Close the file until the next line."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _cut_torn_line(file: io.FileIO) -> None:
    """Truncate a file behind its last line feed."""
    end = size = file.seek(0, os.SEEK_END)
    while end:
        begin = max(0, end - _BLOCK)
        file.seek(begin)
        found = file.read(end - begin).rfind(b"\n")
        if found >= 0:
            end = begin + found + 1
            break
        end = begin
    if end != size:
        file.truncate(end)
        file.seek(0, os.SEEK_END)


def whole_lines(path: pathlib.Path) -> Iterator[str]:
    """Yield the lines of a file, also of one that is being written.

    A last line without its line feed is left out, bytes that are no UTF-8 are
    replaced.
    """
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        for line in file:
            if line.endswith("\n"):
                yield line


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
    """Write a file beside ``path`` that takes its place when all went well.

    Yields:
        The new file, open for writing.

    Raises:
        OSError: If it cannot be written; the old file is untouched.
    """
    beside = path.with_name(f".{os.getpid()}-{time.monotonic_ns()}.tmp")
    try:
        with beside.open("wb") as file:
            yield file
        _move(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
