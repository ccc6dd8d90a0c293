"""Tracker that tells of a run in sentences, through the ``drytrack`` logger.

Only that logger is touched, and only from the start of a run on. What the
user has set on it (a level, handlers, propagation) is left alone, whether it
was set with the functions of this module or with `logging` itself.
"""

from __future__ import annotations

import logging
import time
from typing import Self

from drytrack.core import _current, _record, log_events
from drytrack.core.track import Tracker
from drytrack.trackers import _screen
from drytrack.trackers._logger import (
    Level,
    StreamName,
    disable_default_handler,
    disable_propagation,
    enable_default_handler,
    enable_propagation,
    find_level,
    get_verbosity,
    logger,
    prepare,
    reset_logging,
    set_formatter,
    set_verbosity,
)
from drytrack.trackers.base import Dumper

__all__ = [
    "BuiltinLogger",
    "Level",
    "disable_default_handler",
    "disable_propagation",
    "enable_default_handler",
    "enable_propagation",
    "get_verbosity",
    "reset_logging",
    "set_formatter",
    "set_verbosity",
]


class BuiltinLogger(Tracker):
    """Logs the life of a run, in sentences, at levels of its own.

    The lines of several instances, runs and experiments go through one handler
    and are never doubled, also where they propagate to handlers of the root
    logger (Hydra's, for one): these then show them, and our own stays silent.
    """

    name = "builtin_logging"
    notify = Tracker.notify.extend()

    def __init__(
        self,
        *,
        log_metrics: bool = True,
        verbosity: int | str = logging.INFO,
        stream: StreamName = "stderr",
        propagate: bool = False,
    ) -> None:
        """Choose what the logger is set to when a run starts.

        Args:
            log_metrics: Whether metrics are logged; not needed beside bars.
            verbosity: The lowest level to show, as for `set_verbosity`.
            stream: The standard stream to write to.
            propagate: Whether the root logger gets the lines too.

        Raises:
            ValueError: If there is no such level or stream.
        """
        super().__init__()
        if stream not in ("stderr", "stdout"):
            msg = f"stream is {stream!r}. Pass 'stderr' or 'stdout'."
            raise ValueError(msg)
        self.log_metrics = log_metrics
        self.verbosity = find_level(verbosity)
        self.stream: StreamName = stream
        self.propagate = propagate

    @classmethod
    def for_hydra(cls) -> Self:
        """Return one that leaves the lines to Hydra, else uses standard output."""
        return cls(stream="stdout", propagate=True)

    @classmethod
    def minimal(cls, *, log_metrics: bool = False) -> Self:
        """Return one that tells of training and tests alone.

        Args:
            log_metrics: Whether metrics are logged; not needed beside bars.
        """
        return cls(log_metrics=log_metrics, verbosity=Level.TRAINING)

    # -- the run -----------------------------------------------------------------

    @notify.register
    def _tell_start(self, event: log_events.StartExperimentEvent) -> None:
        prepare(self.verbosity, self.stream, propagate=self.propagate)
        self._began = time.monotonic()
        self._training_began: dict[str, float] = {}
        self._last_epochs: dict[str, int | None] = {}
        self._testing: set[str] = set()
        how = f"resumed, attempt {event.attempt}" if event.resumed else "started"
        _log(Level.EXPERIMENT, "%s: run %s %s.", event.exp_name, event.run_id, how)

    @notify.register
    def _tell_stop(self, event: log_events.StopExperimentEvent) -> None:
        completed = event.status == "completed"
        level = Level.EXPERIMENT if completed else logging.WARNING
        cause = ""
        if event.error:
            message = event.error.get("message", "").partition("\n")[0]
            cause = f" ({event.error['type']}{': ' if message else ''}{message})"
        duration = _screen.say_duration(time.monotonic() - self._began)
        end = f"{event.status} after {duration}{cause}"
        _log(level, "%s: run %s %s.", event.exp_name, event.run_id, end)
        start = self.start_event
        folder = _record.run_folder(start.par_dir, event.exp_name, event.run_id)
        where = [f"record in {folder}"] if folder.is_dir() else []
        if files := _find_files(start):
            where.append(f"files in {', '.join(files)}")
        level = Level.EXPERIMENT if completed else Level.TRAINING
        if where:  # no full stop: it would be copied with the path
            said = "; ".join(where)
            _log(level, "%s", said[0].upper() + said[1:])
        if folder.is_dir() and not completed:
            _log(level, "Go on with create_run(%r, resume=True).", event.run_id)

    # -- models and actors -------------------------------------------------------

    @notify.register
    def _tell_model(self, event: log_events.ModelRegistrationEvent) -> None:
        _log(Level.MODEL_STATE, "Model %s registered.", event.model_name)

    @notify.register
    def _tell_actor(self, event: log_events.ActorRegistrationEvent) -> None:
        _log(Level.INTERNAL, "%s works on %s.", event.actor_name, event.model_name)

    @notify.register
    def _tell_saved(self, event: log_events.SaveModelEvent) -> None:
        _log_state("saved", event)

    @notify.register
    def _tell_loaded(self, event: log_events.LoadModelEvent) -> None:
        _log_state("loaded", event)

    # -- training ----------------------------------------------------------------

    @notify.register
    def _tell_training(self, event: log_events.StartTrainingEvent) -> None:
        self._training_began[event.source_name] = time.monotonic()
        source, model = event.source_name, event.model_name
        first, last = event.start_epoch, event.end_epoch
        if last < first:
            _log(Level.TRAINING, "%s has nothing left to train %s.", source, model)
        else:
            text = "%s trains %s, epochs %d to %d."
            _log(Level.TRAINING, text, source, model, first, last)

    @notify.register
    def _tell_epoch(self, event: log_events.StartEpochEvent) -> None:
        self._last_epochs[event.source_name] = event.end_epoch
        epoch = self._say_epoch(event.source_name, event.epoch)
        _log(Level.EPOCH, "%s, %s.", event.source_name, epoch)

    @notify.register
    def _tell_rate(self, event: log_events.LearningRateEvent) -> None:
        epoch = self._say_epoch(event.source_name, event.epoch)
        rate = "unknown" if event.base_lr is None else event.base_lr
        by = f" ({event.scheduler_name})" if event.scheduler_name else ""
        text = "%s, %s: learning rate %s%s."
        _log(Level.EPOCH, text, event.source_name, epoch, rate, by)

    @notify.register
    def _tell_termination(self, event: log_events.TerminatedTrainingEvent) -> None:
        text = "%s stopped training %s in epoch %d: %s."
        reason = event.reason.rstrip(".")
        where = (event.source_name, event.model_name, event.epoch)
        _log(Level.TRAINING, text, *where, reason)

    @notify.register
    def _tell_trained(self, event: log_events.EndTrainingEvent) -> None:
        began = self._training_began.pop(event.source_name, None)
        if began is not None:
            duration = _screen.say_duration(time.monotonic() - began)
            text = "%s ended its training after %s."
            _log(Level.TRAINING, text, event.source_name, duration)

    # -- tests and metrics -------------------------------------------------------

    @notify.register
    def _tell_test(self, event: log_events.StartTestEvent) -> None:
        self._testing.add(event.source_name)
        _log(Level.EPOCH, "%s tests %s.", event.source_name, event.model_name)

    @notify.register
    def _note_tested(self, event: log_events.EndTestEvent) -> None:
        self._testing.discard(event.source_name)

    @notify.register
    def _tell_metrics(self, event: log_events.MetricEvent) -> None:
        if not self.log_metrics:
            return
        tests = event.source_name in self._testing
        who = f"{event.source_name} ({event.model_name})"
        epoch = self._say_epoch(event.source_name, event.epoch)
        values = _screen.say_metrics(event.metrics)
        level = Level.TEST if tests else Level.METRICS
        _log(level, "%s, %s: %s", who, epoch, values)

    def _say_epoch(self, source_name: str, epoch: int) -> str:
        last = self._last_epochs.get(source_name)
        return f"epoch {epoch}" if last is None else f"epoch {epoch}/{last}"


def _log(level: int, text: str, *args: object) -> None:
    logger.log(int(level), text, *args)


def _log_state(
    what: str, event: log_events.SaveModelEvent | log_events.LoadModelEvent
) -> None:
    epoch = "" if event.epoch is None else f" of epoch {event.epoch}"
    text = "%s: %s%s %s, %s"
    name, kind, place = event.model_name, event.definition, event.location
    _log(Level.MODEL_STATE, text, name, kind, epoch, what, place)


def _find_files(start: log_events.StartExperimentEvent) -> list[str]:
    """Return the folders that the run's other trackers have filled."""
    runs = [
        run
        for run in _current.active_runs()
        if (run.experiment.name, run.id) == (start.exp_name, start.run_id)
    ]
    folders = [
        tracker.innermost.find_run_dir(start)
        for run in runs
        for tracker in run.bus.trackers().values()
        if isinstance(tracker.innermost, Dumper)
    ]
    return [str(folder) for folder in dict.fromkeys(folders) if folder.is_dir()]
