"""What a training step pays for a backend: its own client, and through drytrack.

Steps of 5 ms log the same five metrics, in turns of 20 steps in one process: to the
backend's own client, called directly, and to a run that drytrack's tracker for the
backend watches. What a step pays is the mean time of the calls of a turn, and of the
turns the median one. End to end is a whole run, from the first import to the last
byte handed over.

Backends that are not installed are left out. Names choose some:
``python benchmarks/backends.py TensorBoard MLflow``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import logging
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from drytrack import Experiment, init_trackers
from drytrack.core import log_events

STEP_S = 0.005
TURN = 20
TURNS = 15
ROUNDS = 3
STEPS = 300
STEP_LIMIT = 0.2
WHOLE_LIMIT = 1.1

METRICS = {"loss": 0.5, "accuracy": 0.75, "f1": 0.7, "recall": 0.8, "auc": 0.9}

Log = Callable[[int], object]


@dataclasses.dataclass(frozen=True)
class Case:
    """A backend, both ways.

    Attributes:
        package: What must be installed.
        direct: Opens the backend's own client on a folder; yields what logs a step.
        tracker: Makes drytrack's tracker for it.
    """

    package: str
    direct: Callable[[pathlib.Path], AbstractContextManager[Log]]
    tracker: Callable[[], Any]


@contextlib.contextmanager
def _tensorboard(folder: pathlib.Path) -> Iterator[Log]:
    from tensorboardX import SummaryWriter

    def log(step: int) -> None:
        for name, value in METRICS.items():
            writer.add_scalar(name, value, step)

    with SummaryWriter(str(folder)) as writer:
        yield log


@contextlib.contextmanager
def _mlflow(folder: pathlib.Path) -> Iterator[Log]:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder / 'own.db'}")
    try:
        with mlflow.start_run():
            yield lambda step: mlflow.log_metrics(METRICS, step=step)
    finally:
        mlflow.set_tracking_uri(None)


@contextlib.contextmanager
def _dvclive(folder: pathlib.Path) -> Iterator[Log]:
    from dvclive import Live

    def log(step: int) -> None:
        for name, value in METRICS.items():
            live.log_metric(name, value)
        live.next_step()

    with Live(str(folder), save_dvc_exp=False) as live:
        yield log


@contextlib.contextmanager
def _aim(folder: pathlib.Path) -> Iterator[Log]:
    import aim

    run = aim.Run(
        repo=str(folder),
        system_tracking_interval=None,
        capture_terminal_logs=False,
        log_system_params=False,
    )

    def log(step: int) -> None:
        for name, value in METRICS.items():
            run.track(value, name=name, step=step)

    try:
        yield log
    finally:
        run.close()


@contextlib.contextmanager
def _wandb(folder: pathlib.Path) -> Iterator[Log]:
    import wandb

    settings = wandb.Settings(console="off", reinit="create_new")
    with wandb.init(mode="offline", dir=str(folder), settings=settings) as run:
        yield lambda step: run.log(METRICS, step=step)


def _make(module: str, name: str, **options: Any) -> Callable[[], Any]:
    def make() -> Any:
        tracker = getattr(importlib.import_module(f"drytrack.trackers.{module}"), name)
        return tracker(**options)

    return make


CASES = {
    "TensorBoard": Case(
        "tensorboardX", _tensorboard, _make("tensorboard", "TensorBoard")
    ),
    "MLflow": Case("mlflow", _mlflow, _make("mlflow", "MLflow")),
    "Aim": Case("aim", _aim, _make("aim", "Aim")),
    "DVCLive": Case("dvclive", _dvclive, _make("dvclive", "DVCLive")),
    "W&B": Case("wandb", _wandb, _make("wandb", "Wandb", mode="offline")),
}


@contextlib.contextmanager
def _through_drytrack(case: Case, folder: pathlib.Path) -> Iterator[Log]:
    experiment = Experiment({"lr": 0.1}, name="bench", par_dir=folder)
    experiment.trackers.subscribe(case.tracker())
    with experiment.create_run():
        yield lambda step: log_events.StepMetricEvent("train", step, METRICS)


def _work() -> None:
    """Compute for 5 ms in Python, holding the interpreter as a training loop does."""
    end = time.perf_counter() + STEP_S
    while time.perf_counter() < end:
        sum(range(100))


def _time_steps(case: Case, folder: pathlib.Path) -> tuple[float, float]:
    """Return the seconds that a step pays: directly, and through drytrack."""
    paid: list[list[float]] = [[], []]
    with (
        case.direct(_made(folder / "direct")) as direct,
        _through_drytrack(case, _made(folder / "drytrack")) as through,
    ):
        logs = (direct, through)
        for log in logs:  # imports, first files, first tables
            log(0)
        time.sleep(5)
        step = 1
        for turn in range(2 * TURNS):
            which = turn % 2
            calls = []
            for _ in range(TURN):
                _work()
                began = time.perf_counter()
                logs[which](step)
                calls.append(time.perf_counter() - began)
                step += 1
            paid[which].append(statistics.mean(calls))
    return statistics.median(paid[0]), statistics.median(paid[1])


def _time_runs(case: Case, folder: pathlib.Path) -> tuple[float, float]:
    """Return the seconds that a whole run takes, both ways, the median of three."""
    taken: list[list[float]] = [[], []]
    for number in range(2 * ROUNDS):
        own = _made(folder / str(number))
        which = number % 2
        began = time.perf_counter()
        opened = _through_drytrack(case, own) if which else case.direct(own)
        with opened as log:
            for step in range(STEPS):
                _work()
                log(step)
        taken[which].append(time.perf_counter() - began)
    return statistics.median(taken[0]), statistics.median(taken[1])


def _made(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir(parents=True)
    return folder


def main() -> None:
    """Print the table; fail where a backend is beyond a limit."""
    logging.disable(logging.WARNING)  # the clients tell of each run, amid the table
    os.environ["DVC_NO_ANALYTICS"] = "1"
    os.environ["WANDB_SILENT"] = "true"
    init_trackers("none")
    chosen = sys.argv[1:] or list(CASES)
    beyond = []
    print(f"{'':<14}{'direct':>12}{'drytrack':>12}{'':>9}{'run':>10}{'drytrack':>10}")
    for name in chosen:
        case = CASES[name]
        if importlib.util.find_spec(case.package) is None:
            print(f"{name:<14}  {case.package} is not installed")
            continue
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
            contextlib.chdir(folder),  # DVCLive makes a repository where it stands
        ):
            direct, through = _time_steps(case, pathlib.Path(folder, "steps"))
            whole, ours = _time_runs(case, pathlib.Path(folder, "runs"))
        step_ratio, whole_ratio = through / direct, ours / whole
        print(
            f"{name:<14}{direct * 1e6:9.0f} µs{through * 1e6:9.0f} µs"
            f"{step_ratio:7.3f} x{whole:8.2f} s{ours:8.2f} s{whole_ratio:7.2f} x"
        )
        if step_ratio > STEP_LIMIT or whole_ratio > WHOLE_LIMIT:
            beyond.append(name)
    if beyond:
        raise SystemExit(f"Beyond the limits: {', '.join(beyond)}.")


if __name__ == "__main__":
    main()
