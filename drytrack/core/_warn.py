"""Warnings that point at the user's line."""

from __future__ import annotations

import pathlib
import sys
import warnings

_PACKAGE = str(pathlib.Path(__file__).parent.parent) + "/"


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the nearest line outside of drytrack.

    Args:
        message: What happened and what to do.
        category: A class below `DrytrackWarning`.
    """
    level = 1
    frame = sys._getframe(1)
    while frame.f_back is not None and (
        frame.f_code.co_filename.replace("\\", "/").startswith(
            _PACKAGE.replace("\\", "/")
        )
        or frame.f_code.co_filename.startswith("<drytrack")
    ):
        frame = frame.f_back
        level += 1
    warnings.warn(message, category, stacklevel=level + 1)
