"""Logging on the run itself, for scripts that do not start with events.

Everything here publishes events to the run, whatever run the context is in.
The source of these events is called ``run``.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import pathlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from drytrack.core import _artifacts, _routing
from drytrack.core._frozen import FrozenDict
from drytrack.core._names import shorten
from drytrack.core._routing import SOURCE, Bundle, media_name
from drytrack.core._summary import Summary
from drytrack.core._warn import warn
from drytrack.core._watching import Watch, What, start_watch
from drytrack.core.exceptions import ConfigurationError, EventValueError, RunWarning
from drytrack.core.log_events import (
    ArtifactEvent,
    Event,
    FigureEvent,
    HistogramEvent,
    ImageEvent,
    ParamsEvent,
    SaveModelEvent,
    StepMetricEvent,
    SummaryEvent,
    TextEvent,
)

if TYPE_CHECKING:
    from drytrack.core._bus import Bus
    from drytrack.core._current import Routes
    from drytrack.core.experiment import Experiment
    from drytrack.core.track import Tracker

OnError = Literal["raise", "warn"]
Path = str | os.PathLike[str]

BACKEND_TIMEOUT_S = 60.0
"""How long `RunLogging.get_backend` waits for a backend that is being opened."""

# Labels of a `with run.context(…)`, by the run's id(): other threads have others.
_scoped: contextvars.ContextVar[Mapping[int, Mapping[str, Any]] | None] = (
    contextvars.ContextVar("drytrack_labels", default=None)
)
_get_scoped = _scoped.get
_new = object.__new__


class RunLogging:
    """What a run offers besides events; a part of `Run`.

    A call without ``step`` takes the step that `set_step` has chosen, or else the
    one after the newest, also across a resume. Steps may come in any order. All
    methods may be called from any thread; on a rank that does not track they do
    nothing.
    """

    if TYPE_CHECKING:  # what `Run` has
        experiment: Experiment[Any]
        id: str
        path: pathlib.Path | None
        is_main: bool
        bus: Bus
        routes: Routes
        last_steps: dict[str, int]
        config: Any
        _status: str
        _summary: dict[str, Any]

        @property
        def status(self) -> str: ...
        def stop(self, status: Any = None) -> None: ...
        def _require_running(self, what: str) -> None: ...

    def _init_logging(self) -> None:
        """Prepare; a rank that does not track is given methods that do nothing."""
        self._started_ahead = False  # by `drytrack.setup_tracker`, for a `with`
        self._quick = True  # nothing held back, no labels, nobody counts steps
        self._step: int | None = None
        self._held: Bundle | None = None
        self._fixed_labels: dict[str, Any] = {}
        self._watches: list[Watch] = []
        self._params: dict[str, Any] = {}
        self._log_lock = threading.RLock()
        trackers = self.experiment.trackers.named_trackers.values()
        if not self.is_main and not any(
            getattr(tracker.innermost, "every_rank", False) is True
            for tracker in trackers
        ):
            vars(self).update(dict.fromkeys(_SILENT, _do_nothing))

    # -- metrics -----------------------------------------------------------------

    def log(
        self,
        values: Mapping[str, Any],
        step: int | None = None,
        context: Mapping[str, Any] | None = None,
        axis: str = "step",
        commit: bool = True,  # as in other tools
        on_error: OnError = "raise",
    ) -> None:
        """Log values of any kind, each as the event that fits its type.

        Numbers, booleans and arrays of one element become metrics. Nested
        mappings are flattened, the names joined by ``/``. Text becomes a text;
        figures, PIL images, paths of images and arrays with three or four
        channels become figures and images; data frames and lists of mappings,
        tables; other arrays and tensors, histograms.

        Args:
            values: Name → value.
            step: The step; by default the next one, or that of `set_step`.
            context: Labels such as ``{"split": "val"}``.
            axis: What the step counts.
            commit: Whether these values complete the step. If not, they wait
                for the next call, and go with it where that has the same step.
            on_error: ``"raise"`` refuses all if one value is no good;
                ``"warn"`` leaves that one out.

        Raises:
            RunStateError: If the run has not started, or has ended.
            EventValueError: If a name or a value is refused.
        """
        if commit and self._quick and self._status == "running" and not _get_scoped():
            # Most calls are for metrics, and here they cost hardly more than the
            # event itself. What its door refuses is looked at closely below.
            steps = self.last_steps
            try:
                number = self._auto_step(axis) if step is None else step
                event = _new(StepMetricEvent)
                if context is None and axis == "step":
                    event._fill(SOURCE, number, values)
                else:
                    event._fill(SOURCE, number, values, context, axis)
            except EventValueError:
                pass
            else:
                key = SOURCE if axis == "step" else f"{SOURCE} [axis={axis}]"
                if event.step > steps.get(key, -1):
                    steps[key] = event.step
                deliver = self.routes[StepMetricEvent]
                if deliver is not None:
                    deliver(event)
                return
        self._log_any(values, step, context, axis, commit, on_error)

    def log_metrics(
        self,
        metrics: Mapping[str, Any],
        step: int | None = None,
        context: Mapping[str, Any] | None = None,
        axis: str = "step",
    ) -> None:
        """Log numbers, and nothing else.

        Args:
            metrics: Name → number, possibly nested.
            step: As in `log`.
            context: As in `log`.
            axis: As in `log`.

        Raises:
            RunStateError: If the run has not started, or has ended.
            MetricValueError: If one is no number.
        """
        self._require_running("log metrics")
        flat = _routing.flatten(metrics)
        # Through the door alone, which takes numbers only.
        checked = StepMetricEvent.unpublished(SOURCE, 0, flat).metrics
        self.log(checked, step, context, axis)

    def scalar(
        self,
        name: str,
        value: Any,
        step: int | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        """Log one number.

        Args:
            name: Its name.
            value: Its value.
            step: As in `log`.
            context: As in `log`.
        """
        self.log_metrics({name: value}, step, context)

    def bins(  # two ways to say what is in the bins
        self,
        name: str,
        values: Any = None,
        *,
        counts: Sequence[float] | None = None,
        edges: Sequence[float] | None = None,
        n_bins: int = 64,
        step: int | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        """Log a distribution: values to count, or counts and edges.

        Args:
            name: Its name.
            values: An array, a tensor or a sequence of any shape. NaN and
                infinity are left out, with a warning.
            counts: Values in each bin, shape (n_bins,).
            edges: Edges of the bins, ascending, shape (n_bins + 1,).
            n_bins: How many bins values are counted in.
            step: By default the newest one, or that of `set_step`.
            context: As in `log`.

        Raises:
            EventValueError: If it is neither, or both.
        """
        self._require_running("log a histogram")
        number, labels = self._media_step(step), self._labels(context)
        event: Event | None
        if values is not None and counts is None and edges is None:
            event = _routing.make_histogram(
                name, values, number, labels, n_bins, lambda msg: warn(msg, RunWarning)
            )
        elif values is None and counts is not None and edges is not None:
            event = HistogramEvent.unpublished(
                SOURCE, name, number, counts, edges, labels
            )
        else:
            msg = (
                f"histogram {name!r} needs values, or both counts and edges. Pass "
                f"run.bins(name, array) or run.bins(name, counts=…, edges=…)."
            )
            raise EventValueError(msg)
        if event is not None:
            self._publish(event)

    def log_histogram(
        self,
        name: str,
        values: Any = None,
        step: int | None = None,
        **options: Any,
    ) -> None:
        """Log a distribution; another name for `bins`.

        Args:
            name: Its name.
            values: As in `bins`.
            step: As in `bins`.
            **options: As in `bins`.
        """
        self.bins(name, values, step=step, **options)

    # -- parameters --------------------------------------------------------------

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters that were chosen for this run.

        Args:
            params: Plain data, possibly nested. One that was logged before with
                another value warns, since some tools keep the first one.
        """
        self._require_running("log parameters")
        event = ParamsEvent.unpublished(params)
        flat = _routing.flatten(event.params)
        changed = {
            name: (self._params[name], value)
            for name, value in flat.items()
            if name in self._params and self._params[name] != value
        }
        self._params.update(flat)
        self._publish(event)
        for name, (old, new) in changed.items():
            msg = (
                f"parameter {name!r} was {old!r} and is {new!r} now; the newest "
                f"counts, but some tools keep the first. Log what changes with run.log."
            )
            warn(msg, RunWarning)

    def log_config(self, config: Mapping[str, Any]) -> None:
        """Merge into the configuration of the run, and log what was merged.

        Args:
            config: Plain data, possibly nested; its top-level names replace those
                of a configuration that is a mapping. Another one stays as it is.
        """
        self._require_running("log its configuration")
        event = ParamsEvent.unpublished(config)
        if self.config is None or isinstance(self.config, Mapping):
            self.config = {**(self.config or {}), **config}
        self._params.update(_routing.flatten(event.params))
        self._publish(event)

    # -- media -------------------------------------------------------------------

    def log_image(
        self,
        name: str,
        image: Any,
        step: int | None = None,
        caption: str | None = None,
    ) -> None:
        """Log an image.

        Args:
            name: Its name.
            image: A path, an array, a tensor, or a PIL image; see `ImageEvent`.
            step: By default the newest one, or that of `set_step`.
            caption: A line of text below it.

        Raises:
            EventValueError: If it is no image.
        """
        self._require_running("log an image")
        named, number = media_name(name, self._labels(None)), self._media_step(step)
        self._publish(ImageEvent.unpublished(SOURCE, named, number, image, caption))

    def log_figure(
        self,
        name: str,
        figure: Any,
        step: int | None = None,
        caption: str | None = None,
    ) -> None:
        """Log a figure of matplotlib or plotly, rendered at once.

        Args:
            name: Its name.
            figure: The figure, or its axes.
            step: By default the newest one, or that of `set_step`.
            caption: A line of text below it.

        Raises:
            EventValueError: If it is no figure.
        """
        self._require_running("log a figure")
        named, number = media_name(name, self._labels(None)), self._media_step(step)
        self._publish(FigureEvent.unpublished(SOURCE, named, number, figure, caption))

    def log_table(
        self,
        name: str,
        columns: Any,
        rows: Iterable[Iterable[Any]] | None = None,
        step: int | None = None,
    ) -> None:
        """Log a table.

        Args:
            name: Its name.
            columns: Names of the columns; or, without ``rows``, a data frame, a
                list of mappings, or a mapping of columns.
            rows: Cells, shape (n_rows, n_columns).
            step: By default the newest one, or that of `set_step`.

        Raises:
            EventValueError: If it is no table.
        """
        self._require_running("log a table")
        number, labels = self._media_step(step), self._labels(None)
        self._publish(_routing.make_table(name, columns, rows, number, labels))

    def log_text(self, name: str, text: str, step: int | None = None) -> None:
        """Log a text.

        Args:
            name: Its name.
            text: The text.
            step: By default the newest one, or that of `set_step`.
        """
        self._require_running("log a text")
        named, number = media_name(name, self._labels(None)), self._media_step(step)
        self._publish(TextEvent.unpublished(SOURCE, named, number, text))

    # -- files -------------------------------------------------------------------

    def log_artifact(
        self,
        path: Path,
        artifact_path: str | None = None,
        *,
        name: str | None = None,
        kind: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Log a file or a folder, with a digest of what is in it.

        Args:
            path: Where it is.
            artifact_path: The folder within the run to file it under.
            name: Its name, by default that of the file or folder.
            kind: What it is, by default ``file`` or ``folder``.
            metadata: Plain data about it.

        Raises:
            ArtifactError: If it does not exist, or is being written.
        """
        self._require_running("log an artifact")
        self._publish(self._artifact(path, artifact_path, name, kind, metadata))

    def log_artifacts(
        self, paths: Mapping[str, Path], artifact_path: str | None = None
    ) -> None:
        """Log several files or folders; all, or none if one is refused.

        Args:
            paths: Label → path.
            artifact_path: The folder within the run to file them under.

        Raises:
            ArtifactError: If one does not exist, or is being written.
            EventValueError: If it is no mapping.
        """
        self._require_running("log artifacts")
        if not isinstance(paths, Mapping):
            msg = (
                f"paths must map labels to paths, got {type(paths).__name__} "
                f"{shorten(paths)}. Pass a dictionary such as {{'weights': 'w.pt'}}."
            )
            raise EventValueError(msg)
        events = [
            self._artifact(path, artifact_path, label, None, None)
            for label, path in paths.items()
        ]
        for event in events:
            self._publish(event)

    def log_model(
        self,
        model: Any,
        name: str,
        *,
        epoch: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        artifact_path: str | None = None,
    ) -> pathlib.Path | None:
        """Save a model by its framework's own function, and log it as an artifact.

        Each call makes a new version, in a folder of its own within the run's:
        ``models/<name>/v1``. A path is logged as it is, and nothing is copied.

        Args:
            model: A torch module (its state), a mapping of tensors or arrays, or
                a model of Keras, Hugging Face, XGBoost, LightGBM, CatBoost or
                scikit-learn; or the path of one that was saved.
            name: Its name.
            epoch: The epoch that it was saved after.
            metadata: Plain data about it.
            artifact_path: The folder within the run to file it under.

        Returns:
            Where it was saved; None where nobody keeps it.

        Raises:
            ArtifactError: If nothing is known of how to save it, or the path
                does not exist.
        """
        self._require_running("log a model")
        if self.path is None and not self.bus.guests:
            return None
        about: dict[str, Any] = dict(metadata or {})
        if isinstance(model, (str, os.PathLike)):
            path = pathlib.Path(model).absolute()
            about = {"format": "file", **_artifacts.fingerprint(path), **about}
        else:
            found = _artifacts.find_format(model)
            base = self.path or self.experiment.par_dir / self.experiment.name / self.id
            folder, version = _artifacts.next_version(base / "models", name)
            path = folder / found.file_name
            found.save(path)
            about = {
                "version": version,
                "format": found.name,
                **_artifacts.fingerprint(path),
                **about,
            }
        self._publish(SaveModelEvent.unpublished(name, "model", path, epoch))
        self._publish(
            ArtifactEvent.unpublished(name, path, "model", about, artifact_path)
        )
        return path

    # -- the run as a whole ------------------------------------------------------

    @property
    def summary(self) -> Summary:
        """Values that stand for the whole run: ``run.summary["best"] = 0.9``."""
        return Summary(self)

    def set_step(self, step: int | None) -> None:
        """Choose the step of what is logged without one.

        Args:
            step: The step; None goes back to counting by itself.

        Raises:
            EventValueError: If it is no integer.
        """
        if step is not None:
            step = StepMetricEvent.unpublished(SOURCE, step, {}).step
        self._step = step

    def set_context(self, **tags: Any) -> None:
        """Label everything that is logged from now on, in all threads.

        Args:
            **tags: Label → value; None removes that label.
        """
        StepMetricEvent.unpublished(SOURCE, 0, {}, tags)  # refused here, not later
        with self._log_lock:
            merged = {**self._fixed_labels, **tags}
            self._fixed_labels = {k: v for k, v in merged.items() if v is not None}
            self._update_quick()

    @contextlib.contextmanager
    def context(self, **tags: Any) -> Iterator[None]:
        """Label everything that this thread or task logs within the block.

        Args:
            **tags: Label → value.
        """
        StepMetricEvent.unpublished(SOURCE, 0, {}, tags)  # refused here, not later
        before = _get_scoped() or {}
        own = {**before.get(id(self), {}), **tags}
        _scoped.set({**before, id(self): own})
        try:
            yield
        finally:
            _scoped.set(before or None)

    def watch(
        self,
        model: Any,
        log: What = "gradients",
        every: int = 100,
        name: str = "",
    ) -> Watch:
        """Publish histograms of a model at intervals.

        Of a tensor above 8,192 elements, about 4,096 are looked at. A tool's own
        watch is reached by ``run.get_backend(…).watch(model)``.

        Args:
            model: A torch module, whose training passes are counted; or a mapping
                of arrays, or a function that returns one, which are looked at
                when steps are logged.
            log: ``"gradients"``, ``"parameters"`` or ``"all"``; of a torch module.
            every: Passes or steps between two publications.
            name: What the names of the histograms begin with.

        Returns:
            The watch; its ``stop()`` ends it before the run does.

        Raises:
            EventValueError: If it cannot be watched.
        """
        self._require_running("watch a model")
        watch = start_watch(self, model, log, every, name)
        self._watches.append(watch)
        self._update_quick()
        return watch

    def get_backend(self, name: str) -> Tracker | None:
        """Return a tracker that takes part in the run.

        One that is just being opened is waited for.

        Args:
            name: Its name, that of its class, or that of its module: ``wandb``.

        Returns:
            The tracker; None where there is none of that name, or it failed.
        """
        guest = self.bus.guests.get(name)
        if guest is None:
            found = [
                guest
                for guest in self.bus.guests.values()
                if name in _names_of(type(guest.tracker.innermost))
            ]
            if len(found) != 1:
                return None
            guest = found[0]
        is_there = guest.wait_until_open(self, BACKEND_TIMEOUT_S)
        return guest.tracker.innermost if is_there else None

    def finish(self, summary: Mapping[str, Any] | None = None) -> None:
        """Stop the run as completed; doing it twice warns and does nothing.

        Args:
            summary: Values that stand for the whole run.
        """
        if summary and self._status == "running":
            self.summary.update(summary)
        self.stop()

    # -- inside ------------------------------------------------------------------

    def _publish(self, event: Event) -> None:
        """Publish to this run, whatever run the context is in."""
        deliver = self.routes[type(event)]
        if deliver is not None:
            deliver(event)

    def _is_heard(self, event_type: type[Event]) -> bool:
        """Return whether anybody keeps or gets such an event, on this rank."""
        return self._status == "running" and self.routes[event_type] is not None

    def note_summary(self, event: SummaryEvent) -> None:
        """Keep what was published for the stop event and the record."""
        self._summary.update(event.summary)

    def _labels(self, context: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the labels that hold here, the innermost winning."""
        if context is not None and not isinstance(context, Mapping):
            msg = (
                f"context must map labels to values, got {type(context).__name__} "
                f"{shorten(context)}. Pass a dictionary such as {{'split': 'val'}}."
            )
            raise EventValueError(msg)
        scoped = _get_scoped()
        inner = scoped.get(id(self), {}) if scoped else {}
        return {**self._fixed_labels, **inner, **(context or {})}

    def _auto_step(self, axis: str) -> int:
        if self._step is not None:
            return self._step
        with self._log_lock:
            return self.last_steps.get(_counter(axis), 0) + 1

    def _media_step(self, step: int | None) -> int:
        """Return the step of what does not make a step by itself."""
        if step is not None:
            return step
        if self._step is not None:
            return self._step
        return self.last_steps.get(SOURCE, 0)

    def _watched_step(self, count: int) -> int:
        """Return the step that a training pass is a part of."""
        if self._step is not None:
            return self._step
        newest = max(self.last_steps.values(), default=None)
        return count if newest is None else newest + 1

    def _update_quick(self) -> None:
        counting = any(watch.counts_steps for watch in self._watches)
        self._quick = not (self._held or self._fixed_labels or counting)

    def _log_any(  # the arguments of `log`
        self,
        values: Mapping[str, Any],
        step: int | None,
        context: Mapping[str, Any] | None,
        axis: str,
        commit: bool,  # as there
        on_error: OnError,
    ) -> None:
        """Log with all that `log` offers."""
        self._require_running("log")
        if on_error not in ("raise", "warn"):
            msg = f"on_error is {on_error!r}. Pass 'raise' or 'warn'."
            raise ConfigurationError(msg)
        # Checks the arguments that all values share.
        head = StepMetricEvent.unpublished(
            SOURCE, 0 if step is None else step, {}, self._labels(context), axis
        )
        with self._log_lock:
            held = self._held
            fits = (
                held is not None
                and (step is None or head.step == held.step)
                and (held.axis, held.labels) == (head.axis, head.context)
            )
            if fits:
                assert held is not None
                bundle = held
            else:
                number = head.step if step is not None else self._auto_step(axis)
                if held is not None and step is None and self._step is None:
                    number = max(number, held.step + 1)
                bundle = Bundle(number, head.axis, head.context)
            bundle.add(values, self._warn_of if on_error == "warn" else None)
            late = held if held is not None and not fits else None
            self._held = None if commit else bundle
            self._update_quick()
            for done in (late, bundle if commit else None):
                if done is not None:
                    self._note_step(done)
        for done in (late, bundle if commit else None):
            if done is not None:
                self._publish_bundle(done)

    def _warn_of(self, error: EventValueError) -> None:
        warn(f"Left out of what is logged: {error}", RunWarning)

    def _note_step(self, bundle: Bundle) -> None:
        key = _counter(bundle.axis)
        if bundle.step > self.last_steps.get(key, -1):
            self.last_steps[key] = bundle.step

    def _publish_bundle(self, bundle: Bundle) -> None:
        if bundle.metrics:
            metrics = FrozenDict(bundle.metrics)
            self._publish(
                StepMetricEvent.unpublished(
                    SOURCE, bundle.step, metrics, bundle.labels, bundle.axis
                )
            )
        for event in bundle.events:
            self._publish(event)
        for watch in self._watches:
            watch.tick(bundle.step)

    def _publish_held(self) -> None:
        """Publish what still waits for the rest of its step."""
        with self._log_lock:
            held, self._held = self._held, None
            self._update_quick()
        if held is not None:
            self._note_step(held)
            self._publish_bundle(held)

    def _end_logging(self) -> None:
        """Publish what waits, and watch nothing any more; before the stop event."""
        self._publish_held()
        for watch in self._watches:
            watch.stop()
        self._watches.clear()

    def _artifact(
        self,
        path: Path,
        artifact_path: str | None,
        name: str | None,
        kind: str | None,
        metadata: Mapping[str, Any] | None,
    ) -> ArtifactEvent:
        # Absolute: the script may change its directory before a worker reads it.
        found = pathlib.Path(path).absolute()
        about = {**_artifacts.fingerprint(found), **(metadata or {})}
        kind = kind or ("folder" if found.is_dir() else "file")
        return ArtifactEvent.unpublished(
            name or found.name, found, kind, about, artifact_path
        )


_SILENT: Final = (
    "bins",
    "log",
    "log_artifact",
    "log_artifacts",
    "log_config",
    "log_figure",
    "log_histogram",
    "log_image",
    "log_metrics",
    "log_model",
    "log_params",
    "log_table",
    "log_text",
    "scalar",
)


def _names_of(cls: type) -> tuple[str, str]:
    return cls.__name__, cls.__module__.rpartition(".")[2]


def _do_nothing(*args: object, **kwargs: object) -> None:
    """Stand in for a method where nobody tracks."""


def _counter(axis: str) -> str:
    """Return the name that the newest step of an axis is kept under."""
    return SOURCE if axis == "step" else f"{SOURCE} [axis={axis}]"
