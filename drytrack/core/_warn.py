"""Warnings that point at the user's line."""

from __future__ import annotations

import os
import pathlib
import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import CodeType

_PACKAGE = str(pathlib.Path(__file__).parent.parent) + os.sep


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the nearest line outside of drytrack.

    Args:
        message: What happened and what to do.
        category: A class below `DrytrackWarning`.
    """
    level = 1
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_ours(frame.f_code):
        frame = frame.f_back
        level += 1
    warnings.warn(message, category, stacklevel=level + 1)


def _is_ours(code: CodeType) -> bool:
    file = code.co_filename
    if file == "<string>":  # the first instance of an event class is made by
        return code.co_name == "__init__"  # what dataclass wrote
    return file.startswith((_PACKAGE, "<drytrack"))
