"""A high-level logger: steps, epochs, best values and throughput of a training."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from drytrack.core import _routing
from drytrack.core.exceptions import ConfigurationError
from drytrack.core.log_events import StepMetricEvent

if TYPE_CHECKING:
    from drytrack.core.run import Run

__all__ = ["ExperimentLogger"]

Better = Literal["lower", "higher"]

_LOWER = ("loss", "error", "err", "mae", "mse", "rmse", "perplexity", "nll", "cost")
"""Words in the names of metrics whose lower values are better."""


class ExperimentLogger:
    """Counts the steps of a training and logs them on a run.

    Steps are counted from where the run's own logging has ended. A value on a GPU
    is not waited for but at every ``log_interval``-th step.

    Args:
        run: A started run.
        log_interval: Steps between two that are logged.
        better: Metric → ``"lower"`` or ``"higher"``. By default lower is better
            where the name says loss or error.
        watch_every: Steps between two looks at the gradients of a model that is
            passed to `log_training_step`; 0 for none.
    """

    def __init__(
        self,
        run: Run[Any],
        log_interval: int = 10,
        *,
        better: Mapping[str, Better] | None = None,
        watch_every: int = 100,
    ) -> None:
        if isinstance(log_interval, bool) or not (
            isinstance(log_interval, int) and log_interval >= 1
        ):
            msg = f"log_interval is {log_interval!r}. Pass an integer of at least 1."
            raise ConfigurationError(msg)
        self.run = run
        self.log_interval = log_interval
        self._better = dict(better or {})
        self._watch_every = watch_every
        self._watched: set[int] = set()
        self._first_step = self._step = run.next_step(_routing.SOURCE)
        self._epochs = 0
        self._best: dict[str, dict[str, float]] = {}
        self._pending: Mapping[str, Any] | None = None
        self._probe: Any = None
        self._began = time.monotonic()

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters; see `Run.log_params`.

        Args:
            params: Plain data, possibly nested.
        """
        self.run.log_params(params)

    def log_training_step(self, metrics: Mapping[str, Any], model: Any = None) -> None:
        """Count a step, and log every ``log_interval``-th.

        Args:
            metrics: Name → number of this step.
            model: A torch module or a mapping of arrays, which is watched from its
                first step on; see `Run.watch`.
        """
        self._step += 1
        if model is not None and self._watch_every and id(model) not in self._watched:
            self._watched.add(id(model))
            self.run.watch(model, every=self._watch_every)
        # Without the graphs of their tensors, which would be kept until the next step.
        self._pending = {
            name: value.detach() if hasattr(value, "detach") else value
            for name, value in metrics.items()
        }
        if self._step % self.log_interval == 0:
            self._log_pending()

    def log_epoch_end(
        self,
        epoch: int,
        metrics: Mapping[str, Any],
        model: Any = None,
        *,
        model_name: str = "model",
    ) -> None:
        """Log the metrics of an epoch, and the last step if it was not logged.

        Args:
            epoch: The epoch.
            metrics: Name → number, possibly nested.
            model: Saved as a new version where it is given; see `Run.log_model`.
            model_name: Its name.
        """
        self._log_pending()
        flat = _routing.flatten(metrics)
        numbers = StepMetricEvent.unpublished(_routing.SOURCE, epoch, flat).metrics
        self.run.log_metrics(numbers, step=epoch, axis="epoch")
        self._epochs += 1
        for name, value in numbers.items():
            self._note_best(name, value, epoch)
        if model is not None:
            self.run.log_model(model, model_name, epoch=epoch)

    def log_system_metrics(self) -> None:
        """Log the load of the machine at this step; see `SystemMonitor`.

        Raises:
            MissingDependencyError: If psutil is not installed.
        """
        if not self.run.is_main:
            return
        if self._probe is None:
            from drytrack.trackers.system import SystemProbe

            self._probe = SystemProbe()
        found = {f"system/{name}": value for name, value in self._probe.read().items()}
        self.run.log_metrics(found, step=self._step)

    def get_training_summary(self) -> dict[str, Any]:
        """Return what this training has come to so far.

        Returns:
            ``steps``, ``epochs``, ``time_s``, ``steps_per_s``, and ``best``: metric of
            the epochs → ``value`` and ``epoch``.
        """
        time_s = time.monotonic() - self._began
        steps = self._step - self._first_step
        return {
            "steps": steps,
            "epochs": self._epochs,
            "time_s": time_s,
            "steps_per_s": steps / time_s if time_s else 0.0,
            "best": {name: dict(best) for name, best in self._best.items()},
        }

    def finish(self) -> None:
        """Stop the run, with the summary of the training as a part of its own."""
        if self.run.status == "running":
            self._log_pending()
            summary = self.get_training_summary()
            best = summary.pop("best")
            for name, found in best.items():
                summary[f"best/{name}"] = found["value"]
            self.run.summary.update(summary)
        self.run.finish()

    def _log_pending(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            self.run.log(pending, step=self._step)

    def _note_best(self, name: str, value: float, epoch: int) -> None:
        if math.isnan(value):
            return
        best = self._best.get(name)
        words = name.lower().replace("/", "_").replace("-", "_").split("_")
        guess = "lower" if any(word in _LOWER for word in words) else "higher"
        sign = -1 if self._better.get(name, guess) == "lower" else 1
        if best is None or sign * value > sign * best["value"]:
            self._best[name] = {"value": value, "epoch": epoch}
