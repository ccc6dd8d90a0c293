"""The base of trackers that drive another tracking tool: events become calls."""

from __future__ import annotations

import abc
import collections
import importlib
import logging
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from drytrack.core import log_events
from drytrack.core._media import MediaFile, png
from drytrack.core.exceptions import BackendError, MissingDependencyError
from drytrack.trackers._name_rule import NameRule
from drytrack.trackers._run_info import At, RunInfo, describe_run, flatten
from drytrack.trackers._series_names import Series, SeriesNames
from drytrack.trackers.base import Dumper

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["At", "Backend", "MediaFile", "RunInfo", "flatten", "import_backend"]

_logger = logging.getLogger("drytrack")


class Backend(Dumper, abc.ABC):
    """Turns events into the calls that a tracking tool knows.

    `open`, `log_metrics` and `finish` suffice. What arrives for a method that is
    not overridden is counted, and said once when the run ends. All methods are
    called by one thread, in the order of publication.

    **Names.** A metric is called ``<source>/<metric>``; what comes from `Run.log`
    (source ``run``) is called by its name alone. The first model of a run adds
    nothing, each further one its name in front: ``<model>/<source>/<metric>``.
    Epochs are home to a source and steps to `Run.log`; the same metric on the
    other one of these two axes ends in ``_step`` or ``_epoch``, as in
    ``trainer/loss_step``. A context of one label ``split`` goes in front of the
    metric (``trainer/val/loss``), any other one behind it (``loss [fold=2]``).
    A name that two series would share by chance gets its axis and its context
    behind it for the second one. The result passes the `rule` of the backend.
    Learning rates are the metric ``lr`` of their source on the epoch axis, with
    ``/<group>`` behind it where there are several.

    **Again.** A handler that fails is called again, and so is everything since
    the last `flush` when a worker had to pause, or the process was killed. What
    was taken before in this process is kept away from the methods here: one that
    returns has taken its argument for good. A buffer of the backend's own must
    therefore survive a `flush` that fails.

    A killed process, and a replay, bring events again that the tool alone knows
    to have. One that can be asked keeps `seq` beside what it is given, or
    `taken_seq` beside what it flushes, and tells the newest one by `last_seq`:
    what is not newer is kept away as well.

    **Resumed runs.** Put what identifies the run over there into ``self.state``
    when it is opened (``self.state["run_id"] = …``): it is there again when the
    run is resumed, in any process, and then `open` should re-attach to it.

    Attributes:
        rule: How names are adapted to what the tool accepts.
        keeps_context: Whether the tool takes contexts itself.
        seq: Sequence number of the event at hand; None where nobody keeps count.
    """

    background = True
    rule: ClassVar[NameRule] = NameRule()
    keeps_context: ClassVar[bool] = False
    notify = Dumper.notify.extend()

    seq: int | None = None
    _is_open = False

    # -- what a backend overrides ------------------------------------------------

    @abc.abstractmethod
    def open(self, info: RunInfo) -> None:
        """Open the run over there, or re-attach to it where it is resumed.

        Called again after a pause if it raises, so a half-opened run must not be
        in the way of a second try. The configuration also comes to `log_params`.

        Args:
            info: What there is to know of the run.
        """

    @abc.abstractmethod
    def log_metrics(self, metrics: Mapping[str, float], at: At) -> None:
        """Take metrics.

        Args:
            metrics: Adapted name → value; NaN and ±inf are values.
            at: Where in the run.
        """

    @abc.abstractmethod
    def finish(self, status: str, error: Mapping[str, str] | None) -> None:
        """Close the run over there.

        Args:
            status: ``completed``, ``failed`` or ``interrupted``.
            error: None, or ``type``, ``message`` and ``traceback``.
        """

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Take parameters: the configuration, and what is added to it later.

        On a resumed run the configuration comes again, perhaps changed.

        Args:
            params: Plain data, possibly nested; see `flatten`.
        """
        self._pass_over("parameters", len(flatten(params)))

    def log_image(
        self, name: str, image: MediaFile, at: At, caption: str | None
    ) -> None:
        """Take an image.

        Args:
            name: Adapted name.
            image: The bytes of an image file and their format.
            at: Where in the run.
            caption: A line of text below it.
        """
        self._pass_over("images")

    def log_figure(
        self, name: str, figure: MediaFile, at: At, caption: str | None
    ) -> None:
        """Take a figure; by default one that is a picture goes to `log_image`.

        Args:
            name: Adapted name.
            figure: The bytes of an image file, or of plotly's JSON.
            at: Where in the run.
            caption: A line of text below it.
        """
        if figure.format == "plotly":
            self._pass_over("plotly figures")
        else:
            self.log_image(name, figure, at, caption)

    def log_table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], at: At
    ) -> None:
        """Take a table.

        Args:
            name: Adapted name.
            columns: Names of the columns, length n_columns.
            rows: Cells, shape (n_rows, n_columns).
            at: Where in the run.
        """
        self._pass_over("tables")

    def log_text(self, name: str, text: str, at: At) -> None:
        """Take a text.

        Args:
            name: Adapted name.
            text: The text.
            at: Where in the run.
        """
        self._pass_over("texts")

    def log_histogram(
        self, name: str, counts: Sequence[float], bin_edges: Sequence[float], at: At
    ) -> None:
        """Take a distribution.

        Args:
            name: Adapted name.
            counts: Values in each bin, shape (n_bins,).
            bin_edges: Edges of the bins, ascending, shape (n_bins + 1,).
            at: Where in the run.
        """
        self._pass_over("histograms")

    def log_artifact(
        self,
        name: str,
        path: pathlib.Path,
        *,
        kind: str,
        metadata: Mapping[str, Any],
        artifact_path: str | None,
    ) -> None:
        """Take a file or a folder.

        Args:
            name: Name of the artifact, as it was given.
            path: Where it is.
            kind: What it is, such as ``dataset``.
            metadata: Plain data about it, such as a hash.
            artifact_path: The folder within the run to file it under, or None.
        """
        self._pass_over("artifacts")

    def log_model(
        self,
        name: str,
        path: pathlib.Path,
        *,
        metadata: Mapping[str, Any],
        artifact_path: str | None,
    ) -> None:
        """Take a saved model; by default it goes to `log_artifact`.

        Args:
            name: Name of the model, as it was given.
            path: The file or folder that it was saved to.
            metadata: Plain data about it: ``version``, hash, …
            artifact_path: The folder within the run to file it under, or None.
        """
        self.log_artifact(
            name, path, kind="model", metadata=metadata, artifact_path=artifact_path
        )

    def log_summary(self, summary: Mapping[str, Any]) -> None:
        """Take values that stand for the whole run.

        Args:
            summary: Name → value, plain data; what is there stays.
        """
        self._pass_over("summary values", len(summary))

    def watch(self, model: object, **options: Any) -> None:
        """Let the tool itself watch a model, where it can.

        Args:
            model: A model of a framework that the tool knows.
            **options: The tool's own.

        Raises:
            BackendError: If the tool cannot.
        """
        msg = (
            f"{type(self).__name__} cannot watch a model. Use run.watch(model), which "
            f"publishes histograms to every tracker."
        )
        raise BackendError(msg)

    def launch_dashboard(self, port: int | None = None) -> Any:
        """Start the tool's own page in a process of its own, where it has one.

        Args:
            port: Where to serve it.

        Raises:
            BackendError: If the tool has none.
        """
        where = f" Its page is {self.url}." if self.url else ""
        msg = f"{type(self).__name__} has no dashboard to launch.{where}"
        raise BackendError(msg)

    @property
    def native(self) -> Any:
        """The tool's own object for the run; None where there is none."""
        return None

    @property
    def url(self) -> str | None:
        """The page of the run; None where there is none."""
        return None

    # -- for a backend -----------------------------------------------------------

    @property
    def taken_seq(self) -> int:
        """Newest sequence number of what the methods have taken; 0 for none.

        What to keep beside what is flushed, for `last_seq` to tell.
        """
        return max(0, int(self._taken))

    # -- for whoever drives one --------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether the run is open over there."""
        return self._is_open

    def wait_until_open(self, timeout_s: float = 60.0) -> bool:
        """Wait for the worker that opens the run.

        Args:
            timeout_s: Seconds to wait at the most.

        Returns:
            Whether it is open.
        """
        deadline = time.monotonic() + timeout_s
        while not self._is_open and time.monotonic() < deadline:
            time.sleep(0.01)
        return self._is_open

    # -- handlers ----------------------------------------------------------------

    @notify.register
    def _open_run(self, event: log_events.StartExperimentEvent) -> None:
        self._is_open = False
        self._taken = -(2.0**63)
        self._failed: set[int] = set()
        self._passed_over: collections.Counter[str] = collections.Counter()
        self._begun: tuple[int | None, set[str]] = (None, set())
        self._names = SeriesNames(self.state)
        self.seq = None  # older than what a resumed run has yet to catch up with
        info = describe_run(event, self.find_run_dir(event))
        self.open(info)
        self._is_open = True
        known = self.last_seq()
        if known:  # 0 is nothing, and stands above the numbers without a journal
            self._taken = known
        if info.config:
            self.log_params(info.config)
        if self.url:
            _logger.info("%s shows this run at %s", self.name, self.url)

    @notify.register
    def _note_model(self, event: log_events.ModelRegistrationEvent) -> None:
        self._names.note_model(event.model_name)

    @notify.register
    def _take_epoch(self, event: log_events.MetricEvent) -> None:
        named = self._name_all(event, event.metrics, "epoch", {})
        self.log_metrics(named, self._at(event, event.epoch, "epoch"))

    @notify.register
    def _take_steps(self, event: log_events.StepMetricEvent) -> None:
        named = self._name_all(event, event.metrics, event.axis, event.context)
        at = self._at(event, event.step, event.axis, event.context)
        self.log_metrics(named, at)

    @notify.register
    def _take_rate(self, event: log_events.LearningRateEvent) -> None:
        rates = _read_rates(event.base_lr)
        if rates:
            named = self._name_all(event, rates, "epoch", {})
            self.log_metrics(named, self._at(event, event.epoch, "epoch"))

    @notify.register
    def _take_params(self, event: log_events.ParamsEvent) -> None:
        self.log_params(event.params)

    @notify.register
    def _take_histogram(self, event: log_events.HistogramEvent) -> None:
        name = self._name(event, event.context)
        at = self._at(event, event.step, "step", event.context)
        self.log_histogram(name, event.counts, event.bin_edges, at)

    @notify.register
    def _take_image(self, event: log_events.ImageEvent) -> None:
        at = self._at(event, event.step, "step")
        self.log_image(self._name(event), _as_file(event.image), at, event.caption)

    @notify.register
    def _take_figure(self, event: log_events.FigureEvent) -> None:
        at = self._at(event, event.step, "step")
        figure = _as_file(event.figure)
        self.log_figure(self._name(event), figure, at, event.caption)

    @notify.register
    def _take_table(self, event: log_events.TableEvent) -> None:
        at = self._at(event, event.step, "step")
        self.log_table(self._name(event), event.columns, event.rows, at)

    @notify.register
    def _take_text(self, event: log_events.TextEvent) -> None:
        at = self._at(event, event.step, "step")
        self.log_text(self._name(event), event.text, at)

    @notify.register
    def _take_artifact(self, event: log_events.ArtifactEvent) -> None:
        where: Any = {
            "metadata": event.metadata,
            "artifact_path": event.artifact_path,
        }
        if event.kind == "model":
            self.log_model(event.name, event.path, **where)
        else:
            self.log_artifact(event.name, event.path, kind=event.kind, **where)

    @notify.register
    def _take_summary(self, event: log_events.SummaryEvent) -> None:
        self.log_summary(event.summary)

    @notify.register
    def _finish_run(self, event: log_events.StopExperimentEvent) -> None:
        if event.summary:
            self.log_summary(event.summary)
        self._say_what_was_passed_over()
        self.finish(event.status, event.error)
        self._is_open = False

    def clean_up(self) -> None:
        """Finish a run that the tracker was removed from."""
        if self._is_open:
            self._is_open = False
            self.finish("interrupted", None)

    # -- inside ------------------------------------------------------------------

    def _find_handler(
        self, event_type: type[log_events.Event]
    ) -> Callable[[Any], None] | None:
        handler = super()._find_handler(event_type)
        if handler is None or event_type is log_events.StartExperimentEvent:
            return handler
        take = handler
        # Names follow from the models; a run that was opened is closed, also where
        # a replay brings nothing new.
        always = event_type in (
            log_events.ModelRegistrationEvent,
            log_events.StopExperimentEvent,
        )

        def take_once(event: log_events.Event) -> None:
            seq = self.seq = None if event.stamp is None else event.stamp.seq
            if seq is None or always:
                take(event)
            elif seq > self._taken or seq in self._failed:
                # Remembered first: what fails now may come behind a later event.
                self._failed.add(seq)
                take(event)
                self._failed.discard(seq)
                self._taken = max(self._taken, seq)

        return take_once

    def _at(
        self,
        event: log_events.Event,
        step: int,
        axis: str,
        context: Mapping[str, Any] | None = None,
    ) -> At:
        stamp = event.stamp
        return At(
            step,
            axis,
            time.time() if stamp is None else stamp.time,
            self.start_event.attempt if stamp is None else stamp.attempt,
            (context or {}) if self.keeps_context else {},
        )

    def _name(self, event: Any, context: Mapping[str, Any] | None = None) -> str:
        """Return the adapted name of what is no metric."""
        series = Series("", event.source_name, event.name, "")
        return self.rule.adapt(self._names.name(series, context or {}))

    def _name_all(
        self,
        event: Any,
        metrics: Mapping[str, float],
        axis: str,
        context: Mapping[str, Any],
    ) -> dict[str, float]:
        """Return metrics by their adapted names."""
        if self.keeps_context:
            context = {}
        model, source = event.model_name, event.source_name
        return {
            self.rule.adapt(
                self._names.name(Series(model, source, metric, axis), context)
            ): value
            for metric, value in metrics.items()
        }

    def _unwritten(self, metrics: Mapping[str, float]) -> Iterator[tuple[str, float]]:
        """Yield metrics but for those that a failed try of this event has written."""
        if self.seq is None or self._begun[0] != self.seq:
            self._begun = (self.seq, set())
        for name, value in metrics.items():
            if name not in self._begun[1]:
                yield name, value
                self._begun[1].add(name)  # not reached where the writing raises

    def _pass_over(self, what: str, count: int = 1) -> None:
        self._passed_over[what] += count

    def _say_what_was_passed_over(self) -> None:
        if self._passed_over:
            listed = ", ".join(f"{n} {what}" for what, n in self._passed_over.items())
            _logger.warning(
                "Tracker %r has no place for %s, and left them out. The run's journal "
                "keeps them.",
                self.name,
                listed,
            )


def import_backend(module: str, *, extra: str, tracker: str) -> ModuleType:
    """Import the package that a tracker drives.

    Args:
        module: What to import.
        extra: The extra of drytrack that installs it.
        tracker: The tracker's class, for the error.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as err:
        package = module.partition(".")[0]
        msg = f'{tracker} needs the {package} package: pip install "drytrack[{extra}]"'
        raise MissingDependencyError(msg) from err


def _as_file(image: Any) -> MediaFile:
    return image if isinstance(image, MediaFile) else MediaFile("png", png(image))


def _read_rates(rates: Any) -> dict[str, float]:
    if rates is None:
        return {}
    if isinstance(rates, Mapping):
        return {f"lr/{group}": rate for group, rate in rates.items()}
    if isinstance(rates, Sequence):
        if len(rates) == 1:
            return {"lr": rates[0]}
        return {f"lr/{number}": rate for number, rate in enumerate(rates)}
    return {"lr": rates}
