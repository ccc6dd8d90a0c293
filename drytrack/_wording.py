"""Times, durations and numbers as people read them."""

from __future__ import annotations

import time


def number(value: float | None) -> str:
    """Return a number, short enough for a table."""
    if value is None:
        return ""
    return f"{value:.5g}"


def at(value: float | None, step: int | None) -> str:
    """Return a number and where it is."""
    return "" if value is None else f"{number(value)} @{step}"


def moment(seconds: float | None) -> str:
    """Return a time, in the reader's zone."""
    if seconds is None:
        return ""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def duration(seconds: float | None) -> str:
    """Return a duration, in the two largest of its units."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours:02}h"
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s"
