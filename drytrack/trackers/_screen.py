"""What those who write to the console share: lines, numbers, room for bars."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, TextIO


def write_line(text: str, stream: TextIO) -> None:
    """Write a line above whatever bars are open on the same screen."""
    with bars_aside(stream):
        stream.write(printable(text, stream) + "\n")
        stream.flush()


def bars_aside(stream: TextIO) -> AbstractContextManager[Any]:
    """Clear the bars on the stream's screen for as long as the context is open."""
    if not _open_bars():
        return contextlib.nullcontext()
    aside: AbstractContextManager[Any] = _tqdm().external_write_mode(file=stream)
    return aside


def clear_bars() -> None:
    """Clear the bars for a line of somebody else's; their next update redraws them."""
    for bar in list(_open_bars()):
        if hasattr(bar, "start_t"):  # fully set up
            bar.clear()


def printable(text: str, stream: TextIO) -> str:
    """Return the text with what the stream cannot encode written as escapes."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace").decode(encoding)
    return text


def say_metrics(metrics: Mapping[str, float]) -> str:
    """Return metrics for reading, each with about four significant digits."""
    return ", ".join(f"{name}={say_number(value)}" for name, value in metrics.items())


def say_number(value: float) -> str:
    """Return a number with about four significant digits."""
    # Counts and sums are easier to read in full than as 1.235e+04.
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}"


def say_duration(seconds: float) -> str:
    """Return a duration in the two largest units that it has."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def _open_bars() -> Any:
    """Return all of tqdm's bars: ours, and those of the user."""
    return getattr(_tqdm(), "_instances", ())


def _tqdm() -> Any:
    # Not imported: where nobody else has done so, there are no bars.
    return getattr(sys.modules.get("tqdm.std"), "tqdm", None)
