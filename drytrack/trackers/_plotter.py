"""Base of trackers that draw curves, while a run goes on and after it."""

from __future__ import annotations

import abc
import importlib.util
import sys
import threading
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar, Unpack

from drytrack.core import log_events
from drytrack.core.exceptions import MissingDependencyError
from drytrack.trackers._plot_media import Medium, Shelf
from drytrack.trackers._plot_view import (
    PlotOptions,
    Runs,
    View,
    group,
    join,
    make_view,
    names,
)
from drytrack.trackers.base import MemoryMetrics, MetricLoader, SourcedMetrics

if TYPE_CHECKING:
    from drytrack.trackers._plot_data import Panel

FigureT = TypeVar("FigureT")

SHARE = 0.1
"""How much of the time drawing may take: it competes with the training thread."""

RETRY_S = 1.0
"""Seconds after a failure at the least before an update is tried again."""


class BasePlotter(MemoryMetrics, Generic[FigureT]):
    r"""Draws the metrics of a run; a subclass draws one metric, and that is all.

    ::

        class Printer(BasePlotter[str]):
            def plot_metric(self, panel: Panel, figure: str | None) -> str:
                lines = [f"{curve.label} {curve.values}" for curve in panel.curves]
                return "\n".join([figure or panel.title, panel.metric, *lines])

    Curves follow the attempt rule and are reduced to 2,000 points, peaks and
    gaps among them. What is not finite is a gap with a mark.

    A worker thread updates the live figures: at most once in ``every_s``
    seconds, in at most a tenth of its time, and always at the end of the run.
    `plot` may be called from any thread, and returns figures of its own.

    Attributes:
        in_place: Whether an update is given the figure of the one before.
        packages: What must be installed.
        extra: The extra of drytrack that installs it.
    """

    background = True
    in_place: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ("numpy", "tsdownsample")
    extra: ClassVar[str] = "plot"
    notify = MemoryMetrics.notify.extend()

    def __init__(
        self,
        *,
        models: str | Collection[str] = (),
        metric_loader: MetricLoader | None = None,
        every_s: float = 2.0,
        **options: Unpack[PlotOptions],
    ) -> None:
        """Choose what is drawn while a run goes on, and by default by `plot`.

        Args:
            models: Names of the models; empty for all.
            metric_loader: Where a stored run is read from. What it has before
                the first epoch (or step) of the run that is watched is shown
                before it.
            every_s: Seconds between two updates at the least.
            **options: ``sources`` and ``metrics``: names, empty for all.
                ``first``: the first epoch or step; -20 for the last 20.
                ``axis``: ``"epoch"``, ``"step"`` or another axis of step
                metrics; None for epochs where there are any. ``log_scale``:
                whether the y-axis is logarithmic, or for which metrics.
                ``half_life``: epochs (or steps) after which a value counts
                half in a moving average; None draws values as they are.
                ``band``: around the mean of several runs, ``"std"`` or
                ``"range"``. ``units``: metric → unit.

        Raises:
            ConfigurationError: If an option cannot be.
            MissingDependencyError: If a package is not installed.
        """
        super().__init__()
        _require(type(self).__name__, self.packages, self.extra)
        self._models = names(models)
        self._loader = metric_loader
        self._every_s = every_s
        self._options = options
        make_view(options)
        self._shelf = Shelf()
        self._begin_plots()

    # -- to be overridden --------------------------------------------------------

    @abc.abstractmethod
    def plot_metric(self, panel: Panel, figure: FigureT | None) -> FigureT:
        """Draw one metric into the figure of its model.

        Args:
            panel: What to draw. ``panel.metrics`` are all metrics of the
                figure, in the order in which they come.
            figure: What was returned for the metric before; None for the first
                one, or, where `in_place`, the figure of the last update.

        Returns:
            The figure.
        """

    def plot_media(self) -> list[FigureT]:
        """Return figures of the newest histograms, images, tables and figures.

        A plotter that cannot draw them returns none.
        """
        return []

    def update_model(self, model: str, figure: FigureT) -> None:
        """Show or save a live figure that has been drawn anew."""

    def update_media(self) -> None:
        """Show or save histograms, images, tables and figures."""

    def end_update(self) -> None:
        """Save what is saved once for all that an update has drawn."""

    def end_plots(self) -> None:
        """Save what is saved at the end of a run."""

    # -- plotting on demand ------------------------------------------------------

    def plot(
        self,
        model: str | None = None,
        *,
        runs: Runs | None = None,
        **options: Unpack[PlotOptions],
    ) -> FigureT:
        """Draw the metrics of a model into a new figure.

        Args:
            model: Its name, "" for metrics without one; needed where there are
                several.
            runs: Other runs than the one watched: several are drawn as their
                mean with a band, several labels beside each other. At each step
                those runs count that have a finite value there.
            **options: As for the class; what is not given is as it was there.

        Raises:
            ConfigurationError: If an option cannot be.
            LookupError: If there is nothing to draw, or no telling which model.
        """
        return self._draw(self._find_panels(model, runs, options), None)

    def load_metrics(
        self, model_name: str, max_epoch: int = -1, *, axis: str = "epoch"
    ) -> SourcedMetrics:
        """Return the metrics of a model; see `MetricLoader.load_metrics`.

        Those of the stored run that the plotter was given stand before them.
        """
        with self._lock:
            own = super().load_metrics(model_name, max_epoch, axis=axis)
        if self._loader is None:
            return own
        key = model_name, axis, max_epoch
        stored = self._stored.get(key)
        if stored is None:
            stored = self._loader.load_metrics(model_name, max_epoch, axis=axis)
            if self._scope is not None:  # later the stored run may have grown
                self._stored[key] = stored
        return join(stored, own)

    # -- keeping -----------------------------------------------------------------

    @notify.register
    def _begin_memory(self, event: log_events.StartExperimentEvent) -> None:
        run = event.par_dir, event.exp_name, event.run_id
        if not event.resumed or run != self._run:
            self._shelf = Shelf()
        super()._begin_memory(event)
        # New ones: where runs overlap, this is a copy that shares the old ones.
        self._begin_plots()
        self._title = f"{event.exp_name} · {event.run_id}"
        self._begin_output(event)

    def _begin_output(self, event: log_events.StartExperimentEvent) -> None:
        """Prepare what is shown or written in this run."""

    def _begin_plots(self) -> None:
        self._title = ""
        self._lock = threading.RLock()
        self._draw_lock = threading.RLock()
        self._figures: dict[str, FigureT] = {}
        self._stored: dict[tuple[str, str, int], SourcedMetrics] = {}
        self._changed: dict[str, None] = {}
        self._media_changed = False
        self._due = 0.0
        self._timer: threading.Timer | None = None
        self._late_error: Exception | None = None

    def _keep_epoch(self, event: log_events.MetricEvent) -> None:
        with self._lock:
            super()._keep_epoch(event)
            self._changed[event.model_name] = None

    def _keep_step(self, event: log_events.StepMetricEvent) -> None:
        with self._lock:
            super()._keep_step(event)
            self._changed[event.model_name] = None

    @notify.register
    def _keep_medium(
        self,
        event: log_events.HistogramEvent
        | log_events.ImageEvent
        | log_events.FigureEvent
        | log_events.TableEvent,
    ) -> None:
        with self._lock:
            self._shelf.put(event)
            self._media_changed = True

    def _media(self) -> list[Medium]:
        with self._lock:
            return self._shelf.items()

    # -- live updates ------------------------------------------------------------

    def flush(self) -> None:
        """Update the live figures, at once or when it is time to."""
        with self._draw_lock:
            error, self._late_error = self._late_error, None
            if error is not None:
                raise error
            if self._timer is None and (self._changed or self._media_changed):
                wait = self._due - time.monotonic()
                if wait <= 0:
                    self._update()
                else:  # no further event may come for a long time
                    self._set_timer(wait)

    @notify.register
    def _end(self, event: log_events.StopExperimentEvent) -> None:
        with self._draw_lock:
            self._drop_timer()
            self._update()
            self.end_plots()

    def clean_up(self) -> None:
        """Stop updating; what was plotted can still be plotted."""
        with self._draw_lock:
            self._drop_timer()
            self._figures = {}
        super().clean_up()

    def _set_timer(self, wait_s: float) -> None:
        self._timer = threading.Timer(wait_s, self._update_late)
        self._timer.daemon = True
        self._timer.start()

    def _drop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _update_late(self) -> None:
        """Update on a timer's thread; try again, and let `flush` tell, if it fails."""
        with self._draw_lock:
            if self._timer is not threading.current_thread():
                return  # it has been cancelled
            self._timer = None
            try:
                self._update()
            except Exception as err:  # noqa: BLE001  # raised where it is isolated
                self._late_error = err
                self._set_timer(max(RETRY_S, self._due - time.monotonic()))
            else:
                self._late_error = None

    def _update(self) -> None:
        with self._lock:
            changed, self._changed = self._changed, {}
            media, self._media_changed = self._media_changed, False
        began = time.monotonic()
        try:
            for model in changed:
                self._update_model(model)
            if media:
                self.update_media()
            if changed or media:
                self.end_update()
        except BaseException:
            with self._lock:  # another update may succeed
                self._changed = {**changed, **self._changed}
                self._media_changed |= media
            raise
        finally:
            took = time.monotonic() - began
            pause = max(self._every_s, took * (1 - SHARE) / SHARE)
            self._due = time.monotonic() + pause

    def _update_model(self, model: str) -> None:
        if self._models and model not in self._models:
            return
        panels = self._panels(model, make_view(self._options), None)
        if not panels:
            return
        former = self._figures.get(model) if self.in_place else None
        self._figures[model] = figure = self._draw(panels, former)
        self.update_model(model, figure)

    def _draw(self, panels: list[Panel], figure: FigureT | None) -> FigureT:
        for panel in panels:
            figure = self.plot_metric(panel, figure)
        assert figure is not None  # there is a panel
        return figure

    # -- what to draw ------------------------------------------------------------

    def _find_panels(
        self, model: str | None, runs: Runs | None, options: PlotOptions
    ) -> list[Panel]:
        view = make_view(self._options, options)
        if model is None:
            model = self._only_model()
        panels = self._panels(model, view, runs)
        if not panels:
            on = "any axis" if view.axis is None else f"axis {view.axis!r}"
            known = ", ".join(map(repr, self._known_models())) or "none, so far"
            msg = (
                f"Model {model!r} has none of the chosen metrics on {on}. Models that "
                f"can be plotted: {known}."
            )
            raise LookupError(msg)
        return panels

    def _panels(self, model: str, view: View, runs: Runs | None) -> list[Panel]:
        from drytrack.trackers._plot_data import build_panels

        groups = {"": [self]} if runs is None else group(runs)
        title = model or (self._title if runs is None else "")
        if runs is None and model and self._title:
            title = f"{model} · {self._title}"
        axes = [view.axis] if view.axis else self._axes_of(model, runs)
        for axis in axes:
            loaded = {
                label: [loader.load_metrics(model, axis=axis) for loader in loaders]
                for label, loaders in groups.items()
            }
            panels = build_panels(model, loaded, view, axis=axis, title=title)
            if panels:
                return panels
        return []

    def _axes_of(self, model: str, runs: Runs | None) -> list[str]:
        """Return the axes to try, epochs first."""
        with self._lock:
            own = [axis for name, axis in self._axes if name == model]
        others = [axis for axis in own if axis not in ("epoch", "step")]
        return ["epoch", "step", *others]

    def _known_models(self) -> list[str]:
        with self._lock:
            known = dict.fromkeys(name for name, _ in self._axes)
        if not self._models:
            return list(known)
        return list(self._models)

    def _only_model(self) -> str:
        known = self._known_models()
        if len(known) == 1:
            return known[0]
        listed = ", ".join(map(repr, known)) or "none, so far"
        msg = f"Models that can be plotted: {listed}. Name one: plot(…)."
        raise LookupError(msg)


def _require(who: str, packages: Collection[str], extra: str) -> None:
    for package in packages:
        if not _is_installed(package):
            msg = f'{who} needs the {package} package: pip install "drytrack[{extra}]"'
            raise MissingDependencyError(msg)


def _is_installed(package: str) -> bool:
    if package in sys.modules:
        return sys.modules[package] is not None
    return importlib.util.find_spec(package) is not None
