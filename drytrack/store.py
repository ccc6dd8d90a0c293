"""Reading runs back: find them, compare them, pull their curves into data frames.

::

    store = drytrack.open_store("experiments")
    runs = store.runs("Digits", status="completed", params={"lr": ("<", 0.01)})
    runs.summary().to_pandas()
    runs[-1].metrics("loss", axis="step").to_polars()

A store is a folder of recorded runs, whose journals are read, or a database.
"""

from __future__ import annotations

import abc
import dataclasses
import operator
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from drytrack import _conditions
from drytrack._conditions import Query
from drytrack._frames import Kind, Table, one_batch
from drytrack._summaries import Better, Checkpoint, SeriesKey, SeriesSummary
from drytrack.core import _record
from drytrack.core._record import RunRecord
from drytrack.core.exceptions import ConfigurationError, RunNotFoundError
from drytrack.trackers.base import MetricLoader, Series, SourcedMetrics

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = [
    "Checkpoint",
    "JournalLoader",
    "RunSet",
    "SeriesKey",
    "SeriesSummary",
    "Store",
    "StoredRun",
    "Table",
    "open_store",
    "runs",
]

DIR_VARIABLE = "DRYTRACK_DIR"

DATABASE_SUFFIXES = (".db", ".sqlite", ".sqlite3")

BATCH = 65_536
"""Points that are collected before they are passed on."""

_RUN_COLUMNS: dict[str, Kind] = {"experiment": "text", "run_id": "text"}
_METRIC_COLUMNS: dict[str, Kind] = {
    **_RUN_COLUMNS,
    "model": "text",
    "source": "text",
    "axis": "text",
    "metric": "text",
    "step": "whole",
    "value": "float",
}
_SUMMARY_COLUMNS: dict[str, Kind] = {
    **_RUN_COLUMNS,
    "model": "text",
    "source": "text",
    "axis": "text",
    "metric": "text",
    "count": "whole",
    "first": "float",
    "first_at": "whole",
    "last": "float",
    "last_at": "whole",
    "min": "float",
    "min_at": "whole",
    "max": "float",
    "max_at": "whole",
    "mean": "float",
    "better": "text",
    "best": "float",
    "best_at": "whole",
    "checkpoint": "text",
}
_read_counted = operator.attrgetter(*list(_SUMMARY_COLUMNS)[6:-1])
_LISTED: dict[str, Kind] = {
    **_RUN_COLUMNS,
    "uuid": "text",
    "name": "text",
    "status": "text",
    "attempt": "whole",
    "created": "float",
    "started": "float",
    "ended": "float",
    "tags": "any",
    "notes": "text",
}


