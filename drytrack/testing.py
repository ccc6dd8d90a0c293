"""Tools for tests: a suite that every tracker must pass, and captured events.

A tracker is tested by a subclass with one method, in a file that pytest
collects::

    from drytrack.testing import TrackerContract

    class TestMarkdownDumper(TrackerContract):
        def make_tracker(self, tmp_path):
            return MarkdownDumper(tmp_path)

What a training script publishes is tested by looking at its events::

    from drytrack.testing import capture_events

    def test_the_loss_is_logged():
        with capture_events() as events:
            train(epochs=1)
        assert any(isinstance(event, MetricEvent) for event in events)
"""

from __future__ import annotations

import contextlib
import contextvars
import errno
import importlib.util
import inspect
import math
import os
import pathlib
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from drytrack.core import _current, _defaults
from drytrack.core.exceptions import (
    DeliveryWarning,
    TrackerExceptionWarning,
    TrackerNotFoundError,
)
from drytrack.core.experiment import Experiment
from drytrack.core.log_events import (
    ActorRegistrationEvent,
    EndEpochEvent,
    Event,
    MetricEvent,
    StartEpochEvent,
    StartExperimentEvent,
    StepMetricEvent,
    StopExperimentEvent,
)
from drytrack.core.run import Run
from drytrack.core.track import Tracker
from drytrack.trackers.base import MetricLoader, Series, SourcedMetrics

__all__ = ["Recorder", "TrackerContract", "capture_events"]


class Recorder(Tracker):
    """Keeps every event that it is sent, in the order of delivery.

    Attributes:
        events: The events of all runs that it has watched, overlapping ones
            included.
    """

    notify = Tracker.notify.extend()

    def __init__(self) -> None:
        """Start without events."""
        super().__init__()
        # Made here and not at the start of a run: the copies that watch
        # overlapping runs add to one list.
        self.events: list[Event] = []

    @notify.register
    def _keep(self, event: Event) -> None:
        self.events.append(event)


@contextlib.contextmanager
def capture_events(experiment: Experiment[Any] | None = None) -> Iterator[list[Event]]:
    """Record the events that are published while the block runs.

    Args:
        experiment: Whose runs to record, active and later ones; by default
            those of the current run's experiment, if there is one, and of
            every experiment that is made inside the block.

    Yields:
        A list that grows with the events, in the order of delivery. An active
        run's start and registrations come first.
    """
    recorder = Recorder()
    name = f"capture_events_{id(recorder):x}"
    defaults = None
    if experiment is None:
        defaults = _defaults.default_trackers()
        defaults[name] = recorder
        run = _current.context_run()
        experiment = run.experiment if run is not None else None
    try:
        if experiment is not None:
            experiment.trackers.subscribe(**{name: recorder})
        yield recorder.events
    finally:
        if defaults is not None:
            defaults.pop(name, None)
        if experiment is not None:
            with contextlib.suppress(TrackerNotFoundError):  # the test removed all
                experiment.trackers.remove(name)


