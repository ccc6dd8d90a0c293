"""Experiments: what a run is a run of."""

from __future__ import annotations

import logging
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Literal, Self, TypeVar, cast

from drytrack.core import _checkpoint, _current, _record
from drytrack.core._defaults import default_trackers
from drytrack.core._names import check_folder_name, check_name
from drytrack.core._rank import find_rank
from drytrack.core._record import RunRecord
from drytrack.core.exceptions import (
    AccessOutsideScopeError,
    ConfigurationError,
    RecordError,
    RunExistsError,
    RunNotFoundError,
)
from drytrack.core.run import Run, new_record
from drytrack.core.track import EventDispatcher

__all__ = ["Experiment"]

C = TypeVar("C")

DIR_VARIABLE = "DRYTRACK_DIR"
RECORD_VARIABLE = "DRYTRACK_RECORD"

_logger = logging.getLogger("drytrack")


class _ConfigGetter:
    """``Experiment.get_config``, of the class (current run) or of an instance."""

    def __get__(self, instance: Experiment[Any] | None, cls: Any) -> Callable[[], Any]:
        def get_config() -> Any:
            experiment = cls.get_current() if instance is None else instance
            run = _current.context_run()
            if run is not None and run.experiment is experiment:
                return run.config
            runs = [r for r in _current.active_runs() if r.experiment is experiment]
            return runs[0].config if len(runs) == 1 else experiment.config

        return get_config


