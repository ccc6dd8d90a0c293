"""Tracker that shows progress: bars where they can be drawn, lines elsewhere."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from typing_extensions import override

from drytrack.core import log_events
from drytrack.core.exceptions import MissingDependencyError
from drytrack.core.track import Tracker
from drytrack.trackers import _screen

if TYPE_CHECKING:
    from drytrack.trackers._tqdm_bars import Bar

__all__ = ["TqdmLogger"]

LONGEST_NAME = 32
"""Letters of a source's name; a longer one leaves no room for a bar."""


class TqdmLogger(Tracker):
    """Shows a bar for each pass over a loader, with its latest metrics.

    A bar stays open until its epoch or test has ended, and then shows what
    was measured over the whole of it. Bars are widgets in a notebook, and text
    on a terminal; lines of the ``drytrack`` logger go above them. Where standard
    error is neither (a file, a pipe, a notebook without ipywidgets) there are
    plain lines in their place, one for each epoch and, in a long one, at
    intervals.
    """

    name = "tqdm"
    notify = Tracker.notify.extend()

    def __init__(
        self,
        *,
        leave: bool = True,
        training_bar: bool = False,
        file: TextIO | None = None,
        interval_s: float = 15.0,
    ) -> None:
        """Choose what is shown.

        Args:
            leave: Whether a finished bar stays on the screen, and an epoch's
                metrics in a plain file.
            training_bar: Whether a bar over the epochs is shown above the bars
                over batches. It shows the latest metrics of the training and of
                the tests in it, and stays in place of their bars.
            file: Where to write, by default standard error.
            interval_s: Least time between two plain lines of one pass.

        Raises:
            MissingDependencyError: If tqdm is not installed.
            ValueError: If ``interval_s`` is negative.
        """
        super().__init__()
        if importlib.util.find_spec("tqdm") is None:
            msg = "TqdmLogger needs the tqdm package: pip install tqdm"
            raise MissingDependencyError(msg)
        if not interval_s >= 0:
            msg = f"interval_s is {interval_s!r}. Pass a number of seconds, 0 or more."
            raise ValueError(msg)
        self.leave = leave
        self.training_bar = training_bar
        self.file = file
        self.interval_s = interval_s

    @override
    def clean_up(self) -> None:
        """Close what is still open."""
        self._close_all()

    # -- what is open ------------------------------------------------------------

    @notify.register
    def _begin(self, event: log_events.StartExperimentEvent) -> None:
        # Keyed by source: an IterateBatchEvent knows no more.
        self._passes: dict[str, _Pass] = {}
        self._trainings: dict[str, Bar] = {}
        self._epochs: dict[str, tuple[int, int | None]] = {}

    @notify.register
    def _open_training(self, event: log_events.StartTrainingEvent) -> None:
        self._close_training(event.source_name)
        if self.training_bar and event.end_epoch >= event.start_epoch:
            name = _shorten(event.source_name)
            bar = self._open_bar(
                name,
                name,
                total=event.end_epoch,
                initial=event.start_epoch - 1,
                unit="epoch",
                leave=self.leave,
            )
            if bar is not None:
                self._trainings[event.source_name] = bar

    @notify.register
    def _open_epoch(self, event: log_events.StartEpochEvent) -> None:
        self._close_pass(event.source_name)
        self._epochs[event.source_name] = (event.epoch, event.end_epoch)

    @notify.register
    def _open_test(self, event: log_events.StartTestEvent) -> None:
        self._close_pass(event.source_name)
        self._epochs.pop(event.source_name, None)
        self._close_finished()

    @notify.register
    def _open_pass(self, event: log_events.IterateBatchEvent) -> None:
        self._close_pass(event.source_name)
        self._close_finished()
        long, short = self._title(event.source_name)
        leave = self.leave and not self._trainings
        bar = self._open_bar(
            long, short, total=event.n_iter or None, unit="batch", leave=leave
        )
        opened: _Pass
        if bar is not None:
            opened = _BarPass(bar, event)
        else:
            opened = _LinePass(long, event, self)
        self._passes[event.source_name] = opened
        event.push_updates.append(opened.update)

    # -- what is shown -----------------------------------------------------------

    @notify.register
    def _show_metrics(self, event: log_events.MetricEvent) -> None:
        source = event.source_name
        training = self._show_in_training(event)
        if source in self._passes:
            self._passes[source].settle(event.metrics)
        elif not training and self.leave:
            # The bar has gone, or there never was one.
            said = _screen.say_metrics(event.metrics)
            self.write(f"{self._title(source)[0]}: {said}")

    def _show_in_training(self, event: log_events.MetricEvent) -> bool:
        """Show metrics in the training bar, whose bars over batches leave nothing."""
        if not self._trainings:
            return False
        source = event.source_name
        own = self._trainings.get(source)
        bar = own or next(reversed(self._trainings.values()))
        shown = dict(bar.metrics)
        for name, value in event.metrics.items():
            shown[name if own else f"{_shorten(source)} {name}"] = value
        bar.show(shown, None)
        bar.refresh()
        return True

    def write(self, text: str) -> None:
        """Write a line above the bars."""
        stream = self.stream
        if stream is not None:
            _screen.write_line(text, stream)

    @property
    def stream(self) -> TextIO | None:
        """Where to write; looked up when used, and None under pythonw."""
        return self.file or sys.stderr

    # -- what is closed ----------------------------------------------------------

    @notify.register
    def _close_epoch(self, event: log_events.EndEpochEvent) -> None:
        self._close_pass(event.source_name)
        training = self._trainings.get(event.source_name)
        if training is not None:
            training.update(1)
            training.refresh()

    @notify.register
    def _close_terminated(self, event: log_events.TerminatedTrainingEvent) -> None:
        self._close_pass(event.source_name)

    @notify.register
    def _close_trained(self, event: log_events.EndTrainingEvent) -> None:
        self._close_pass(event.source_name)
        self._close_training(event.source_name)
        self._epochs.pop(event.source_name, None)

    @notify.register
    def _close_test(self, event: log_events.EndTestEvent) -> None:
        self._close_pass(event.source_name)

    @notify.register
    def _end(self, event: log_events.StopExperimentEvent) -> None:
        self._close_all()

    def _close_all(self) -> None:
        # Inner bars first: each leaves its line above those that are open.
        for source in reversed(list(getattr(self, "_passes", ()))):
            self._close_pass(source)
        for source in reversed(list(getattr(self, "_trainings", ()))):
            self._close_training(source)

    def _close_finished(self) -> None:
        """Close what has seen all its batches, so that lines come in their order.

        A bar that leaves its line does so above those that stay open.
        """
        for source, one in list(self._passes.items()):
            if one.finished:
                self._close_pass(source)

    def _close_pass(self, source_name: str) -> None:
        one = self._passes.pop(source_name, None)
        if one is not None:
            one.close()

    def _close_training(self, source_name: str) -> None:
        bar = self._trainings.pop(source_name, None)
        if bar is not None:
            bar.close()

    # -- how it is drawn ---------------------------------------------------------

    def _title(self, source_name: str) -> tuple[str, str]:
        name = _shorten(source_name)
        if source_name not in self._epochs:
            return name, name
        epoch, last = self._epochs[source_name]
        number = str(epoch) if last is None else f"{epoch}/{last}"
        return f"{name} epoch {number}", f"{name} {number}"

    def _open_bar(self, long: str, short: str, **kwargs: Any) -> Bar | None:
        """Open a bar; None where none can be drawn."""
        from drytrack.trackers import _tqdm_bars

        stream = self.stream
        if self.file is None and _tqdm_bars.is_notebook():
            return _tqdm_bars.open_notebook_bar(long, short, **kwargs)
        if stream is None or not _is_terminal(stream):
            return None
        return _tqdm_bars.open_terminal_bar(long, short, stream, **kwargs)


