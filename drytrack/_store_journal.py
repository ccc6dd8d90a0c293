"""The store that is a folder of recorded runs: records and journals, no database."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from drytrack import _digest, _edits
from drytrack.core import _record
from drytrack.core._atomic import replace_file
from drytrack.core._names import check_name
from drytrack.core._record import RunRecord
from drytrack.core.journal import JournalReader
from drytrack.store import BATCH, Store, StoredRun, list_experiments, meets_all, runs

if TYPE_CHECKING:
    from drytrack._conditions import Query
    from drytrack._summaries import Better, Checkpoint, SeriesKey, SeriesSummary

GOALS = "goals.json"


class JournalStore(Store):
    """Reads runs where they were recorded."""

    def __init__(self, par_dir: pathlib.Path) -> None:
        """Choose the folder.

        Args:
            par_dir: The folder that experiments were given.
        """
        self.par_dir = par_dir
        self.url = str(par_dir)

    def find(self, query: Query) -> Iterator[StoredRun]:
        """Return the runs that a query means; see `Store.find`."""
        for record in runs(self.par_dir, query.experiment):
            if query.statuses and record.status not in query.statuses:
                continue
            if not set(query.tags) <= set(record.tags):
                continue
            run = self.open_run(record)
            if meets_all(run, query):
                yield run

    def open_run(self, record: RunRecord) -> JournalRun:
        """Return the run of a record."""
        return JournalRun(record, lambda: self.goals(record.experiment))

    def experiments(self) -> list[str]:
        """Return the names of the experiments."""
        return list_experiments(self.par_dir)

    def goals(self, experiment: str) -> dict[str, Better]:
        """Return what is declared; see `Store.goals`."""
        try:
            data = json.loads(self._goals_file(experiment).read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return {str(metric): better for metric, better in data.items()}

    def _keep_goal(self, experiment: str, metric: str, better: Better | None) -> None:
        known = self.goals(experiment)
        known.pop(metric, None)
        if better is not None:
            known[check_name(metric, "metric")] = better
        path = self._goals_file(experiment)
        text = json.dumps(known, indent=1, ensure_ascii=False)
        try:
            replace_file(path, text.encode())
        except OSError as err:
            raise _record.storage_error(path.parent, err) from err

    def _goals_file(self, experiment: str) -> pathlib.Path:
        return self.par_dir / _record.FOLDER / experiment / GOALS


class JournalRun(StoredRun):
    """A run that is read from its record and its journal.

    Attributes:
        path: The run's folder.
    """

    def __init__(
        self, record: RunRecord, goals: Callable[[], Mapping[str, Better]]
    ) -> None:
        """Take over a record.

        Args:
            record: The record.
            goals: Returns what is declared better for its experiment.
        """
        self.path = record.path
        self._goals = goals
        self._known: _digest.Digest | None = None
        self._take(record)

    def _take(self, record: RunRecord) -> None:
        data = record.data
        attempts = data["attempts"]
        self._data = data
        self.id = record.id
        self.uuid = record.uuid
        self.experiment = record.experiment
        self.status = record.status
        self.tags = record.tags
        self.created = float(data.get("created", 0.0))
        self.started = _time_in(attempts[0], "started") if attempts else None
        self.ended = _time_in(attempts[-1], "ended") if attempts else None
        self.attempt = record.attempt
        self.description = data.get("description")
        self.error = record.error

    @property
    def record(self) -> Mapping[str, Any]:
        """The content of ``record.json``."""
        return self._data

    def digest(self) -> _digest.Digest:
        """Return what the journal comes to; read when it is first asked for."""
        if self._known is None:
            if JournalReader(self.path).exists:
                self._known = _digest.digest(self.path)
            else:  # it was never started
                self._known = _digest.Digest()
        return self._known

    def params(self) -> dict[str, Any]:
        """Return configuration and parameters; see `StoredRun.params`."""
        return self.digest().params

    def values(self) -> dict[str, Any]:
        """Return the final values; see `StoredRun.values`."""
        return dict(self.digest().values)

    def checkpoints(self) -> list[Checkpoint]:
        """Return the saved models, in order."""
        return [found for found, _ in self.digest().saved]

    def read_points(
        self, wanted: Sequence[SeriesKey]
    ) -> Iterator[tuple[SeriesKey, list[int], list[float]]]:
        """Read series by the attempt rule, in parts; see `StoredRun.read_points`."""
        parts: dict[SeriesKey, tuple[list[int], list[float]]] = {}
        chosen = frozenset(wanted)
        held = 0
        reader = JournalReader(self.path)
        known = self.digest()
        for key, step, value in _digest.read_points(reader, known, chosen.__contains__):
            part = parts.get(key)
            if part is None:
                part = parts[key] = ([], [])
            part[0].append(step)
            part[1].append(value)
            held += 1
            if held >= BATCH:
                yield from ((key, *part) for key, part in parts.items())
                parts, held = {}, 0
        yield from ((key, *part) for key, part in parts.items())

    def delete(self) -> None:
        """Delete the run's folder; what trackers wrote elsewhere stays."""
        _edits.delete(self.path)

    def _read_goals(self) -> Mapping[str, Better]:
        return self._goals()

    def _read_summaries(self) -> Iterable[SeriesSummary]:
        return self.digest().series.values()

    def _find_checkpoint(self, model: str, epoch: int) -> Checkpoint | None:
        return self.digest().find_checkpoint(model, epoch)

    def _change(self, changes: Mapping[str, Any]) -> None:
        _edits.edit(self.path, changes)
        self._take(_record.read_record(self.path))


def _time_in(entry: Mapping[str, Any], key: str) -> float | None:
    found = entry.get(key)
    return float(found) if isinstance(found, (int, float)) else None