class TrackerContract:
    """What every tracker must do; subclass it and override `make_tracker`.

    Each test runs the tracker for real and checks that it raises nothing,
    that a tracker beside it misses nothing, and, where metrics can be read
    back, that they are the published ones.

    Name the subclass ``Test…`` at the top level of its module: two tests
    import that module in a process of their own and call `make_tracker` there.

    Attributes:
        keeps_history: Whether what an earlier process wrote is part of what
            `read_back` returns; False for what lives in memory.
        rel_tolerance: By how much a value that is read back may differ, as a
            fraction; 0 demands the same float.
    """

    keeps_history: ClassVar[bool] = True
    rel_tolerance: ClassVar[float] = 0.0

    # -- what a subclass says of its tracker ---------------------------------------

    def make_tracker(self, tmp_path: pathlib.Path) -> Tracker:
        """Return a new tracker that writes below a folder.

        Args:
            tmp_path: The folder; the same one stands for the same store.
        """
        msg = f"{type(self).__name__} makes no tracker. Override make_tracker."
        raise NotImplementedError(msg)

    def read_back(
        self, tracker: Tracker, start: StartExperimentEvent, model_name: str
    ) -> SourcedMetrics | None:
        """Return the metrics of a run that has ended; None where nothing can tell.

        By default a `MetricLoader` is asked for them.

        Args:
            tracker: The instance that watched the run.
            start: The start event of the run, which says where it wrote.
            model_name: Whose metrics.
        """
        if isinstance(tracker, MetricLoader):
            return tracker.load_metrics(model_name)
        return None

    @contextlib.contextmanager
    def break_tracker(self, tracker: Tracker) -> Iterator[None]:
        """Make the tracker fail on whatever it is sent inside the block.

        By default its ``notify`` raises; override this to break what it truly
        depends on: fill its disk, stop its server.

        Args:
            tracker: The tracker.
        """
        gate = tracker.notify
        assert isinstance(gate, _Gate)
        gate.broken = True
        try:
            yield
        finally:
            gate.broken = False

    # -- the tests -------------------------------------------------------------------

    def test_one_instance_watches_two_runs(self, tmp_path: pathlib.Path) -> None:
        """The second run begins clean."""
        tracker = self.make_tracker(tmp_path)
        with _healthy():
            first = _play(tracker, tmp_path, "first", {1: 4.0, 2: 3.0, 3: 2.0})
            self._check(tracker, first, {1: 4.0, 2: 3.0, 3: 2.0})
            second = _play(tracker, tmp_path, "second", {1: 0.5, 2: 0.25})
            self._check(tracker, second, {1: 0.5, 2: 0.25})

    def test_two_models_share_a_source(self, tmp_path: pathlib.Path) -> None:
        """Metrics of the same source and name are told apart by their model."""
        tracker = self.make_tracker(tmp_path)
        with _healthy(), _run(tracker, tmp_path, "run") as start:
            for epoch in (1, 2):
                _publish(epoch, {"loss": 1.0 / epoch}, model="generator")
                _publish(epoch, {"loss": 8.0 * epoch}, model="discriminator")
        self._check(tracker, start, {1: 1.0, 2: 0.5}, model="generator")
        self._check(tracker, start, {1: 8.0, 2: 16.0}, model="discriminator")

    def test_a_metric_may_appear_late(self, tmp_path: pathlib.Path) -> None:
        """What was not in the first event is kept all the same."""
        tracker = self.make_tracker(tmp_path)
        with _healthy(), _run(tracker, tmp_path, "run") as start:
            _publish(1, {"loss": 1.0})
            _publish(2, {"accuracy": 0.5, "loss": 0.75})
            _publish(3, {"accuracy": 0.875})
        self._check(tracker, start, {1: 1.0, 2: 0.75})
        self._check(tracker, start, {2: 0.5, 3: 0.875}, metric="accuracy")

    def test_nan_and_infinity_are_values(self, tmp_path: pathlib.Path) -> None:
        """They are kept as what they are, and cost no other value."""
        odd = {1: math.nan, 2: math.inf, 3: -math.inf, 4: -0.0, 5: 0.1 + 0.2}
        tracker = self.make_tracker(tmp_path)
        with _healthy():
            start = _play(tracker, tmp_path, "run", odd)
        self._check(tracker, start, odd)

    def test_a_run_is_resumed_in_the_same_process(self, tmp_path: pathlib.Path) -> None:
        """The newer attempt counts from its first epoch on."""
        tracker = self.make_tracker(tmp_path)
        with _healthy():
            _play(tracker, tmp_path, "run", {1: 4.0, 2: 3.0, 3: 2.0})
            start = _play(tracker, tmp_path, "run", {3: 1.5, 4: 1.0}, resume=True)
        self._check(tracker, start, {1: 4.0, 2: 3.0, 3: 1.5, 4: 1.0})

    def test_a_run_is_resumed_in_a_new_process(self, tmp_path: pathlib.Path) -> None:
        """A new instance goes on with what an earlier process left."""
        self._play_elsewhere(tmp_path, {1: 4.0, 2: 3.0, 3: 2.0}, kill=False)
        tracker = self.make_tracker(tmp_path)
        with _healthy():
            start = _play(tracker, tmp_path, "run", {3: 1.5, 4: 1.0}, resume=True)
        before = {1: 4.0, 2: 3.0} if self.keeps_history else {}
        self._check(tracker, start, {**before, 3: 1.5, 4: 1.0})

    def test_a_killed_run_is_resumed(self, tmp_path: pathlib.Path) -> None:
        """A kill loses nothing that was published, and the run goes on."""
        self._play_elsewhere(tmp_path, {1: 4.0, 2: 3.0, 3: 2.0}, kill=True)
        tracker = self.make_tracker(tmp_path)
        with _healthy():
            start = _play(tracker, tmp_path, "run", {4: 1.0}, resume=True)
        before = {1: 4.0, 2: 3.0, 3: 2.0} if self.keeps_history else {}
        self._check(tracker, start, {**before, 4: 1.0})

    def test_a_failure_at_the_start_is_survived(self, tmp_path: pathlib.Path) -> None:
        """It can be cleaned up, and the next run starts it afresh."""
        tracker = self.make_tracker(tmp_path)
        with _breakable(tracker):
            with _failing(tracker), self.break_tracker(tracker):
                _play(tracker, tmp_path, "broken", {1: 2.0, 2: 1.0})
            with _healthy():
                start = _play(tracker, tmp_path, "next", {1: 0.5})
        self._check(tracker, start, {1: 0.5})

    def test_a_failure_in_the_middle_is_survived(self, tmp_path: pathlib.Path) -> None:
        """What came before it is kept, and the next run starts it afresh."""
        tracker = self.make_tracker(tmp_path)
        with _breakable(tracker):
            with _failing(tracker), _run(tracker, tmp_path, "broken") as broken:
                _publish(1, {"loss": 2.0})
                with self.break_tracker(tracker):
                    for epoch in range(2, 7):
                        _publish(epoch, {"loss": 1.0 / epoch})
            kept = self.read_back(tracker.innermost, broken, "model")
            if kept is not None:
                found = dict(zip(*kept["trainer"]["loss"], strict=True)).get(1)
                assert found == 2.0, f"epoch 1 was 2.0 before the failure, is {found}"
            with _healthy():
                start = _play(tracker, tmp_path, "next", {1: 0.5})
        self._check(tracker, start, {1: 0.5})

    def test_overlapping_runs_are_kept_apart(self, tmp_path: pathlib.Path) -> None:
        """Two runs at once, watched by one instance, do not mix."""
        tracker = self.make_tracker(tmp_path)
        experiment = _experiment(tracker, tmp_path)
        # A context for each run, as threads and asyncio tasks have.
        contexts = [contextvars.copy_context() for _ in range(2)]
        with _healthy():
            runs = [
                context.run(experiment.create_run(run_id).start)
                for context, run_id in zip(contexts, ("left", "right"), strict=True)
            ]
            for epoch in (1, 2, 3):
                for shift, context in enumerate(contexts):
                    context.run(_publish, epoch, {"loss": epoch + 0.5 * shift})
            found = [context.run(_watching, tracker) for context in contexts]
            for run, context in zip(runs, contexts, strict=True):
                context.run(run.stop)
        left, right = found
        self._check(left[0], left[1], {1: 1.0, 2: 2.0, 3: 3.0})
        self._check(right[0], right[1], {1: 1.5, 2: 2.5, 3: 3.5})

    # -- how they do it ----------------------------------------------------------------

    def _check(
        self,
        tracker: Tracker,
        start: StartExperimentEvent,
        expected: Mapping[int, float],
        *,
        model: str = "model",
        metric: str = "loss",
    ) -> None:
        """Compare one metric of the source ``trainer`` with what was published."""
        found = self.read_back(tracker.innermost, start, model)
        if found is None:
            return
        series = found.get("trainer", {}).get(metric, Series([], []))
        what = f"metric {metric!r} of model {model!r} in run {start.run_id!r}"
        steps, values = list(series[0]), list(series[1])
        assert steps == list(expected), (
            f"{what}: epochs {list(expected)} were published, {steps} read back"
        )
        for step, value in zip(steps, values, strict=True):
            assert self._is_same(expected[step], value), (
                f"{what}: epoch {step} was {expected[step]!r}, reads back as {value!r}"
            )

    def _is_same(self, expected: float, found: float) -> bool:
        if math.isnan(expected) or math.isnan(found):
            return math.isnan(expected) and math.isnan(found)
        return math.isclose(expected, found, rel_tol=self.rel_tolerance)

    def _play_elsewhere(
        self, tmp_path: pathlib.Path, losses: Mapping[int, float], *, kill: bool
    ) -> None:
        """Publish the first attempt of a run in a process of its own."""
        suite = type(self)
        if "<locals>" in suite.__qualname__:
            msg = (
                f"{suite.__qualname__} is local to a function, so another process "
                f"cannot import it. Define it at the top level of its module."
            )
            raise TypeError(msg)
        said = tmp_path / "child.txt"
        points = [f"{epoch}={loss!r}" for epoch, loss in losses.items()]
        with said.open("wb") as errors:
            child = subprocess.Popen(  # noqa: S603  # this interpreter, this module
                [sys.executable, "-c", _CHILD, inspect.getfile(suite)]
                + [suite.__module__, suite.__qualname__, str(tmp_path), *points],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={
                    **os.environ,
                    "DRYTRACK_INIT_MODE": "none",
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                },
                text=True,
            )
            with child:
                assert child.stdout is not None
                published = any(line.strip() == _PUBLISHED for line in child.stdout)
                if kill:
                    child.kill()
                # Its standard input is closed when the block is left: then it stops.
        ended = kill or child.returncode == 0
        assert published and ended, (  # noqa: PT018  # one failure: the child's
            f"the tracker failed in a process of its own:\n{said.read_text()}"
        )