class StoredRun(abc.ABC):
    """A run as a store knows it, as of when it was found.

    Attributes:
        id: Id of the run, unique in its experiment.
        uuid: Id of the run, unique in the world.
        experiment: Name of the experiment.
        status: ``created``, ``running``, ``completed``, ``failed`` or
            ``interrupted``; ``crashed`` where its process is gone, ``stalled``
            where its promised check-in is overdue.
        tags: Labels.
        created: When it was created, in seconds since the epoch.
        started: When its first attempt started, or None.
        ended: When its newest attempt ended, or None.
        attempt: Number of the newest attempt; 0 before the first start.
        description: What the experiment is about, or None.
        error: Type, message and traceback of what ended the run, or None.
    """

    id: str
    uuid: str
    experiment: str
    status: str
    tags: list[str]
    created: float
    started: float | None
    ended: float | None
    attempt: int
    description: str | None
    error: Mapping[str, str] | None

    def __repr__(self) -> str:
        """Name the run and its state."""
        return f"<{type(self).__name__} {self.experiment}/{self.id}, {self.status}>"

    @property
    @abc.abstractmethod
    def record(self) -> Mapping[str, Any]:
        """Everything that was recorded of the run's surroundings."""

    @property
    def name(self) -> str:
        """What it is called; its id where it was given no name."""
        return str(self.record.get("name") or self.id)

    @property
    def notes(self) -> str:
        """Text about it; may be empty."""
        return str(self.record.get("notes") or "")

    @abc.abstractmethod
    def params(self) -> dict[str, Any]:
        """Return configuration and parameters, nested names joined by dots."""

    @abc.abstractmethod
    def values(self) -> dict[str, Any]:
        """Return the final values of the run, nested names joined by dots."""

    @abc.abstractmethod
    def checkpoints(self) -> list[Checkpoint]:
        """Return the saved models, in order."""

    def summaries(
        self, better: Mapping[str, Better] | None = None
    ) -> list[SeriesSummary]:
        """Return the summary of each series.

        Args:
            better: Metric → ``"lower"`` or ``"higher"``, besides what has been
                declared by `Store.set_goal`.
        """
        declared = {**self._read_goals(), **(better or {})}
        return [
            self._judge(summary, declared.get(summary.key.metric))
            for summary in self._read_summaries()
            if summary.count  # else all its points belong to an older attempt
        ]

    @abc.abstractmethod
    def read_points(
        self, wanted: Sequence[SeriesKey]
    ) -> Iterator[tuple[SeriesKey, list[int], list[float]]]:
        """Read series by the attempt rule, in parts.

        Args:
            wanted: Which series.

        Yields:
            Series, steps and values; those of one series are in their order.
        """

    def edit(
        self,
        *,
        name: str | None = None,
        notes: str | None = None,
        tags: Sequence[str] | None = None,
    ) -> None:
        """Change what the run is called and labelled; also while it runs.

        Args:
            name: What it is called; "" for its id. The id stays as it is.
            notes: Text about it.
            tags: All labels.

        Raises:
            InvalidNameError: If a name or tag cannot be kept.
            StorageError: If it cannot be written.
        """
        from drytrack import _edits

        self._change(_edits.check(name=name, notes=notes, tags=tags))

    @abc.abstractmethod
    def delete(self) -> None:
        """Delete what the store holds of the run.

        Raises:
            RunHeldError: If a living process holds it.
            StorageError: If it cannot be deleted.
        """

    def series_keys(
        self,
        *names: str,
        model: str | None = None,
        source: str | None = None,
        axis: str | None = None,
    ) -> list[SeriesKey]:
        """Return which series there are.

        Args:
            *names: Metrics; none for all.
            model: Of this model alone.
            source: Of this source alone.
            axis: On this axis alone.
        """
        return [
            summary.key
            for summary in self.summaries()
            if (not names or summary.key.metric in names)
            and model in (None, summary.key.model)
            and source in (None, summary.key.source)
            and axis in (None, summary.key.axis)
        ]

    def series(
        self,
        metric: str,
        *,
        model: str | None = None,
        source: str | None = None,
        axis: str | None = None,
    ) -> Series:
        """Return one series.

        Args:
            metric: The metric.
            model: Its model, where that is needed to tell it.
            source: Its source, where that is needed to tell it.
            axis: Its axis, where that is needed to tell it.

        Raises:
            LookupError: If there is none, or more than one.
        """
        keys = self.series_keys(metric, model=model, source=source, axis=axis)
        if len(keys) != 1:
            found = keys or self.series_keys()
            listed = ", ".join(str(tuple(key)) for key in found[:10]) or "none"
            msg = (
                f"Run {self.id!r} has {len(keys)} series {metric!r}. Name one by "
                f"model, source and axis; there are: {listed}."
            )
            raise LookupError(msg)
        series = Series([], [])
        for _, steps, values in self.read_points(keys):
            if series.steps:
                series.steps.extend(steps)
                series.values.extend(values)
            else:
                series = Series(steps, values)
        return series

    def metrics(
        self,
        *names: str,
        model: str | None = None,
        source: str | None = None,
        axis: str | None = "epoch",
    ) -> Table:
        """Return the points of metrics by the attempt rule; see `RunSet.metrics`."""
        return RunSet([self]).metrics(*names, model=model, source=source, axis=axis)

    def summary(self, better: Mapping[str, Better] | None = None) -> Table:
        """Return the summaries as a table; see `RunSet.summary`."""
        return RunSet([self]).summary(better)

    @abc.abstractmethod
    def _read_goals(self) -> Mapping[str, Better]:
        """Return what is declared for the experiment."""

    @abc.abstractmethod
    def _read_summaries(self) -> Iterable[SeriesSummary]:
        """Return the summary of each series, which others may hold as well."""

    @abc.abstractmethod
    def _find_checkpoint(self, model: str, epoch: int) -> Checkpoint | None:
        """Return the newest checkpoint of an epoch that still counts."""

    @abc.abstractmethod
    def _change(self, changes: Mapping[str, Any]) -> None:
        """Change these entries of the record; see `edit`."""

    def _judge(self, summary: SeriesSummary, better: Better | None) -> SeriesSummary:
        """Return a summary that knows what is best; the one given stays as it is."""
        if better is None:
            return summary
        judged = dataclasses.replace(summary, better=better)
        if judged.key.axis == "epoch" and judged.best_at is not None:
            judged.checkpoint = self._find_checkpoint(judged.key.model, judged.best_at)
        return judged


