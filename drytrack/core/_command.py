"""Run a command that must neither hang, nor ask, nor fill the memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

__all__ = ["CommandTimeoutError", "Output", "run_bounded"]

KEPT_ERROR_BYTES = 4_096
CHUNK_BYTES = 65_536
REAP_TIMEOUT_S = 1.0


class CommandTimeoutError(Exception):
    """A command did not end in time."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a command left.

    Args:
        code: Its exit code; negative if it was ended by a signal.
        stdout: Its standard output, cut at the limit.
        stderr: The beginning of its standard error, as text.
        truncated: Whether ``stdout`` was cut, and the command ended for it.
    """

    code: int
    stdout: bytes
    stderr: str
    truncated: bool

    @property
    def text(self) -> str:
        """Standard output as text; what is no UTF-8 is replaced."""
        return self.stdout.decode("utf-8", "replace")


def run_bounded(
    command: Sequence[str],
    *,
    timeout_s: float,
    limit_bytes: int,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Output:
    """Run a command with its input closed, and bound its time and its output.

    The command gets a session of its own, so that it has no terminal to ask on,
    Ctrl-C does not reach it, and what it has started ends with it.

    Args:
        command: Program and arguments; no shell takes part.
        timeout_s: Seconds until it is killed.
        limit_bytes: Bytes of output that are kept; with more, it is killed.
        cwd: Where it runs; None for the working directory.
        environment: Its environment variables; None for this process's.

    Returns:
        The exit code and what it wrote.

    Raises:
        CommandTimeoutError: If the time is up.
        OSError: If it cannot be started.
    """
    deadline = time.monotonic() + timeout_s
    process = subprocess.Popen(  # noqa: S603  # the callers' commands are fixed
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        creationflags=_CREATION_FLAGS,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    output = _Drain(process.stdout, limit_bytes, stop_when_full=True)
    errors = _Drain(process.stderr, KEPT_ERROR_BYTES, stop_when_full=False)
    for drain in (output, errors):
        drain.start()
    output.join(max(0.0, deadline - time.monotonic()))
    in_time = not output.is_alive()
    if in_time and not output.full:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            in_time = False
    if not in_time or output.full:
        # Not yet waited for, so its id cannot belong to another process by now.
        _kill(process)
        try:
            process.wait(REAP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            # Stuck in the kernel, on a dead network folder: it is left behind.
            in_time = False
    for drain in (output, errors):
        drain.join(REAP_TIMEOUT_S)
    if not in_time:
        raise CommandTimeoutError(
            f"{command[0]} did not answer within {timeout_s:g} s."
        )
    return Output(
        code=process.returncode,
        stdout=bytes(output.kept),
        stderr=errors.kept.decode("utf-8", "replace").strip(),
        truncated=output.full,
    )


if sys.platform == "win32":
    _CREATION_FLAGS = subprocess.CREATE_NO_WINDOW

    def _kill(process: subprocess.Popen[bytes]) -> None:
        process.kill()

else:
    _CREATION_FLAGS = 0

    def _kill(process: subprocess.Popen[bytes]) -> None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except OSError:
            # No group by that number, or nothing in it that still runs.
            process.kill()


class _Drain(threading.Thread):
    # Windows cannot wait for several pipes at once: each gets a thread.
    def __init__(self, pipe: IO[bytes], limit: int, *, stop_when_full: bool) -> None:
        super().__init__(name="drytrack-command", daemon=True)
        self.kept = bytearray()
        self.full = False
        self._pipe = pipe
        self._limit = limit
        self._stop_when_full = stop_when_full

    def run(self) -> None:
        # Closed here: a pipe must not be closed under the thread that reads it.
        with self._pipe:
            while chunk := os.read(self._pipe.fileno(), CHUNK_BYTES):
                room = self._limit - len(self.kept)
                self.kept += chunk[:room]
                if len(chunk) > room:
                    self.full = True
                    if self._stop_when_full:
                        return
