"""The trackers that every new experiment starts with."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drytrack.core.track import Tracker

MODE_VARIABLE = "DRYTRACK_INIT_MODE"

trackers: dict[str, Tracker] = {}
"""By name; changed through `drytrack.modes` alone."""

chosen = False
"""Whether a mode has been chosen; until then none is imported."""


def default_trackers() -> dict[str, Tracker]:
    """Return the default trackers, choosing the mode on the first call.

    Raises:
        UnknownModeError: If the environment names a mode that does not exist.
    """
    if not chosen:
        # By name: core imports nothing from above, and a process that makes no
        # experiment loads no tracker.
        modes = importlib.import_module("drytrack.modes")
        modes.init_trackers(os.environ.get(MODE_VARIABLE) or "standard")
    return trackers