class RunSet(Sequence[StoredRun]):
    """Some runs, in the order of their creation."""

    def __init__(self, found: Sequence[StoredRun]) -> None:
        """Hold the runs."""
        self._runs = list(found)

    def __repr__(self) -> str:
        """Count the runs."""
        return f"<RunSet of {len(self)}>"

    def __len__(self) -> int:
        """Return how many runs there are."""
        return len(self._runs)

    @overload
    def __getitem__(self, index: int) -> StoredRun: ...
    @overload
    def __getitem__(self, index: slice) -> RunSet: ...
    def __getitem__(self, index: int | slice) -> StoredRun | RunSet:
        """Return a run, or some of them."""
        if isinstance(index, slice):
            return RunSet(self._runs[index])
        return self._runs[index]

    def table(self) -> Table:
        """Return one row for each run: id, status, times, tags."""
        rows = [[getattr(run, _ATTRIBUTES.get(c, c)) for c in _LISTED] for run in self]
        return one_batch(_LISTED, rows)

    def params(self) -> Table:
        """Return one row for each run, with a column for each parameter."""
        chosen = [run.params() for run in self]
        names = list(dict.fromkeys(name for params in chosen for name in params))
        # A parameter may be called as the columns that tell the run are.
        labels = [f"param.{n}" if n in _RUN_COLUMNS else n for n in names]
        columns: dict[str, Kind] = {**_RUN_COLUMNS, **dict.fromkeys(labels, "any")}
        rows = [
            [run.experiment, run.id, *map(params.get, names)]
            for run, params in zip(self, chosen, strict=True)
        ]
        return one_batch(columns, rows)

    def summary(self, better: Mapping[str, Better] | None = None) -> Table:
        """Return one row for each run and series; see `SeriesSummary`.

        Args:
            better: Metric → ``"lower"`` or ``"higher"``, besides what has been
                declared by `Store.set_goal`.
        """
        rows = []
        for run in self:
            for found in run.summaries(better):
                saved = found.checkpoint.location if found.checkpoint else None
                counted = _read_counted(found)
                rows.append([run.experiment, run.id, *found.key, *counted, saved])
        return one_batch(_SUMMARY_COLUMNS, rows)

    def metrics(
        self,
        *names: str,
        model: str | None = None,
        source: str | None = None,
        axis: str | None = "epoch",
    ) -> Table:
        """Return one row for each point, by the attempt rule.

        Up to 65,536 points of a run come series by series; of more, the series
        take turns, so that memory stays bounded.

        Args:
            *names: Metrics; none for all.
            model: Of this model alone.
            source: Of this source alone.
            axis: ``"epoch"``, ``"step"`` or another axis; None for all.
        """

        def read() -> Iterator[list[list[Any]]]:
            for run in self:
                keys = run.series_keys(*names, model=model, source=source, axis=axis)
                for key, steps, values in run.read_points(keys) if keys else ():
                    told = [run.experiment, run.id, *key]
                    yield [*([item] * len(steps) for item in told), steps, values]

        return Table(_METRIC_COLUMNS, read)


