"""Tracker that writes metrics, learning rates and tables as CSV files."""

from __future__ import annotations

import collections
import contextlib
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

from drytrack.core import log_events
from drytrack.core._atomic import replace_file
from drytrack.core._history import AttemptCounter, Axis, series_name
from drytrack.core._names import encode_file_name
from drytrack.core._record import tag_non_finite
from drytrack.core.exceptions import AccessOutsideScopeError
from drytrack.trackers._csv_index import Index, read_index
from drytrack.trackers._csv_series import (
    SeriesFile,
    csv_line,
    newest_seq,
    read_points,
)
from drytrack.trackers._line_file import LineFile, replacing
from drytrack.trackers.base import (
    Dumper,
    MetricLoader,
    SourcedMetrics,
    numbered,
    resolve_axis,
    split_rates,
)

if TYPE_CHECKING:
    import os

__all__ = ["CSVDumper"]

MAX_OPEN_FILES = 64
"""Files that are open at once; whoever has more is far below a process's limit."""

MAX_KNOWN_NAMES = 1_000
_LR_HEADER = "epoch,attempt,rewind,seq,scheduler,group,lr\n"


class CSVDumper(Dumper, MetricLoader):
    """Writes what a run measures as CSV files, and reads its metrics back.

    In the run's folder::

        index.jsonl                   which file holds what, by its true names
        config.json, config_2.json    the configuration of each start
        params.json, summary.json     parameters, and final values
        <model>/<source>.csv          metrics of epochs: epoch,attempt,rewind,seq,loss
        <model>/<source>-steps.csv    metrics of steps; without a model, one level up
        <model>/<source>-lr.csv       learning rates
        tables/<source>/<name>/<step>.csv

    Floats are written in full, so they are read back as they were; NaN and
    infinity are ``nan``, ``inf`` and ``-inf``, an empty cell is no value. A
    metric that appears late becomes a column; see `drytrack.trackers._csv_series`.
    A resumed run goes on in the same files: nothing is replaced, and
    `load_metrics` reads them as one history. A row is with the kernel before
    its event has been handled, so it survives a kill of the process.
    """

    name = "csv"
    folder_name = "csv"
    notify = Dumper.notify.extend()

    def __init__(self, par_dir: str | os.PathLike[str] | None = None) -> None:
        """Choose where to write.

        Args:
            par_dir: By default the experiment's.
        """
        super().__init__(par_dir)
        self._folder: pathlib.Path | None = None

    @classmethod
    def from_folder(cls, run_dir: str | os.PathLike[str]) -> Self:
        """Return a dumper whose `load_metrics` reads a run that it did not watch.

        Args:
            run_dir: The run's folder, ``<par_dir>/csv/<experiment>/…``.

        Raises:
            FileNotFoundError: If there is no such folder.
        """
        folder = pathlib.Path(run_dir).absolute()
        if not folder.is_dir():
            msg = f"{folder} is no folder. Pass the one that holds a run's index.jsonl."
            raise FileNotFoundError(msg)
        dumper = cls()
        dumper._folder = folder
        return dumper

    # -- writing -----------------------------------------------------------------

    @notify.register
    def _open_folder(self, event: log_events.StartExperimentEvent) -> None:
        self._folder = folder = self.run_dir
        self._index = self.enter_context(contextlib.closing(Index(folder, event)))
        self._open_files: collections.OrderedDict[LineFile, None] = (
            collections.OrderedDict()
        )
        self.enter_context(contextlib.ExitStack()).callback(
            _close_all, self._open_files
        )
        self._latest: LineFile | None = None
        self._series: dict[tuple[str, str, str], SeriesFile] = {}
        self._rates: dict[tuple[str, str], LineFile] = {}
        self._names: dict[tuple[str, ...], list[str]] = {}
        number = self._index.number
        self._attempts = AttemptCounter(number, self._index.rewinds)
        # What is newer than all rows has not been written: one event, one write.
        self._newest = max(map(newest_seq, self._index.files), default=0)
        _write_json(folder / numbered("config", ".json", number), event.config)

    def last_seq(self) -> int | None:
        """Return the newest sequence number in the run's files."""
        return self._newest

    def _take(self, event: log_events.Event) -> int | str | None:
        """Return an event's sequence number, "" for none, None if it is here."""
        stamp = event._stamp if hasattr(event, "_stamp") else None
        if stamp is None or stamp[0] <= 0:
            return ""
        seq: int = stamp[0]
        if seq <= self._newest:
            return None
        self._newest = seq
        return seq

    @notify.register
    def _add_epoch(self, event: log_events.MetricEvent) -> None:
        self._attempts.see(event)
        file = self._find(event.model_name, event.source_name, "epoch")
        self._add(file, event, event.model_name, event.epoch, event.metrics)

    @notify.register
    def _add_step(self, event: log_events.StepMetricEvent) -> None:
        metrics = event.metrics
        if event.context:
            names = self._name_series(metrics, event.context)
            metrics = dict(zip(names, metrics.values(), strict=True))
        file = self._find(event.model_name, event.source_name, event.axis)
        self._add(file, event, event.model_name, event.step, metrics)

    def _add(
        self,
        file: SeriesFile,
        event: log_events.Event,
        model_name: str,
        step: int,
        metrics: Mapping[str, float],
    ) -> None:
        newest, seq = self._newest, self._take(event)
        if seq is None:
            return
        try:
            file.add(step, metrics, self._attempts.of(event, model_name), seq)
        except BaseException:
            self._newest = newest
            raise

    @notify.register
    def _count_start(self, event: log_events.StartEpochEvent) -> None:
        self._attempts.see(event)

    @notify.register
    def _count_end(self, event: log_events.EndEpochEvent) -> None:
        self._attempts.see(event)

    @notify.register
    def _rewind(self, event: log_events.LoadModelEvent) -> None:
        before = self._attempts.of(event, event.model_name)
        stamp = event.stamp
        seq = stamp.seq if stamp is not None and stamp.seq > 0 else 0
        if seq and seq <= self._index.rewound_at:
            return  # it is in the index, and was counted when that was read
        self._attempts.see(event)
        if self._attempts.of(event, event.model_name) != before:
            self._index.note_rewind(event.model_name, before[0], seq)

    @notify.register
    def _add_learning_rate(self, event: log_events.LearningRateEvent) -> None:
        key = event.model_name, event.source_name
        if key not in self._rates:
            model, source = key
            labels = {"kind": "lr", "model": model, "source": source}
            path = self._index.find([model], source, "-lr.csv", labels)
            self._rates[key] = LineFile(path)
        file = self._rates[key]
        self._touch(file)
        newest, seq = self._newest, self._take(event)
        if seq is None:
            return
        attempt = self._attempts.of(event, event.model_name)
        at = [event.epoch, *attempt, seq, event.scheduler_name]
        rows = [csv_line([*at, *rate]) for rate in split_rates(event.base_lr)]
        header = "" if file.open().tell() else _LR_HEADER
        text = "".join([header, *rows])
        try:
            file.append(text.encode("utf-8", "backslashreplace"))
        except BaseException:
            self._newest = newest
            raise

    @notify.register
    def _write_table(self, event: log_events.TableEvent) -> None:
        source, name, step = event.source_name, event.name, str(event.step)
        number = self._index.number
        labels = {"kind": "table", "source": source, "name": name, "step": step}
        path = self._index.find(
            ["tables", source, name],
            step,
            numbered("", ".csv", number),
            {**labels, "start": str(number)},
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            for row in (event.columns, *event.rows):
                file.write(csv_line(row).encode("utf-8", "backslashreplace"))

    @notify.register
    def _merge_params(self, event: log_events.ParamsEvent) -> None:
        _merge_json(self.run_dir / "params.json", event.params)

    @notify.register
    def _merge_summary(self, event: log_events.SummaryEvent) -> None:
        _merge_json(self.run_dir / "summary.json", event.summary)

    @notify.register
    def _finish(self, event: log_events.StopExperimentEvent) -> None:
        _merge_json(self.run_dir / "summary.json", event.summary)

    def _find(self, model: str, source: str, axis: str) -> SeriesFile:
        """Return the file of a series, as the latest of those that may be open."""
        file = self._series.get((model, source, axis))
        if file is None:
            ending = {"epoch": ".csv", "step": "-steps.csv"}.get(axis)
            ending = ending or f"-{encode_file_name(axis)[:80]}.csv"
            labels = {"kind": "metrics", "model": model, "source": source, "axis": axis}
            path = self._index.find([model] if model else [], source, ending, labels)
            file = SeriesFile(path, axis)
            self._series[model, source, axis] = file
        if file.lines is not self._latest:
            self._touch(file.lines)
        return file

    def _name_series(
        self, metrics: Mapping[str, float], context: Mapping[str, object]
    ) -> list[str]:
        # Not by the context itself: 1, 1.0 and True are equal and look different.
        key = repr(context), *metrics
        names = self._names.get(key)
        if names is None:
            if len(self._names) >= MAX_KNOWN_NAMES:
                self._names.clear()
            names = self._names[key] = [series_name(n, context) for n in metrics]
        return names

    def _touch(self, file: LineFile) -> None:
        """Make a file the latest; close the one unused for longest."""
        self._latest = file
        self._open_files[file] = None
        self._open_files.move_to_end(file)
        if len(self._open_files) > MAX_OPEN_FILES:
            self._open_files.popitem(last=False)[0].close()

    # -- reading -----------------------------------------------------------------

    def load_metrics(
        self, model_name: str, max_epoch: int = -1, *, axis: str = "epoch"
    ) -> SourcedMetrics:
        """Load metrics of the current run, or the last one.

        See `MetricLoader.load_metrics`.

        Raises:
            AccessOutsideScopeError: If the dumper has watched no run.
        """
        if self._folder is None:
            msg = (
                "This CSVDumper has watched no run. Read the folder of one: "
                "CSVDumper.from_folder(run_dir).load_metrics(…)."
            )
            raise AccessOutsideScopeError(msg)
        wanted = {"kind": "metrics", "model": model_name, "axis": axis}
        points = Axis()
        for entry in read_index(self._folder):
            if wanted.items() <= entry.items():
                path = self._folder / str(entry["file"])
                for metric, attempt, step, value in read_points(path, axis):
                    points.add((entry["source"], metric), attempt, step, value)
        return resolve_axis(points, max_epoch)


def _close_all(files: Iterable[LineFile]) -> None:
    for file in files:
        file.close()


def _write_json(path: pathlib.Path, data: object) -> None:
    """Replace a file by plain data as JSON, NaN and infinity tagged."""
    text = json.dumps(tag_non_finite(data), indent=2, ensure_ascii=False, default=str)
    replace_file(path, f"{text}\n".encode("utf-8", "backslashreplace"))


def _merge_json(path: pathlib.Path, data: Mapping[str, Any]) -> None:
    """Add entries to those of a JSON file; a damaged one is replaced."""
    try:
        known = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        known = {}
    _write_json(path, {**known, **data})