_PUBLISHED = "drytrack.testing: published"

_CHILD = """
import sys
from drytrack import testing
testing._play_as_child(*sys.argv[1:])
"""


def _play_as_child(
    path: str, module_name: str, qualname: str, folder: str, *points: str
) -> None:
    """Publish the first attempt of a run, and stop when standard input closes."""
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    suite: Any = module
    for name in qualname.split("."):
        suite = getattr(suite, name)
    tmp_path = pathlib.Path(folder)
    tracker = suite().make_tracker(tmp_path)
    with _healthy(), _run(tracker, tmp_path, "run"):
        for point in points:
            epoch, _, loss = point.partition("=")
            _publish(int(epoch), {"loss": float(loss)})
        print(_PUBLISHED, flush=True)  # noqa: T201  # to the parent
        sys.stdin.read()


class _Gate:
    """Stands before the ``notify`` of one instance, and lets it fail on demand."""

    def __init__(self, tracker: Tracker) -> None:
        self.notify = tracker.notify
        self.broken = False

    def __call__(self, event: Event) -> None:
        if self.broken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.notify(event)


@contextlib.contextmanager
def _breakable(tracker: Tracker) -> Iterator[None]:
    # A patched instance is called through its notify, whatever its class says.
    vars(tracker)["notify"] = _Gate(tracker)
    try:
        yield
    finally:
        del vars(tracker)["notify"]