_ATTRIBUTES = {"run_id": "id"}


class Store(abc.ABC):
    """Where runs are kept: a folder, or a database.

    Attributes:
        url: The folder or the address; without a password.
    """

    url: str

    def __repr__(self) -> str:
        """Say where it is."""
        return f"<{type(self).__name__} {self.url}>"

    def runs(
        self,
        experiment: str | None = None,
        *,
        tag: str | Sequence[str] | None = None,
        status: str | Sequence[str] | None = None,
        params: Mapping[str, object] | None = None,
        metrics: Mapping[str, object] | None = None,
    ) -> RunSet:
        """Find runs, oldest first.

        A condition is a value, which means equality, or a pair such as
        ``("<=", 0.01)`` of ``<``, ``<=``, ``==``, ``!=``, ``>=``, ``>`` or
        ``in`` and a value. A run without the parameter or the metric does not
        meet it.

        Args:
            experiment: Name of the experiment.
            tag: A label, or several that a run must all have.
            status: A status, or several of which a run must have one.
            params: Parameter, nested names joined by dots → condition.
            metrics: Metric → condition on its last value; or on another
                statistic, as in ``"loss.min"`` and ``"accuracy.best"``. Where
                several series have the name, one must meet it.

        Raises:
            ConfigurationError: If there is no such comparison.
        """
        query = Query(
            experiment,
            _several(tag),
            _several(status),
            dict(params or {}),
            dict(metrics or {}),
        )
        return RunSet(list(self.find(query)))

    @abc.abstractmethod
    def find(self, query: Query) -> Iterator[StoredRun]:
        """Return the runs that a query means, oldest first."""

    @abc.abstractmethod
    def goals(self, experiment: str) -> dict[str, Better]:
        """Return what is declared: metric → ``lower`` or ``higher`` is better."""

    def set_goal(self, experiment: str, metric: str, better: Better | None) -> None:
        """Declare which values of a metric are better.

        Args:
            experiment: Name of the experiment.
            metric: The metric.
            better: ``"lower"`` or ``"higher"``; None to declare nothing.

        Raises:
            ConfigurationError: If ``better`` is something else, or a database has
                no such experiment.
            StorageError: If it cannot be written.
        """
        if better not in ("lower", "higher", None):
            msg = f"better is {better!r}. Pass 'lower', 'higher' or None."
            raise ConfigurationError(msg)
        self._keep_goal(experiment, metric, better)

    @abc.abstractmethod
    def _keep_goal(self, experiment: str, metric: str, better: Better | None) -> None:
        """Keep what `set_goal` was told."""


def meets_all(run: StoredRun, query: Query) -> bool:
    """Return whether a run meets the conditions on parameters and metrics."""
    if query.params:
        params = run.params()
        for name, condition in query.params.items():
            if name not in params or not _conditions.meets(params[name], condition):
                return False
    if not query.metrics:
        return True
    summaries = run.summaries()
    known = {summary.key.metric for summary in summaries}
    for name, condition in query.metrics.items():
        metric, statistic = _conditions.name_statistic(name, known.__contains__)
        if not any(
            _conditions.meets(getattr(summary, statistic), condition)
            for summary in summaries
            if summary.key.metric == metric
        ):
            return False
    return True


