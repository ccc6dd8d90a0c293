"""Watching a model: histograms of its parameters and gradients at intervals."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from drytrack.core import _distribution
from drytrack.core._names import shorten
from drytrack.core._routing import SOURCE
from drytrack.core._warn import warn
from drytrack.core.exceptions import EventValueError, RunWarning
from drytrack.core.log_events import HistogramEvent

if TYPE_CHECKING:
    from drytrack.core._run_logging import RunLogging

What = Literal["gradients", "parameters", "all"]

SAMPLE = 4096
"""Values of a tensor that are looked at; of a larger one, evenly spread ones.

Enough for the shape of a distribution, and the price of a large model's
histograms no longer depends on its size.
"""

BINS = 32
"""Bins of each; half as many as usual, since every one is written to the journal."""


class Watch:
    """Publishes histograms of a model, until it is stopped or the run ends.

    Args:
        run: Where to.
        name: What the names of parameters follow.
        log: What to publish.
        every: Training passes between two publications.
    """

    def __init__(self, run: RunLogging, name: str, log: What, every: int) -> None:
        if log not in ("gradients", "parameters", "all"):
            msg = f"log is {log!r}. Pass 'gradients', 'parameters' or 'all'."
            raise EventValueError(msg)
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            msg = f"every is {every!r}. Pass an integer of at least 1."
            raise EventValueError(msg)
        # Weakly: a hook lives as long as its model, which may outlive the run.
        self._run = weakref.ref(run)
        self._name = name
        self._log = log
        self._every = every
        self._count = 0
        self._handles: list[Any] = []
        self._gradient_handles: list[Any] = []
        self._read: Callable[[], Any] | None = None

    def stop(self) -> None:
        """Publish nothing more."""
        for handle in [*self._handles, *self._gradient_handles]:
            handle.remove()
        self._handles.clear()
        self._gradient_handles.clear()
        self._read = None

    # -- torch -------------------------------------------------------------------

    def attach(self, module: Any) -> None:
        """Follow the training passes of a torch module."""
        self._handles.append(module.register_forward_pre_hook(self._on_forward))

    def _on_forward(self, module: Any, inputs: object) -> None:
        torch = sys.modules["torch"]
        if not (module.training and torch.is_grad_enabled()):
            return
        self._count += 1
        if self._count % self._every == 0:
            self._guard(self._look_at_module, module)

    def _look_at_module(self, module: Any) -> None:
        run = self._run()
        if run is None or not run._is_heard(HistogramEvent):
            return
        step = run._watched_step(self._count)
        for handle in self._gradient_handles:  # of parameters that got none
            handle.remove()
        self._gradient_handles.clear()
        for name, parameter in module.named_parameters():
            if self._log != "gradients":
                self._publish(f"parameters/{name}", parameter, step)
            if self._log != "parameters" and parameter.requires_grad:
                self._wait_for_gradient(name, parameter, step)

    def _wait_for_gradient(self, name: str, parameter: Any, step: int) -> None:
        def look(gradient: Any) -> None:
            handle.remove()
            self._guard(self._publish, f"gradients/{name}", gradient, step)

        handle = parameter.register_hook(look)
        self._gradient_handles.append(handle)

    # -- arrays ------------------------------------------------------------------

    def follow(self, read: Callable[[], Any]) -> None:
        """Look at what a function returns, at every n-th logged step."""
        self._read = read

    @property
    def counts_steps(self) -> bool:
        """Whether it must be told of every step."""
        return self._read is not None

    def tick(self, step: int) -> None:
        """Note that a step was logged."""
        if self._read is None:
            return
        self._count += 1
        if self._count % self._every == 0:
            self._guard(self._look_at_arrays, "", self._read, step)

    def _look_at_arrays(self, prefix: str, arrays: Any, step: int) -> None:
        if not isinstance(arrays, Mapping):
            arrays = arrays()
        for key, value in arrays.items():
            name = f"{prefix}{key}"
            if isinstance(value, Mapping):
                self._look_at_arrays(f"{name}/", value, step)
            elif value is not None:
                self._publish(name, value, step)

    # -- both --------------------------------------------------------------------

    def _publish(self, name: str, values: Any, step: int) -> None:
        run = self._run()
        if run is None or run.status != "running":
            self.stop()
            return
        if not run._is_heard(HistogramEvent):
            return
        sample, stride = _sample(values)
        found = _distribution.count(sample, f"watched {name!r}", BINS)
        if found is not None:
            if self._name:
                name = f"{self._name}/{name}"
            counts = [count * stride for count in found.counts]
            edges = found.bin_edges
            labels = run._labels(None)
            run._publish(
                HistogramEvent.unpublished(SOURCE, name, step, counts, edges, labels)
            )

    def _guard(self, function: Callable[..., None], *args: Any) -> None:
        """Let no fault in here break the training pass that it is called in."""
        try:
            function(*args)
        except Exception as err:  # noqa: BLE001  # told, and the training goes on
            self.stop()
            msg = f"Watching {self._name or 'a model'} failed and is over: {err!r}."
            warn(f"{msg} Look at the values, and call run.watch again.", RunWarning)


def _sample(values: Any) -> tuple[Any, int]:
    """Return values spread evenly over an array, and one for how many each stands."""
    size = values.numel() if hasattr(values, "numel") else getattr(values, "size", 0)
    if not isinstance(size, int) or size <= 2 * SAMPLE:
        return values, 1
    # Odd, so that it does not walk down one column of a matrix.
    stride = (size // SAMPLE) | 1
    return values.reshape(-1)[::stride], stride


def start_watch(run: RunLogging, model: Any, log: What, every: int, name: str) -> Watch:
    """Watch a torch module, a mapping of arrays, or a function that returns one.

    Raises:
        EventValueError: If it is none of these.
    """
    watch = Watch(run, name, log, every)
    if hasattr(model, "register_forward_pre_hook") and hasattr(
        model, "named_parameters"
    ):
        watch.attach(model)
    elif isinstance(model, Mapping):
        watch.follow(lambda: model)
    elif callable(model):
        watch.follow(model)
    else:
        msg = (
            f"nothing can be watched of {type(model).__name__} {shorten(model)}. Pass "
            f"a torch module, a mapping of arrays, or a function that returns one."
        )
        raise EventValueError(msg)
    return watch
