"""What several trackers share: folders, loading metrics, keeping them in memory."""

from __future__ import annotations

import abc
import importlib
import pathlib
import re
from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from drytrack.core import log_events
from drytrack.core._history import AttemptCounter, Axis, Series, series_name
from drytrack.core.track import Tracker

if TYPE_CHECKING:
    import os

    from drytrack.trackers._backend import At as At
    from drytrack.trackers._backend import Backend as Backend
    from drytrack.trackers._backend import MediaFile as MediaFile
    from drytrack.trackers._backend import RunInfo as RunInfo
    from drytrack.trackers._backend import flatten as flatten
    from drytrack.trackers._backend import import_backend as import_backend
    from drytrack.trackers._name_rule import NameRule as NameRule
    from drytrack.trackers._plotter import BasePlotter as BasePlotter

__all__ = [
    "At",
    "Backend",
    "BasePlotter",
    "Dumper",
    "MediaFile",
    "MemoryMetrics",
    "MetricLoader",
    "NameRule",
    "RunInfo",
    "Series",
    "SourcedMetrics",
    "flatten",
    "import_backend",
    "numbered",
    "resolve_axis",
    "split_rates",
]

_HOMES = {
    "At": "drytrack.trackers._backend",
    "Backend": "drytrack.trackers._backend",
    "BasePlotter": "drytrack.trackers._plotter",
    "MediaFile": "drytrack.trackers._backend",
    "NameRule": "drytrack.trackers._name_rule",
    "RunInfo": "drytrack.trackers._backend",
    "flatten": "drytrack.trackers._backend",
    "import_backend": "drytrack.trackers._backend",
}

SourcedMetrics = dict[str, dict[str, Series]]
"""Source → metric → its steps and values."""

_TIME_STAMP = re.compile(r"(\d{4}-\d{2}-\d{2})_(\d{2}-\d{2}-\d{2}(?:_\d+)?)")


class Dumper(Tracker):
    """Base of trackers that write files of their own.

    Attributes:
        folder_name: The folder, below ``par_dir``, that all its runs share.
    """

    folder_name: ClassVar[str] = ""
    notify = Tracker.notify.extend()

    def __init__(self, par_dir: str | os.PathLike[str] | None = None) -> None:
        """Choose where to write.

        Args:
            par_dir: By default the experiment's.
        """
        super().__init__()
        self.par_dir = None if par_dir is None else pathlib.Path(par_dir).absolute()

    @property
    def run_dir(self) -> pathlib.Path:
        """The folder for the current run; created when first asked for.

        Raises:
            AccessOutsideScopeError: If the tracker watches no run.
        """
        folder = self.find_run_dir(self.start_event)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def find_run_dir(self, start: log_events.StartExperimentEvent) -> pathlib.Path:
        """Return the folder for the run of a start event, existing or not."""
        base = self.par_dir or start.par_dir
        folder = base / (self.folder_name or self.name) / start.exp_name
        if stamp := _TIME_STAMP.fullmatch(start.run_id):
            return folder / stamp[1] / stamp[2]
        return folder / start.run_id


def numbered(stem: str, suffix: str, attempt: int) -> str:
    """Return the file name for one of a run's attempts: ``config_2.yaml``."""
    return f"{stem}{suffix}" if attempt == 1 else f"{stem}_{attempt}{suffix}"


def split_rates(base_lr: object) -> Iterable[tuple[object, Any]]:
    """Return (group, rate) for whatever form a learning rate came in."""
    if isinstance(base_lr, Mapping):
        return base_lr.items()
    if isinstance(base_lr, (list, tuple)):
        return enumerate(base_lr)
    return [("", base_lr)]


class MetricLoader(abc.ABC):
    """Gives back the metrics of a run."""

    @abc.abstractmethod
    def load_metrics(
        self, model_name: str, max_epoch: int = -1, *, axis: str = "epoch"
    ) -> SourcedMetrics:
        """Load the metrics of a model by the attempt rule.

        Args:
            model_name: Name of the model; "" for step metrics without one.
            max_epoch: The last epoch (or step) to load; negative for all.
            axis: ``"epoch"``, ``"step"``, or another axis of step metrics.

        Returns:
            Source → metric → its epochs or steps and its values.
        """


class MemoryMetrics(Tracker, MetricLoader):
    """Keeps the metrics of the current run in memory, by the attempt rule."""

    notify = Tracker.notify.extend()

    def __init__(self) -> None:
        """Start without metrics."""
        super().__init__()
        self._axes: dict[tuple[str, str], Axis] = {}
        self._attempts = AttemptCounter()
        self._run: tuple[pathlib.Path, str, str] | None = None
        self._newest = 0

    def last_seq(self) -> int | None:
        """Return the newest sequence number in memory; 0 in a new process.

        A resumed run then brings its whole history back from the journal.
        """
        return self._newest

    @notify.register
    def _begin_memory(self, event: log_events.StartExperimentEvent) -> None:
        run = event.par_dir, event.exp_name, event.run_id
        if not event.resumed or run != self._run:
            self._axes = {}
            self._newest = 0
        self._run = run
        # A new one: where runs overlap, this is a copy that shares the old one.
        self._attempts = AttemptCounter()
        self._attempts.see(event)

    @notify.register
    def _rewind(self, event: log_events.LoadModelEvent) -> None:
        self._attempts.see(event)

    @notify.register
    def _count_start(self, event: log_events.StartEpochEvent) -> None:
        self._attempts.see(event)

    @notify.register
    def _count_end(self, event: log_events.EndEpochEvent) -> None:
        self._attempts.see(event)

    @notify.register
    def _keep_epoch(self, event: log_events.MetricEvent) -> None:
        self._attempts.see(event)
        axis = self._axes.setdefault((event.model_name, "epoch"), Axis())
        attempt = self._attempts.of(event, event.model_name)
        for name, value in event.metrics.items():
            axis.add((event.source_name, name), attempt, event.epoch, value)
        self._note(event)

    @notify.register
    def _keep_step(self, event: log_events.StepMetricEvent) -> None:
        axis = self._axes.setdefault((event.model_name, event.axis), Axis())
        attempt = self._attempts.of(event, event.model_name)
        for name, value in event.metrics.items():
            key = (event.source_name, series_name(name, event.context))
            axis.add(key, attempt, event.step, value)
        self._note(event)

    def _note(self, event: log_events.Event) -> None:
        stamp = event.stamp
        if stamp is not None and stamp.seq > 0:
            self._newest = stamp.seq

    def load_metrics(
        self, model_name: str, max_epoch: int = -1, *, axis: str = "epoch"
    ) -> SourcedMetrics:
        """Return the metrics of a model; see `MetricLoader.load_metrics`."""
        return resolve_axis(self._axes.get((model_name, axis), Axis()), max_epoch)


def resolve_axis(axis: Axis, max_step: int = -1) -> SourcedMetrics:
    """Return all series of an axis whose keys are (source, metric)."""
    loaded: SourcedMetrics = {}
    for key in axis.keys():  # noqa: SIM118  # no mapping
        source, metric = _split(key)
        series = axis.resolve(key, max_step)
        if series.steps:
            loaded.setdefault(source, {})[metric] = series
    return loaded


def __getattr__(name: str) -> Any:
    """Import what stands on this module when it is first used."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def _split(key: Hashable) -> tuple[str, str]:
    assert isinstance(key, tuple)  # as added above
    source, metric = key
    return source, metric