def open_store(
    where: str | os.PathLike[str] | sa.Engine | sa.URL | None = None,
) -> Store:
    """Open the runs of a folder or a database.

    Args:
        where: The folder that experiments were given as ``par_dir``, by default
            ``DRYTRACK_DIR``, else the working directory; or an SQLite file, the
            address of a database, or an engine of SQLAlchemy.

    Raises:
        RunNotFoundError: If there is no such folder.
        FileNotFoundError: If there is no such database file.
        SchemaError: If the tables of the database are not ours.
        ConfigurationError: If the address cannot be read.
    """
    if where is None or (
        isinstance(where, (str, os.PathLike)) and not names_database(os.fspath(where))
    ):
        from drytrack._store_journal import JournalStore

        return JournalStore(find_dir(where))
    from drytrack._store_sql import SQLStore

    return SQLStore(where)


def names_database(text: str) -> bool:
    """Return whether a text means a database rather than a folder."""
    path = pathlib.Path(text)
    suffixed = path.suffix.lower() in DATABASE_SUFFIXES and not path.is_dir()
    return "://" in text or suffixed or path.is_file()


def find_dir(where: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """Return the folder whose runs are meant.

    Raises:
        RunNotFoundError: If there is no such folder.
    """
    folder = pathlib.Path(where or os.environ.get(DIR_VARIABLE) or ".").absolute()
    if folder.name == _record.FOLDER:
        folder = folder.parent
    if not folder.is_dir():
        msg = f"There is no folder {folder}. Pass the par_dir of the experiments."
        raise RunNotFoundError(msg)
    return folder


def list_experiments(par_dir: pathlib.Path) -> list[str]:
    """Return the experiments that a folder has runs of, by name."""
    try:
        found = list((par_dir / _record.FOLDER).iterdir())
    except FileNotFoundError:
        return []
    names = [entry.name for entry in found if entry.is_dir()]
    return sorted(name for name in names if not name.startswith(TRASH))


TRASH = ".deleted-"
"""How folders begin that are being deleted."""


def runs(
    par_dir: str | os.PathLike[str] | None = None, experiment: str | None = None
) -> list[RunRecord]:
    """Return the records of runs, oldest first; needs no journal and no server.

    Their `RunRecord.status` tells running, stalled, crashed, interrupted,
    failed and completed apart. A record that cannot be read is reported by a
    `RecordWarning` and left out.

    Args:
        par_dir: The folder that they were recorded in, by default
            ``DRYTRACK_DIR``, else the working directory.
        experiment: Name of the experiment, by default all.

    Raises:
        RunNotFoundError: If there is no such folder.
    """
    folder = find_dir(par_dir)
    names = list_experiments(folder) if experiment is None else [experiment]
    found = [record for name in names for record in _record.read_records(folder, name)]
    return sorted(found, key=lambda record: record.data.get("created", 0.0))


class JournalLoader(MetricLoader):
    """Loads the metrics of a run from its journal."""

    def __init__(self, run_dir: str | os.PathLike[str]) -> None:
        """Choose a run.

        Args:
            run_dir: The run's folder, ``<par_dir>/.drytrack/<experiment>/<run_id>``.
        """
        self.run_dir = pathlib.Path(run_dir)

    def load_metrics(
        self, model_name: str, max_epoch: int = -1, *, axis: str = "epoch"
    ) -> SourcedMetrics:
        """Load the metrics of a model; see `MetricLoader.load_metrics`.

        Raises:
            JournalError: If there is no journal, or a newer version wrote it.
        """
        from drytrack import _digest
        from drytrack.core.journal import JournalReader

        known = _digest.digest(self.run_dir)
        points = _digest.read_points(
            JournalReader(self.run_dir),
            known,
            lambda key: (key.model, key.axis) == (model_name, axis),
        )
        loaded: SourcedMetrics = {}
        for key, step, value in points:
            if max_epoch < 0 or step <= max_epoch:
                of_source = loaded.setdefault(key.source, {})
                series = of_source.setdefault(key.metric, Series([], []))
                series.steps.append(step)
                series.values.append(value)
        return loaded


def _several(value: str | Sequence[str] | None) -> Sequence[str]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)
