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
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import ClassVar

from drytrack._capture import Recorder, capture_events
from drytrack._rehearsal import (
    Gate,
    breakable,
    experiment_for,
    failing,
    healthy,
    play,
    play_elsewhere,
    publish,
    settle,
    start_run,
    watching,
)
from drytrack.core.log_events import StartExperimentEvent
from drytrack.core.track import Tracker
from drytrack.trackers.base import MetricLoader, Series, SourcedMetrics

__all__ = ["Recorder", "TrackerContract", "capture_events"]


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
        gate = tracker.innermost.notify
        assert isinstance(gate, Gate)
        gate.broken = True
        try:
            yield
        finally:
            gate.broken = False

    # -- the tests -------------------------------------------------------------------

    def test_one_instance_watches_two_runs(self, tmp_path: pathlib.Path) -> None:
        """The second run begins clean."""
        tracker = self.make_tracker(tmp_path)
        with healthy():
            first = play(tracker, tmp_path, "first", {1: 4.0, 2: 3.0, 3: 2.0})
            self._check(tracker, first, {1: 4.0, 2: 3.0, 3: 2.0})
            second = play(tracker, tmp_path, "second", {1: 0.5, 2: 0.25})
            self._check(tracker, second, {1: 0.5, 2: 0.25})

    def test_two_models_share_a_source(self, tmp_path: pathlib.Path) -> None:
        """Metrics of the same source and name are told apart by their model."""
        tracker = self.make_tracker(tmp_path)
        with healthy(), start_run(tracker, tmp_path, "run") as start:
            for epoch in (1, 2):
                publish(epoch, {"loss": 1.0 / epoch}, model="generator")
                publish(epoch, {"loss": 8.0 * epoch}, model="discriminator")
        self._check(tracker, start, {1: 1.0, 2: 0.5}, model="generator")
        self._check(tracker, start, {1: 8.0, 2: 16.0}, model="discriminator")

    def test_a_metric_may_appear_late(self, tmp_path: pathlib.Path) -> None:
        """What was not in the first event is kept all the same."""
        tracker = self.make_tracker(tmp_path)
        with healthy(), start_run(tracker, tmp_path, "run") as start:
            publish(1, {"loss": 1.0})
            publish(2, {"accuracy": 0.5, "loss": 0.75})
            publish(3, {"accuracy": 0.875})
        self._check(tracker, start, {1: 1.0, 2: 0.75})
        self._check(tracker, start, {2: 0.5, 3: 0.875}, metric="accuracy")

    def test_nan_and_infinity_are_values(self, tmp_path: pathlib.Path) -> None:
        """They are kept as what they are, and cost no other value."""
        odd = {1: math.nan, 2: math.inf, 3: -math.inf, 4: -0.0, 5: 0.1 + 0.2}
        tracker = self.make_tracker(tmp_path)
        with healthy():
            start = play(tracker, tmp_path, "run", odd)
        self._check(tracker, start, odd)

    def test_a_run_is_resumed_in_the_same_process(self, tmp_path: pathlib.Path) -> None:
        """The newer attempt counts from its first epoch on."""
        tracker = self.make_tracker(tmp_path)
        with healthy():
            play(tracker, tmp_path, "run", {1: 4.0, 2: 3.0, 3: 2.0})
            start = play(tracker, tmp_path, "run", {3: 1.5, 4: 1.0}, resume=True)
        self._check(tracker, start, {1: 4.0, 2: 3.0, 3: 1.5, 4: 1.0})

    def test_a_run_is_resumed_in_a_new_process(self, tmp_path: pathlib.Path) -> None:
        """A new instance goes on with what an earlier process left."""
        play_elsewhere(type(self), tmp_path, {1: 4.0, 2: 3.0, 3: 2.0}, kill=False)
        tracker = self.make_tracker(tmp_path)
        with healthy():
            start = play(tracker, tmp_path, "run", {3: 1.5, 4: 1.0}, resume=True)
        self._check(tracker, start, {1: 4.0, 2: 3.0, 3: 1.5, 4: 1.0}, resumed_at=3)

    def test_a_killed_run_is_resumed(self, tmp_path: pathlib.Path) -> None:
        """A kill loses nothing that was published, and the run goes on."""
        play_elsewhere(type(self), tmp_path, {1: 4.0, 2: 3.0, 3: 2.0}, kill=True)
        tracker = self.make_tracker(tmp_path)
        with healthy():
            start = play(tracker, tmp_path, "run", {4: 1.0}, resume=True)
        self._check(tracker, start, {1: 4.0, 2: 3.0, 3: 2.0, 4: 1.0}, resumed_at=4)

    def test_a_failure_at_the_start_is_survived(self, tmp_path: pathlib.Path) -> None:
        """It can be cleaned up, and the next run starts it afresh."""
        tracker = self.make_tracker(tmp_path)
        with breakable(tracker):
            with failing(tracker), self.break_tracker(tracker):
                play(tracker, tmp_path, "broken", {1: 2.0, 2: 1.0})
            with healthy():
                start = play(tracker, tmp_path, "next", {1: 0.5})
        self._check(tracker, start, {1: 0.5})

    def test_a_failure_in_the_middle_is_survived(self, tmp_path: pathlib.Path) -> None:
        """What came before it is kept, and the next run starts it afresh."""
        tracker = self.make_tracker(tmp_path)
        with breakable(tracker):
            with (
                failing(tracker),
                contextlib.ExitStack() as until_the_end,
                start_run(tracker, tmp_path, "broken") as broken,
            ):
                publish(1, {"loss": 2.0})
                settle(tracker)
                until_the_end.enter_context(self.break_tracker(tracker))
                for epoch in range(2, 7):
                    publish(epoch, {"loss": 1.0 / epoch})
            kept = self.read_back(tracker.innermost, broken, "model")
            if kept is not None:
                found = dict(zip(*kept["trainer"]["loss"], strict=True)).get(1)
                assert found == 2.0, f"epoch 1 was 2.0 before the failure, is {found}"
            with healthy():
                start = play(tracker, tmp_path, "next", {1: 0.5})
        self._check(tracker, start, {1: 0.5})

    def test_overlapping_runs_are_kept_apart(self, tmp_path: pathlib.Path) -> None:
        """Two runs at once, watched by one instance, do not mix."""
        tracker = self.make_tracker(tmp_path)
        experiment = experiment_for(tracker, tmp_path)
        # A context for each run, as threads and asyncio tasks have.
        contexts = [contextvars.copy_context() for _ in range(2)]
        with healthy():
            runs = [
                context.run(experiment.create_run(run_id).start)
                for context, run_id in zip(contexts, ("left", "right"), strict=True)
            ]
            for epoch in (1, 2, 3):
                for shift, context in enumerate(contexts):
                    context.run(publish, epoch, {"loss": epoch + 0.5 * shift})
            found = [context.run(watching, tracker) for context in contexts]
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
        resumed_at: int = 0,
    ) -> None:
        """Compare one metric of the source ``trainer`` with what was published.

        What an earlier process published, before ``resumed_at``, is left out
        where the tracker does not promise it: it may be there all the same,
        for a background tracker catches up with what it had missed.
        """
        found = self.read_back(tracker.innermost, start, model)
        if found is None:
            return
        series = found.get("trainer", {}).get(metric, Series([], []))
        what = f"metric {metric!r} of model {model!r} in run {start.run_id!r}"
        points = dict(zip(*series, strict=True))
        if not self.keeps_history:
            points = {step: points[step] for step in points if step >= resumed_at}
            expected = {step: expected[step] for step in expected if step >= resumed_at}
        steps = list(points)
        assert steps == list(expected), (
            f"{what}: epochs {list(expected)} were published, {steps} read back"
        )
        for step, value in points.items():
            assert self._is_same(expected[step], value), (
                f"{what}: epoch {step} was {expected[step]!r}, reads back as {value!r}"
            )

    def _is_same(self, expected: float, found: float) -> bool:
        if math.isnan(expected) or math.isnan(found):
            return math.isnan(expected) and math.isnan(found)
        return math.isclose(expected, found, rel_tol=self.rel_tolerance)
