"""Publishers for hand-written loops: they announce, and own no training logic."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from drytrack.core import _current, log_events
from drytrack.core.exceptions import EventValueError

__all__ = ["TestLoop", "TrainingLoop"]

if TYPE_CHECKING:
    from os import PathLike

T = TypeVar("T")

LEFT_EARLY = "the loop was left early"


class _Loop:
    """What training and testing loops share: batches, updates, metrics."""

    def __init__(self, model: object, name: str, log_every: int = 10) -> None:
        """Register the loop as an actor of the current run.

        Args:
            model: A registered model, or its name.
            name: The ``source_name`` of the loop's events.
            log_every: Batches between two updates of the bar and two
                `StepMetricEvent`; at least 1.

        Raises:
            AccessOutsideScopeError: If there is no current run.
            RegistrationError: If the model is not registered, or its loop of
                that name is.
            ValueError: If ``log_every`` is below 1.
        """
        if log_every < 1:
            msg = f"log_every is {log_every!r}. Pass an integer of at least 1."
            raise ValueError(msg)
        self.run = _current.current_run()
        self.name = name
        self.log_every = log_every
        self._model = self.run.registry.find_model(model)
        self.model_name = self._model.name
        metadata = {"class": type(self).__name__, "log_every": log_every}
        self.run.register_actor(self, model, name, metadata=metadata)
        self._metrics: Mapping[str, Any] = {}
        self._floats: Mapping[str, float] = {}
        self.step = self.run.next_step(name)

    @property
    def epoch(self) -> int:
        """The epoch that the model is in, was last trained to, or loaded from."""
        return self._model.epoch

    def batches(self, loader: Iterable[T]) -> Iterator[T]:
        """Pass the batches of a loader on, one `IterateBatchEvent` for all.

        Args:
            loader: Any iterable. Its length, its ``batch_size`` and the length
                of its ``dataset`` are announced where it has them.

        Yields:
            The loader's batches.
        """
        event = log_events.IterateBatchEvent(
            self.name,
            batch_size=_int_or_none(getattr(loader, "batch_size", None)),
            n_iter=_length(loader),
            dataset_size=_length(getattr(loader, "dataset", None)),
        )
        new = 0
        for batch in loader:
            yield batch
            new += 1
            if new == self.log_every:
                event.update(self._floats, new)
                new = 0
        if new:
            self._read()
            event.update(self._floats, new)

    def update(self, metrics: Mapping[str, Any] | None = None, /, **named: Any) -> None:
        """Note the metrics of a step; every ``log_every`` steps they are read.

        A value on a GPU is not waited for in between.

        Args:
            metrics: Metrics whose names are no identifiers, such as ``train/loss``.
            **named: Metrics by name: numbers, or one-element arrays or tensors.

        Raises:
            MetricValueError: If one that is read is no number.
        """
        self.step += 1
        self._metrics = {**metrics, **named} if metrics else named
        if self.step % self.log_every == 0:
            event = log_events.StepMetricEvent(
                self.name, self.step, self._metrics, model_name=self.model_name
            )
            self._floats = event.metrics

    def log_metrics(
        self, metrics: Mapping[str, Any] | None = None, /, **named: Any
    ) -> None:
        """Publish the metrics of the current epoch as a `MetricEvent`.

        Args:
            metrics: Metrics whose names are no identifiers, such as ``train/loss``.
            **named: Metrics by name: numbers, or one-element arrays or tensors.

        Raises:
            MetricValueError: If one is no number.
        """
        log_events.MetricEvent(
            self.model_name, self.name, self.epoch, {**(metrics or {}), **named}
        )

    def _read(self) -> None:
        """Read the latest metrics for the bar, which has come to its end."""
        unpublished = log_events.StepMetricEvent.unpublished
        self._floats = unpublished(self.name, self.step, self._metrics).metrics


class TrainingLoop(_Loop):
    """Announces the training of one model.

    ::

        loop = TrainingLoop(model, name="trainer")
        for epoch in loop.epochs(10):
            for x, y in loop.batches(loader):
                loop.update(loss=step(x, y))
            loop.log_metrics(loss=..., accuracy=...)

    However the loop is left (the last epoch, `terminate`, ``break``, an
    exception), trackers are told, in order, and before the run's end.
    """

    def __init__(self, model: object, name: str, log_every: int = 10) -> None:
        """Register the loop; see the class of both loops for the errors."""
        super().__init__(model, name, log_every)
        self._epochs: weakref.ref[_Epochs] | None = None
        self._reason: str | None = None

    def epochs(
        self,
        n: int | None = None,
        start: int | None = None,
        *,
        until: int | None = None,
    ) -> Iterator[int]:
        """Count epochs, announcing each.

        Args:
            n: How many.
            start: The first one; by default the one after the last that the
                model was trained to or loaded from, 1 for a new model.
            until: The last one, in place of ``n``: a resumed run then does what
                is left, which may be nothing.

        Returns:
            An iterator over the epochs.

        Raises:
            EventValueError: If not exactly one of ``n`` and ``until`` is given,
                or ``n`` is negative.
        """
        if (n is None) == (until is None) or (n is not None and n < 0):
            msg = f"epochs() got n={n!r} and until={until!r}. Pass one, at least 0."
            raise EventValueError(msg)
        before = self._epochs() if self._epochs is not None else None
        if before is not None:
            before.close("another loop over the epochs began")
        first = self.epoch + 1 if start is None else start
        last = first + n - 1 if n is not None else until
        assert last is not None  # one of the two is given
        self._reason = None
        epochs = _Epochs(self, first, last)
        self._epochs = weakref.ref(epochs)
        return epochs

    def terminate(self, reason: str) -> None:
        """End the training after the current epoch.

        Args:
            reason: Why, for the `TerminatedTrainingEvent`.
        """
        self._reason = str(reason)

    def log_learning_rate(
        self,
        base_lr: float | Sequence[float] | Mapping[str, float],
        scheduler_name: str | None = None,
    ) -> None:
        """Publish the learning rate as a `LearningRateEvent`.

        Args:
            base_lr: The rate, or one for each parameter group.
            scheduler_name: The scheduler that set it.
        """
        log_events.LearningRateEvent(
            self.model_name,
            self.name,
            self.epoch,
            base_lr,
            scheduler_name,
        )

    def save_model(
        self, definition: str, location: str | PathLike[str], epoch: int | None = None
    ) -> None:
        """Publish that you saved a checkpoint; the file is yours.

        Args:
            definition: What it holds, such as ``checkpoint`` or ``weights``.
            location: Where it is.
            epoch: The epoch that it was saved after, by default the current one.
        """
        epoch = self.epoch if epoch is None else epoch
        log_events.SaveModelEvent(self.model_name, definition, location, epoch)

    def load_model(
        self, definition: str, location: str | PathLike[str], epoch: int
    ) -> None:
        """Publish that you loaded a checkpoint; `epochs` goes on after it.

        Args:
            definition: What it holds, such as ``checkpoint`` or ``weights``.
            location: Where it is.
            epoch: The epoch that it was saved after.
        """
        event = log_events.LoadModelEvent(self.model_name, definition, location, epoch)
        assert event.epoch is not None  # an int went in
        self._model.epoch = event.epoch


class _Epochs(Iterator[int]):
    """Counts epochs; its end, however it comes about, is announced once."""

    def __init__(self, loop: TrainingLoop, first: int, last: int) -> None:
        self._loop = loop
        self._first, self._last = first, last
        self._next = first
        self._state = "new"  # then open, then closed

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> int:
        loop = self._loop
        if self._state == "closed":
            raise StopIteration
        if self._state == "new":
            self._state = "open"
            loop.run.open_loop(self)
            log_events.StartTrainingEvent(
                loop.name, loop.model_name, self._first, self._last
            )
        else:
            log_events.EndEpochEvent(loop.name, loop.model_name, loop.epoch)
        if loop._reason is not None:
            self._finish(loop._reason)
            raise StopIteration
        if self._next > self._last:
            self._finish(None)
            raise StopIteration
        epoch = loop._model.epoch = self._next
        self._next += 1
        log_events.StartEpochEvent(loop.name, loop.model_name, epoch, self._last)
        return epoch

    def close(self, reason: str = LEFT_EARLY) -> None:
        """End early; what has not begun, or has ended, is left alone.

        Without a reason it is called by a generator that has the epochs in a
        ``yield from`` and is closed.
        """
        if self._state == "open":
            self._finish(self._loop._reason or reason)
        self._state = "closed"

    def _finish(self, reason: str | None) -> None:
        self._state = "closed"
        loop = self._loop
        loop.run.close_loop(self)
        if reason is not None:
            log_events.TerminatedTrainingEvent(
                loop.name, loop.model_name, loop.epoch, reason
            )
        log_events.EndTrainingEvent(loop.name)

    def __del__(self) -> None:
        """End when the ``for`` that held the only reference is left."""
        if self._state != "open":
            return
        run = self._loop.run
        try:
            run.bind(self.close)(LEFT_EARLY)
        except (KeyboardInterrupt, SystemExit) as err:
            run.interrupt_later(err)  # an exception in __del__ is swallowed


class TestLoop(_Loop):
    """Announces the testing of one model.

    ::

        with TestLoop(model, name="test") as test:
            for x, y in test.batches(loader):
                test.update(accuracy=...)
            test.log_metrics(accuracy=...)

    Each ``with`` is one test; the loop may be used for several.
    """

    __test__ = False  # no test case for pytest

    def __enter__(self) -> Self:
        """Publish the `StartTestEvent`."""
        log_events.StartTestEvent(self.name, self.model_name)
        self.run.open_loop(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Publish the `EndTestEvent`."""
        self.close("the test ended")

    def close(self, reason: str) -> None:
        """End the test, if one is on."""
        if self.run.close_loop(self):
            log_events.EndTestEvent(self.name, self.model_name)


def _length(loader: object) -> int | None:
    try:
        return len(loader)  # type: ignore[arg-type]  # checked by failing
    except (TypeError, NotImplementedError, AttributeError):
        return None


def _int_or_none(value: object) -> int | None:
    return value if isinstance(value, int) else None
