"""What a vendor's library does to a process when it starts, and is kept from."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping

__all__ = ["environment", "same_excepthook"]


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a moment.

    Args:
        variables: Name → value.
    """
    previous = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def same_excepthook() -> Iterator[None]:
    """Undo what is done to ``sys.excepthook`` inside."""
    hook = sys.excepthook
    try:
        yield
    finally:
        sys.excepthook = hook
