"""Files that are replaced as a whole: a reader sees the old one or the new one."""

from __future__ import annotations

import os
import pathlib
import sys
import time

_RETRIES = 20


def replace_file(path: pathlib.Path, data: bytes, *, sync: bool = False) -> None:
    """Write a file beside ``path`` and move it there.

    Args:
        path: The file to replace or create.
        data: Its content.
        sync: Whether it must survive a loss of power.

    Raises:
        OSError: If it cannot be written; the old file is untouched.
    """
    # Two threads or processes may write at once: each has a file of its own.
    beside = _beside(path)
    try:
        with beside.open("wb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        _move(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def _beside(path: pathlib.Path) -> pathlib.Path:
    """Return a name of its own, and short: that of the file may be at the limit."""
    return path.with_name(f".{os.getpid()}-{time.monotonic_ns()}.tmp")


def _move(source: pathlib.Path, target: pathlib.Path) -> None:
    for left in reversed(range(_RETRIES)):
        try:
            source.replace(target)
        except PermissionError:
            # On Windows a file that a reader has open cannot be replaced.
            if sys.platform != "win32" or not left:
                raise
            time.sleep(0.01)
        else:
            return


def create_exclusively(path: pathlib.Path, data: bytes) -> None:
    """Create a file that must not exist, complete from the first moment.

    A link to a finished file appears at once; where links are not supported,
    the file is created first and filled after.

    Args:
        path: The file to create.
        data: Its content.

    Raises:
        FileExistsError: If it exists.
        OSError: If it cannot be written.
    """
    beside = _beside(path)
    try:
        beside.write_bytes(data)
        try:
            os.link(beside, path)
        except FileExistsError:
            raise
        except (OSError, NotImplementedError, AttributeError):
            with path.open("xb") as file:
                file.write(data)
    finally:
        beside.unlink(missing_ok=True)