class _Pass(Protocol):
    """One pass over a loader, on the screen."""

    @property
    def finished(self) -> bool:
        """Whether nothing more is expected of it but its metrics."""

    def update(self, metrics: Mapping[str, float], n_batches: int) -> None:
        """Count batches and note the latest metrics."""

    def settle(self, metrics: Mapping[str, float]) -> None:
        """Show the metrics of the whole pass."""

    def close(self) -> None:
        """Draw it for the last time."""


class _Count:
    """Batches and samples of a pass, and what was measured."""

    def __init__(self, event: log_events.IterateBatchEvent) -> None:
        self.event = event
        self.batches = 0
        self.metrics: Mapping[str, float] = {}
        self.settled = False

    @property
    def finished(self) -> bool:
        total = self.event.n_iter
        return self.settled if total is None else self.batches >= total

    @property
    def samples(self) -> int | None:
        """Samples seen; the last batch of a data set may be smaller."""
        if self.event.batch_size is None:
            return None
        seen = self.batches * self.event.batch_size
        size = self.event.dataset_size
        return seen if size is None else min(seen, size)

    def add(self, metrics: Mapping[str, float], n_batches: int) -> None:
        self.batches += n_batches
        if not self.settled:
            self.metrics = metrics

    def settle(self, metrics: Mapping[str, float]) -> None:
        self.metrics = {**self.metrics, **metrics} if self.settled else metrics
        self.settled = True


