"""tqdm's bars, fitted to what they show and to the width that there is.

Imported with the first bar, since it imports tqdm.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

from tqdm import std
from tqdm.utils import disp_len

from drytrack.trackers import _screen

if TYPE_CHECKING:  # generic for type checkers alone
    _Base = std.tqdm[Any]
else:
    _Base = std.tqdm

_LADDER = (
    (
        10,
        "{long}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} "
        "[{elapsed}<{remaining}, {rate_fmt}{inside}{samples}]",
    ),
    (
        10,
        "{long}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} "
        "[{elapsed}<{remaining}{inside}{samples}]",
    ),
    (8, "{long}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{inside}]"),
    (6, "{short}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{after}"),
    (4, "{short}: {percentage:3.0f}%|{bar}|{after}"),
    (0, "{short}: {percentage:3.0f}%{after}"),
)
_LADDER_WITHOUT_TOTAL = (
    (0, "{long}: {n_fmt} {plural} [{elapsed}, {rate_fmt}{inside}{samples}]"),
    (0, "{long}: {n_fmt} {plural} [{elapsed}{inside}{samples}]"),
    (0, "{short}: {n_fmt} {plural}{after}"),
    (0, "{short}: {n_fmt}{after}"),
)
"""Least width of the bar, and format; the first that fits is used."""


class Bar(_Base):
    """A bar in a terminal."""

    # No thread that looks after bars which skip updates: ours skip none.
    monitor_interval: ClassVar[int] = 0

    def __init__(self, long: str, short: str, **kwargs: Any) -> None:
        """Open a bar.

        Args:
            long: What it measures.
            short: The same for a narrow terminal.
            **kwargs: As for tqdm.
        """
        self._titles = (long, short)
        self._pid = os.getpid()
        self.metrics: Mapping[str, float] = {}
        self._samples: int | None = None
        self._rung = (0, 0)
        self._elapsed: float | None = None
        super().__init__(miniters=1, **kwargs)

    def show(self, metrics: Mapping[str, float], samples: int | None) -> None:
        """Choose the metrics and samples to show from the next refresh on."""
        self.metrics, self._samples = metrics, samples

    def stop_clock(self) -> None:
        """Keep the time that was taken until now."""
        if self._elapsed is None:
            self._elapsed = super().format_dict["elapsed"]

    @property
    def format_dict(self) -> dict[str, Any]:
        """What tqdm formats, with the format that fits."""
        values: dict[str, Any] = dict(super().format_dict)
        if self._elapsed is not None:
            values["elapsed"] = self._elapsed
            values["rate"] = None
        said = _screen.say_metrics(self.metrics)
        unit = values.get("unit") or "it"
        values.update(
            long=self._titles[0],
            short=self._titles[1],
            plural=f"{unit}es" if unit.endswith("ch") else f"{unit}s",
            inside=f", {said}" if said else "",
            after=f" {said}" if said else "",
            samples="" if self._samples is None else f", {self._samples} samples",
        )
        # A loader with more batches than it said has no known end.
        known = self.total and self.n <= self.total
        ladder = _LADDER if known else _LADDER_WITHOUT_TOTAL
        values["bar_format"] = ladder[self._fit(values, ladder)][1]
        return values

    def _fit(self, values: dict[str, Any], ladder: tuple[tuple[int, str], ...]) -> int:
        """Return the first rung that fits; a bar climbs down, and never up.

        Going by each text alone, it would jump to and fro with every digit.
        """
        width = values.get("ncols")
        if not width:
            return 0
        known, rung = self._rung
        rung = rung if known == width else 0
        while rung < len(ladder) - 1:
            least, text = ladder[rung]
            bare = text.replace("{bar}", "")
            free = {**values, "ncols": None, "bar_format": bare}
            if disp_len(self.format_meter(**free)) + least <= width:
                break
            rung += 1
        self._rung = (width, rung)
        return rung

    def __str__(self) -> str:
        """Return the bar as text that its stream can encode."""
        return _screen.printable(super().__str__(), self.fp)

    def close(self) -> None:
        """Close the bar; in a forked child, leave the parent's screen alone."""
        if getattr(self, "disable", True) or getattr(self, "_pid", 0) != os.getpid():
            return
        # tqdm draws the line that an inner bar leaves over the outer ones.
        with _screen.bars_aside(self.fp):
            super().close()


def open_terminal_bar(long: str, short: str, stream: TextIO, **kwargs: Any) -> Bar:
    """Open a bar on a terminal."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError, AttributeError):
        size = os.terminal_size((0, 0))
    if size.columns and size.lines:
        kwargs["dynamic_ncols"] = True
    else:  # a pseudo-terminal that nobody has given a size
        kwargs.update(ncols=79, nrows=23)
    return Bar(long, short, file=stream, **kwargs)


def is_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    line = type(get_shell()).__mro__
    return any(cls.__name__ == "ZMQInteractiveShell" for cls in line)


def open_notebook_bar(long: str, short: str, **kwargs: Any) -> Bar | None:
    """Open a widget; None where the notebook has none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # IPython's own, about its past
        try:
            from tqdm import notebook
        except ImportError:
            return None
        if getattr(notebook, "IProgress", None) is None:
            return None
        cls = type("NotebookBar", (Bar, notebook.tqdm_notebook), {})
        bar: Bar = cls(long, short, **kwargs)
        return bar