def _experiment(tracker: Tracker, tmp_path: pathlib.Path) -> Experiment[Any]:
    experiment = Experiment({"lr": 0.1}, name="Contract", par_dir=tmp_path / "runs")
    experiment.trackers.remove_all()
    experiment.trackers.subscribe(tracker)
    return experiment


@contextlib.contextmanager
def _run(
    tracker: Tracker, tmp_path: pathlib.Path, run_id: str, *, resume: bool = False
) -> Iterator[StartExperimentEvent]:
    """Start a run that is watched by a tracker, and by another beside it."""
    experiment = _experiment(tracker, tmp_path)
    with capture_events(experiment) as events:
        with experiment.create_run(run_id, resume=resume) as run:
            _register(run)
            yield _first(events, StartExperimentEvent)
            published = len(events)
        stops = [e for e in events[published:] if isinstance(e, StopExperimentEvent)]
        assert len(stops) == 1, "a tracker beside this one missed the end of the run"
        _first(events, ActorRegistrationEvent)


def _first(events: Iterable[Event], kind: type[Any]) -> Any:
    found = next((event for event in events if isinstance(event, kind)), None)
    assert found is not None, f"a tracker beside this one missed a {kind.__name__}"
    return found


def _register(run: Run[Any]) -> None:
    for name in ("model", "generator", "discriminator"):
        run.register_model(object(), name)
        run.register_actor(object(), name, "trainer", metadata={"optimizer": "sgd"})


def _play(
    tracker: Tracker,
    tmp_path: pathlib.Path,
    run_id: str,
    losses: Mapping[int, float],
    *,
    resume: bool = False,
) -> StartExperimentEvent:
    """Run from start to stop, and return the start event."""
    with _run(tracker, tmp_path, run_id, resume=resume) as start:
        for epoch, loss in losses.items():
            _publish(epoch, {"loss": loss})
    return start


def _publish(epoch: int, metrics: Mapping[str, float], model: str = "model") -> None:
    StartEpochEvent("trainer", model, epoch)
    StepMetricEvent("trainer", 10 * epoch, metrics, model_name=model)
    EndEpochEvent("trainer", model, epoch)
    MetricEvent(model, "trainer", epoch, metrics)


def _watching(tracker: Tracker) -> tuple[Tracker, StartExperimentEvent]:
    """Return the instance that watches the context's run, and its start event."""
    own = type(tracker.innermost).get_current(tracker.name)
    return own, own.start_event


@contextlib.contextmanager
def _caught() -> Iterator[list[str]]:
    """Collect what is said of failing trackers; pass all other warnings on."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
    for warning in caught:
        if issubclass(warning.category, (TrackerExceptionWarning, DeliveryWarning)):
            said.append(str(warning.message))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


@contextlib.contextmanager
def _healthy() -> Iterator[None]:
    """Demand that no tracker fails."""
    with _caught() as said:
        yield
    assert not said, "\n".join(["the tracker failed:", *said])


@contextlib.contextmanager
def _failing(tracker: Tracker) -> Iterator[None]:
    """Demand that the tracker fails, and yet can be cleaned up."""
    with _caught() as said:
        yield
    assert any(repr(tracker.name) in text for text in said), (
        f"tracker {tracker.name!r} was broken, and no warning says that it failed"
    )
    dirty = [text for text in said if "failed to clean up" in text]
    assert not dirty, "\n".join(["after a failure:", *dirty])
