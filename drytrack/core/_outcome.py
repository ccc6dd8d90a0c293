"""How a run ends: its status, what is recorded of it, and how long it may take."""

from __future__ import annotations

import logging
import os
import threading
import traceback
from typing import Literal

from drytrack.core._secrets import mask_text
from drytrack.core._signals import EXIT_CODE

Status = Literal["created", "running", "completed", "failed", "interrupted"]

EXIT_VARIABLE = "DRYTRACK_EXIT_TIMEOUT_S"
EXIT_TIMEOUT_S = 60.0
INTERRUPTED_TIMEOUT_S = 10.0
"""How long a stop waits for background trackers, all together."""

_logger = logging.getLogger("drytrack")


def read_outcome(error: BaseException | None) -> tuple[Status, BaseException | None]:
    """Return the status that an exception stands for, and what to record of it."""
    if error is None:
        return "completed", None
    if isinstance(error, SystemExit):
        if error.code in (None, 0):
            return "completed", None
        if error.code == EXIT_CODE:
            return "interrupted", error
        return "failed", error
    if isinstance(error, Exception):
        return "failed", error
    return "interrupted", error  # KeyboardInterrupt, GeneratorExit, CancelledError


def describe_error(error: BaseException | None) -> dict[str, str] | None:
    if error is None:
        return None
    kind = type(error)
    lines = traceback.format_exception(kind, error, error.__traceback__)
    try:
        message = str(error)
    except Exception:  # noqa: BLE001  # any exception's __str__
        message = ""
    return {
        "type": f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."),
        "message": mask_text(message),
        "traceback": mask_text("".join(lines)),
    }


def exit_timeout_s(status: str) -> float:
    text = os.environ.get(EXIT_VARIABLE)
    try:
        timeout_s = EXIT_TIMEOUT_S if not text else max(0.0, float(text))
        timeout_s = min(timeout_s, threading.TIMEOUT_MAX)  # of what a lock can wait
    except ValueError:
        _logger.warning("%s is %r, not a number of seconds", EXIT_VARIABLE, text)
        timeout_s = EXIT_TIMEOUT_S
    return (
        min(timeout_s, INTERRUPTED_TIMEOUT_S) if status == "interrupted" else timeout_s
    )