class Experiment(_checkpoint.ExperimentState, Generic[C]):
    """What is tracked: a name, a configuration, trackers, and its runs.

    Attributes:
        config: The configuration, the very object that was passed.
        name: Name of the experiment, and of its folder.
        par_dir: The folder that runs are recorded in.
        tags: Labels of its runs.
        description: What it is about.
        trackers: Who watches; see `EventDispatcher.subscribe`.
        get_config: Returns the configuration, of the current run where there
            is one; works on the class (the current experiment) as well.
    """

    get_config = _ConfigGetter()

    def __init__(
        self,
        config: C | None = None,
        *,
        name: str | None = None,
        par_dir: str | os.PathLike[str] | None = None,
        tags: Sequence[str] = (),
        description: str | None = None,
    ) -> None:
        """Name the experiment and subscribe the default trackers.

        Args:
            config: Any object.
            name: By default the class name.
            par_dir: By default ``DRYTRACK_DIR``, else the working directory.
            tags: Labels.
            description: What it is about.

        Raises:
            InvalidNameError: If the name cannot be a folder's, or a tag cannot
                be kept.
        """
        self.config = cast("C", config)
        self.name = check_folder_name(
            type(self).__name__ if name is None else name, "experiment name"
        )
        found = par_dir if par_dir is not None else os.environ.get(DIR_VARIABLE)
        # Absolute: a script that changes its directory keeps its runs together.
        self.par_dir = pathlib.Path(found or ".").absolute()
        tags = [tags] if isinstance(tags, str) else tags
        self.tags = [check_name(tag, "tag") for tag in tags]
        self.description = description
        self.trackers = EventDispatcher()
        self.trackers.subscribe(**default_trackers())
        self._unrecorded: dict[str, dict[str, Any]] = {}

    def __repr__(self) -> str:
        """Name the experiment and its folder."""
        return f"<{type(self).__name__} {self.name!r} in {self.par_dir}>"

    @classmethod
    def get_current(cls) -> Self:
        """Return the experiment of the current run.

        Raises:
            AccessOutsideScopeError: If there is no current run, or it belongs
                to an experiment of another class.
        """
        experiment = _current.current_run().experiment
        if not isinstance(experiment, cls):
            msg = (
                f"The current run belongs to a {type(experiment).__name__}, not to a "
                f"{cls.__name__}. Ask {type(experiment).__name__}.get_current()."
            )
            raise AccessOutsideScopeError(msg)
        return experiment

    @property
    def previous_runs(self) -> list[RunRecord]:
        """The recorded runs of this experiment that have been created, oldest first."""
        return list(_record.read_records(self.par_dir, self.name))

    def create_run(  # each is one choice about a run
        self,
        run_id: str | None = None,
        *,
        resume: bool | Literal["auto"] = False,
        record: bool = True,
        config: Mapping[str, Any] | None = None,
        parent: Run[Any] | None = None,
        rank: int | None = None,
        durability: Literal["process", "machine"] = "process",
    ) -> Run[C]:
        """Prepare a run; it starts with ``with`` or `Run.start`.

        Args:
            run_id: Id of the run, by default the time.
            resume: True goes on with the last run, or the one named; ``"auto"``
                does so where there is one, and starts it otherwise.
            record: Whether to keep a record and a journal.
                ``DRYTRACK_RECORD=0`` switches both off.
            config: Merged over the experiment's configuration, a mapping.
            parent: The active run that this one is a part of.
            rank: Number of this process; by default found out.
            durability: What every event survives: ``"process"``, a kill of the
                process; ``"machine"``, a loss of power, at the price of one
                sync to disk for each.

        Raises:
            RunNotFoundError: If there is nothing to resume.
            RunExistsError: If the id exists and ``resume`` is off.
            RunHeldError: If a living process holds the run.
            RecordError: If the record of the run to resume is damaged or newer.
            StorageError: If the run's folder cannot be created.
            InvalidNameError: If the id cannot be a folder's name.
            ConfigurationError: If an argument is not one of those above.
        """
        if resume not in (True, False, "auto"):
            msg = f"resume is {resume!r}. Pass True, False or 'auto'."
            raise ConfigurationError(msg)
        if durability not in ("process", "machine"):
            msg = f"durability is {durability!r}. Pass 'process' or 'machine'."
            raise ConfigurationError(msg)
        if run_id is not None:
            run_id = check_folder_name(run_id, "run id")
        own_rank = find_rank(rank).rank
        merged = self._merge(config)
        on_disk = record and own_rank == 0 and _is_on(RECORD_VARIABLE)
        previous = None
        kept: dict[str, Any] = {}
        if self._loaded is not None and run_id in (None, self._loaded["id"]):
            run_id = str(self._loaded["id"])
            found = self._find_previous(run_id, on_disk=on_disk)
            previous, kept = _checkpoint.adopt(self, found)
        elif resume:
            previous = self._find_previous(run_id, on_disk=on_disk)
            if previous is None and resume is True and own_rank == 0:
                self._refuse_resume(run_id)
        elif run_id is not None and not on_disk and run_id in self._unrecorded:
            raise RunExistsError(_exists(run_id))
        path = None
        if previous is not None:
            run_id = str(previous["id"])
            if on_disk:
                path = _record.run_folder(self.par_dir, self.name, run_id)
        else:
            entries: dict[str, Any] = {
                "tags": self.tags,
                "description": self.description,
                **kept,
            }
            if parent is not None:
                entries["parent"] = {"id": parent.id, "uuid": parent.uuid}
            if on_disk:
                path, previous = self._make_folder(run_id, entries)
            else:
                run_id = run_id or self._free_id()
                previous = new_record(self.name, run_id, **entries)
            run_id = str(previous["id"])
        last = max(
            _record.newest_attempt(previous["attempts"]),
            _record.last_attempt(path) if path else 0,
        )
        return Run(
            self,
            run_id,
            config=merged,
            path=path,
            record=previous,
            attempt=last + 1,
            parent=parent,
            rank=own_rank,
            durability=durability,
        )

    def _merge(self, config: Mapping[str, Any] | None) -> C:
        if config is None:
            return self.config
        if self.config is None:
            return cast("C", dict(config))
        if not isinstance(self.config, Mapping):
            msg = (
                f"config= is merged over a mapping, but the experiment's configuration "
                f"is a {type(self.config).__name__}. Create an experiment with the "
                f"changed configuration."
            )
            raise ConfigurationError(msg)
        return cast("C", {**self.config, **config})

    def _find_previous(
        self, run_id: str | None, *, on_disk: bool
    ) -> dict[str, Any] | None:
        """Return the record of the run to go on with, if it exists."""
        if not on_disk:
            if run_id is not None:
                return self._unrecorded.get(run_id)
            return next(reversed(self._unrecorded.values()), None)
        if run_id is not None:
            folder = _record.run_folder(self.par_dir, self.name, run_id)
            if not folder.exists():
                return None
            found = _record.read_record(folder)
        else:
            records = self.previous_runs
            if not records:
                return None
            found = records[-1]
        _record.check_free(found)
        return dict(found.data)

    def _refuse_resume(self, run_id: str | None) -> None:
        what = f"run {run_id!r}" if run_id else "a run"
        known = [record.id for record in self.previous_runs][-5:]
        found = f"The last ones are: {', '.join(known)}." if known else "It has none."
        msg = (
            f"There is no record of {what} of experiment {self.name!r} in "
            f"{self.par_dir} to resume. {found} Pass resume='auto' to start it where "
            f"it does not exist, or the par_dir that it was recorded in."
        )
        raise RunNotFoundError(msg)

    def _make_folder(
        self, run_id: str | None, entries: dict[str, Any]
    ) -> tuple[pathlib.Path, dict[str, Any]]:
        """Create the folder of a new run, with its record; return both."""
        stamp = _time_stamp()
        number = 1
        while True:
            name = run_id or (stamp if number == 1 else f"{stamp}_{number}")
            data = new_record(self.name, name, **entries)
            try:
                return _record.make_run_folder(self.par_dir, data), data
            except RunExistsError:
                if run_id is not None:
                    self._refuse_if_held(run_id)
                    raise
                number += 1

    def _refuse_if_held(self, run_id: str) -> None:
        """Say so if a living process holds the run that exists."""
        folder = _record.run_folder(self.par_dir, self.name, run_id)
        try:
            record = _record.read_record(folder)
        except RecordError:
            _logger.debug("the record in %s cannot be read", folder)
        else:
            _record.check_free(record)

    def _free_id(self) -> str:
        stamp = name = _time_stamp()
        number = 1
        taken = {run.id for run in _current.active_runs()} | self._unrecorded.keys()
        while name in taken:
            number += 1
            name = f"{stamp}_{number}"
        return name

    def _note_end(self, run: Run[C]) -> None:
        """Keep what is needed to resume a run, also one that is not on disk."""
        self._ended_state = _checkpoint.pack(run)
        if run.path is None:
            data = run._record_data
            data["attempts"] = [{}] * run.attempt
            self._unrecorded[run.id] = data


def _exists(run_id: str) -> str:
    return (
        f"Run {run_id!r} exists. Go on with it: create_run({run_id!r}, resume=True); "
        f"or choose another id."
    )


def _time_stamp() -> str:
    return time.strftime("%Y-%m-%d_%H-%M-%S")


def _is_on(variable: str) -> bool:
    value = os.environ.get(variable, "1").strip().lower()
    if value not in ("0", "1", "true", "false", "on", "off", "yes", "no", ""):
        msg = f"{variable} is {value!r}. Set it to 0 or 1."
        raise ConfigurationError(msg)
    return value not in ("0", "false", "off", "no")
