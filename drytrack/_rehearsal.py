"""The runs that the contract suite puts a tracker through, and who watches them."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import inspect
import os
import pathlib
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from drytrack._capture import capture_events
from drytrack.core import _current
from drytrack.core.exceptions import DeliveryWarning, TrackerExceptionWarning
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


class Gate:
    """Stands before the ``notify`` of one instance, and lets it fail on demand."""

    def __init__(self, tracker: Tracker) -> None:
        self.notify = tracker.notify
        self.broken = False

    def __call__(self, event: Event) -> None:
        if self.broken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.notify(event)


@contextlib.contextmanager
def breakable(tracker: Tracker) -> Iterator[None]:
    """Put a gate before the tracker's handlers."""
    # A patched instance is called through its notify, whatever its class says.
    attributes = vars(tracker.innermost)
    attributes["notify"] = Gate(tracker.innermost)
    try:
        yield
    finally:
        del attributes["notify"]


def experiment_for(tracker: Tracker, tmp_path: pathlib.Path) -> Experiment[Any]:
    """Return an experiment that the tracker watches, and no default one."""
    experiment = Experiment({"lr": 0.1}, name="Contract", par_dir=tmp_path / "runs")
    experiment.trackers.remove_all()
    experiment.trackers.subscribe(tracker)
    return experiment


@contextlib.contextmanager
def start_run(
    tracker: Tracker, tmp_path: pathlib.Path, run_id: str, *, resume: bool = False
) -> Iterator[StartExperimentEvent]:
    """Start a run that is watched by a tracker, and by another beside it."""
    experiment = experiment_for(tracker, tmp_path)
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


def play(
    tracker: Tracker,
    tmp_path: pathlib.Path,
    run_id: str,
    losses: Mapping[int, float],
    *,
    resume: bool = False,
) -> StartExperimentEvent:
    """Run from start to stop, and return the start event."""
    with start_run(tracker, tmp_path, run_id, resume=resume) as start:
        for epoch, loss in losses.items():
            publish(epoch, {"loss": loss})
    return start


def publish(epoch: int, metrics: Mapping[str, float], model: str = "model") -> None:
    """Publish an epoch of the source ``trainer``."""
    StartEpochEvent("trainer", model, epoch)
    StepMetricEvent("trainer", 10 * epoch, metrics, model_name=model)
    EndEpochEvent("trainer", model, epoch)
    MetricEvent(model, "trainer", epoch, metrics)


def settle(tracker: Tracker) -> None:
    """Let the worker thread of a background tracker come to what was published."""
    if tracker.background:
        _current.current_run().flush(timeout_s=60.0)


def watching(tracker: Tracker) -> tuple[Tracker, StartExperimentEvent]:
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
def healthy() -> Iterator[None]:
    """Demand that no tracker fails."""
    with _caught() as said:
        yield
    assert not said, "\n".join(["the tracker failed:", *said])


@contextlib.contextmanager
def failing(tracker: Tracker) -> Iterator[None]:
    """Demand that the tracker fails, and yet can be cleaned up."""
    with _caught() as said:
        yield
    assert any(repr(tracker.name) in text for text in said), (
        f"tracker {tracker.name!r} was broken, and no warning says that it failed"
    )
    dirty = [text for text in said if "failed to clean up" in text]
    assert not dirty, "\n".join(["after a failure:", *dirty])


_PUBLISHED = "drytrack.testing: published"

_CHILD = """
import sys
from drytrack._rehearsal import play_as_child
play_as_child(*sys.argv[1:])
"""


def play_elsewhere(
    suite: type, tmp_path: pathlib.Path, losses: Mapping[int, float], *, kill: bool
) -> None:
    """Publish the first attempt of a run in a process of its own.

    Args:
        suite: The class that makes the tracker there.
        tmp_path: The folder to write below.
        losses: What to publish, by epoch.
        kill: Whether the process is killed before the run ends.

    Raises:
        TypeError: If the other process cannot import the class.
        AssertionError: If the tracker fails there.
    """
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
            [
                *(sys.executable, "-c", _CHILD),
                *(inspect.getfile(suite), suite.__module__, suite.__qualname__),
                *(str(tmp_path), *points),
            ],
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
            assert child.stdin is not None
            assert child.stdout is not None
            published = any(line.strip() == _PUBLISHED for line in child.stdout)
            if kill:
                child.kill()
            child.stdin.close()  # what it waits for
            child.stdout.read()
    ended = kill or child.returncode == 0
    assert published and ended, (  # noqa: PT018  # one failure: the child's
        f"the tracker failed in a process of its own:\n{said.read_text()}"
    )


def play_as_child(
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
    with healthy(), start_run(tracker, tmp_path, "run"):
        for point in points:
            epoch, _, loss = point.partition("=")
            publish(int(epoch), {"loss": float(loss)})
        print(_PUBLISHED, flush=True)  # noqa: T201  # to the parent
        sys.stdin.read()
