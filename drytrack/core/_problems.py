"""What trackers did wrong, told when everyone has been served."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from drytrack.core._warn import warn
from drytrack.core.exceptions import DrytrackWarning

if TYPE_CHECKING:
    import collections

Problem = tuple[str, type[DrytrackWarning], BaseException | None]
"""What to say, as which warning, and the exception behind it."""

_logger = logging.getLogger("drytrack")


def warn_of(problems: collections.deque[Problem]) -> None:
    """Raise a warning for each problem, the traceback in the log.

    Args:
        problems: Emptied.

    Raises:
        Warning: The first of them, after the last has been told, where
            warnings are errors.
    """
    first: Warning | None = None
    while problems:
        what, category, error = problems.popleft()
        if error is not None:
            trace = (type(error), error, error.__traceback__)
            _logger.debug("%s", what, exc_info=trace)
        try:
            warn(what, category)
        except Warning as raised:
            raised.__cause__ = error
            first = first or raised
    if first is not None:
        raise first


def say(error: BaseException) -> str:
    """Return an exception as text, without a full stop at its end; never raises."""
    try:
        message = str(error).rstrip(". ")
    except Exception:  # noqa: BLE001  # any exception's __str__
        message = ""
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