class _BarPass:
    """A pass as a bar."""

    def __init__(self, bar: Bar, event: log_events.IterateBatchEvent) -> None:
        self._bar = bar
        self._count = _Count(event)

    @property
    def finished(self) -> bool:
        return self._count.finished

    def update(self, metrics: Mapping[str, float], n_batches: int) -> None:
        self._count.add(metrics, n_batches)
        self._bar.show(self._count.metrics, self._count.samples)
        self._bar.update(n_batches)
        if self._count.finished:
            self._bar.stop_clock()
            self._bar.refresh()

    def settle(self, metrics: Mapping[str, float]) -> None:
        self._count.settle(metrics)
        if self._count.finished:
            self._bar.stop_clock()
        self._bar.show(self._count.metrics, self._count.samples)
        self._bar.refresh()

    def close(self) -> None:
        self._bar.close()


class _LinePass:
    """A pass as plain lines."""

    def __init__(
        self, title: str, event: log_events.IterateBatchEvent, owner: TqdmLogger
    ) -> None:
        self._title = title
        self._owner = owner
        self._count = _Count(event)
        self._began = self._last_line = time.monotonic()
        self._last_batch = self._began

    @property
    def finished(self) -> bool:
        return self._count.finished

    def update(self, metrics: Mapping[str, float], n_batches: int) -> None:
        self._count.add(metrics, n_batches)
        self._last_batch = now = time.monotonic()
        if now - self._last_line >= self._owner.interval_s and not self.finished:
            self._last_line = now
            self._owner.write(self._say())

    def settle(self, metrics: Mapping[str, float]) -> None:
        self._count.settle(metrics)

    def close(self) -> None:
        if self._owner.leave:
            self._owner.write(self._say())

    def _say(self) -> str:
        count = self._count
        total = count.event.n_iter
        batches = str(count.batches) if total is None else f"{count.batches}/{total}"
        parts = [f"{batches} batches"]
        if count.metrics:
            parts.append(_screen.say_metrics(count.metrics))
        seconds = self._last_batch - self._began
        if seconds > 0:
            what = "batches" if count.samples is None else "samples"
            seen = count.batches if count.samples is None else count.samples
            parts.append(f"{_screen.say_number(seen / seconds)} {what}/s")
        return f"{self._title}: {', '.join(parts)}"


def _shorten(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 3] + "..."


def _is_terminal(stream: TextIO) -> bool:
    """Return whether the cursor can be moved on the stream."""
    if os.environ.get("TERM") == "dumb":
        return False
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # no file, or closed
        return False
