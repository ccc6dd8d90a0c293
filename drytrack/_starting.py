"""Starting a run of backends: patience, and what to do where one cannot start."""

from __future__ import annotations

import logging
import re
import threading
from typing import TYPE_CHECKING, Any

from drytrack.core._problems import say
from drytrack.core.exceptions import (
    DrytrackError,
    MissingDependencyError,
    RequiredTrackerError,
)

if TYPE_CHECKING:
    from drytrack.core.run import Run

SLOW_S = 10.0
"""Seconds after which the user is told what is being waited for."""

_CURES = (
    (
        re.compile(
            r"\b40[13]\b|unauthori[sz]ed|forbidden|denied|credential|authentic|"
            r"api[ _]?key|password|log ?in\b",
            re.IGNORECASE,
        ),
        "Check the credentials that the tool itself reads, and who may write there",
    ),
    (
        re.compile(
            r"connect|refused|time[ds]?[ -]?out|unreachable|route to|resol|retries",
            re.IGNORECASE,
        ),
        "Check its address, and that the server is up",
    ),
)
"""What the message of a tool speaks of, and what to do about it."""

_logger = logging.getLogger("drytrack")


def start_backends(run: Run[Any]) -> None:
    """Start a run, and say so where its backends take long.

    Raises:
        MissingDependencyError: If the package of a required one is missing.
        RequiredTrackerError: If a required one cannot start.
    """
    slow = threading.Timer(SLOW_S, _say_slow, [run])
    slow.daemon = True
    slow.start()
    try:
        run.start()
    except RequiredTrackerError as err:
        raise _explain(run, err) from err.__cause__
    finally:
        slow.cancel()


def _say_slow(run: Run[Any]) -> None:
    _logger.warning(
        "Run %r still waits for its backends (%s) to start. Where their server is "
        "down, they may try for minutes; interrupt it, and check the address.",
        run.id,
        ", ".join(run.experiment.trackers.named_trackers),
    )


def _explain(run: Run[Any], error: RequiredTrackerError) -> DrytrackError:
    """Return the error of a backend that cannot start, with what to do about it."""
    cause = error.__cause__
    if isinstance(cause, MissingDependencyError):  # says what to install
        return MissingDependencyError(str(cause))
    failed = [g.name for g in run.bus.guests.values() if g.suspended_at is not None]
    if cause is None or not failed:
        return error
    what = say(cause)
    cure = "Correct that"
    if not isinstance(cause, TypeError):  # a wrong option may be called api_key
        cure = next((cure for sign, cure in _CURES if sign.search(what)), cure)
    return RequiredTrackerError(
        f"Backend {failed[0]!r} cannot start: {what}. {cure}, or go on without it: "
        f"on_backend_error='warn'."
    )
