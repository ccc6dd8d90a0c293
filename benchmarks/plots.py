"""What plotting costs: long curves, late epochs, many updates, the training thread.

    python benchmarks/plots.py

The limits are those that the documents promise; a result beyond one ends this
script with an error.
"""

from __future__ import annotations

import gc
import math
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import matplotlib.figure
import numpy as np
import psutil

from drytrack import Experiment, init_trackers, open_store
from drytrack.core import log_events
from drytrack.core.track import Tracker
from drytrack.report import write_report
from drytrack.trackers._mat_panels import render
from drytrack.trackers.matplotlib import MatPlotter
from drytrack.trackers.plotly import PlotlyPlotter

N_POINTS = 1_000_000
SPIKE = 777_777
N_UPDATES = 500
ROUNDS = 15
PACED_ROUNDS, PACED_EVENTS, PACE_S = 5, 1_000, 0.001
Plotter = MatPlotter | PlotlyPlotter

failures: list[str] = []


def check(what: str, value: float, limit: float, unit: str) -> None:
    """Print a result beside its limit."""
    good = value <= limit
    print(f"{what:<58} {value:9.3f} {unit:<3} (limit {limit:g}) {'' if good else '!'}")
    if not good:
        failures.append(what)


def begin(plotter: Plotter, folder: pathlib.Path) -> None:
    """Let a plotter enter a run, without the bus."""
    import datetime

    now = datetime.datetime.now()
    plotter.notify(
        log_events.StartExperimentEvent.unpublished(
            {}, "Plots", now, "run", par_dir=folder
        )
    )


def add_epoch(plotter: Plotter, epoch: int) -> None:
    """Publish an epoch of four metrics from two sources."""
    for source in ("train", "validation"):
        metrics = {f"metric {n}": math.exp(-epoch / (n + 1)) for n in range(4)}
        plotter.notify(log_events.MetricEvent.unpublished("m", source, epoch, metrics))


def timed(action: Callable[[], object], rounds: int = 1) -> float:
    """Return how long something takes, in seconds: the median of some rounds."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def draw(plotter: MatPlotter, half_life: float | None = None) -> float:
    """Return how long it takes to draw a plot into a PNG file, in seconds."""
    return timed(lambda: render(plotter.plot(half_life=half_life), "png"), rounds=3)


def value(step: int) -> float:
    """Return a wave with one spike."""
    return 9.0 if step == SPIKE else math.sin(step / 1000)


def long_curves(folder: pathlib.Path) -> None:
    """Draw a curve of a million steps, and look for its spike."""
    for plotter in (MatPlotter(formats=()), PlotlyPlotter(save="never")):
        begin(plotter, folder)
        for step in range(N_POINTS):
            event = log_events.StepMetricEvent.unpublished(
                "train", step, {"loss": value(step)}, model_name="m"
            )
            plotter.notify(event)
        plotter.plot(first=-10)  # imports
        if isinstance(plotter, MatPlotter):
            check("matplotlib: a million points to PNG", draw(plotter), 1.0, "s")
            smoothed = draw(plotter, half_life=50)
            check("matplotlib: the same, smoothed", smoothed, 2.0, "s")
            (line,) = (line for line in plotter.plot().axes[0].lines)
            steps, values = map(np.asarray, line.get_data())
        else:
            check("plotly: a million points", timed(plotter.plot, 3), 1.0, "s")
            (trace,) = plotter.plot().data
            steps, values = trace.x, trace.y
        name = type(plotter).__name__
        check(f"{name}: points that are drawn", len(steps), 2_000, "")
        lost = (SPIKE, 9.0) not in set(zip(map(int, steps), values, strict=True))
        check(f"{name}: spikes lost, of one", float(lost), 0, "")


def long_report(folder: pathlib.Path) -> None:
    """Write the page of a run with a million steps."""
    with Experiment(name="Long", par_dir=folder).create_run("run"):
        for step in range(N_POINTS):
            log_events.StepMetricEvent("train", step, {"loss": value(step)})
    path = folder / "report.html"
    took = timed(lambda: write_report(open_store(folder).runs("Long"), path))
    print(f"{'report: read and written in':<58} {took:9.3f} s")
    check("report: a million points", path.stat().st_size / 1e6, 5, "MB")


class Nothing(Tracker):
    """Takes metrics in the background, and does nothing."""

    background = True
    notify = Tracker.notify.extend()

    @notify.register
    def _take(self, event: log_events.MetricEvent) -> None:
        pass


def publish_paced(tracker: Tracker, folder: pathlib.Path, run_id: str) -> list[float]:
    """Publish at a steady pace, as a training does; return what each took."""
    experiment = Experiment({"lr": 0.1}, name="Paced", par_dir=folder)
    experiment.trackers.subscribe(tracker)
    times = []
    with experiment.create_run(run_id):
        for epoch in range(PACED_EVENTS):
            metrics = {f"metric {n}": math.exp(-epoch / (n + 1)) for n in range(4)}
            began = time.perf_counter()
            log_events.MetricEvent("m", "train", epoch, metrics)
            times.append(time.perf_counter() - began)
            time.sleep(PACE_S)
    return times


def training_thread(folder: pathlib.Path) -> None:
    """Compare what publishing costs with a plotter, and with a tracker that is idle."""
    makers: dict[str, Callable[[], Tracker]] = {
        "Nothing": Nothing,
        "MatPlotter": lambda: MatPlotter(formats=(), every_s=0.1),
        "PlotlyPlotter": lambda: PlotlyPlotter(save="never", every_s=0.1),
    }
    medians: dict[str, list[float]] = {name: [] for name in makers}
    for number in range(PACED_ROUNDS):
        for name, make in makers.items():
            times = publish_paced(make(), folder, f"{name}-{number}")
            medians[name].append(statistics.median(times))
    idle, *others = (statistics.median(taken) for taken in medians.values())
    print(f"{'an event, beside an idle background tracker':<58} {idle * 1e6:9.3f} µs")
    for name, median in zip(list(makers)[1:], others, strict=True):
        check(f"{name}: the same beside it, in times of it", median / idle, 1.5, "x")


def late_epochs(folder: pathlib.Path) -> None:
    """Compare updates after 10 epochs with updates after 100, in turns."""
    for make in (MatPlotter, PlotlyPlotter):
        plotters: dict[int, Plotter] = {}
        for epochs in (10, 100):
            plotters[epochs] = plotter = make(folder / str(epochs))
            begin(plotter, folder)
            for epoch in range(1, epochs + 1):
                add_epoch(plotter, epoch)
            plotter._update()
        times: dict[int, list[float]] = {10: [], 100: []}
        for _ in range(ROUNDS):
            for epochs, plotter in plotters.items():
                add_epoch(plotter, epochs)
                times[epochs].append(timed(plotter._update))
        early, late = (statistics.median(times[epochs]) for epochs in (10, 100))
        name = make.__name__
        print(f"{name + ': an update after 10 epochs':<58} {early:9.3f} s")
        check(f"{name}: after 100 epochs, in times of it", late / early, 1.3, "x")


def many_updates(folder: pathlib.Path) -> None:
    """Look at memory, figures and file handles while updates go on."""
    process = psutil.Process()
    for make in (MatPlotter, PlotlyPlotter):
        plotter = make(folder / make.__name__)
        begin(plotter, folder)
        seen = []
        for update in range(1, N_UPDATES + 1):
            add_epoch(plotter, update % 100 + 1)
            plotter._update()
            if update in (N_UPDATES // 5, N_UPDATES):
                gc.collect()
                figures = sum(
                    isinstance(found, matplotlib.figure.Figure)
                    for found in gc.get_objects()
                )
                memory = process.memory_info().rss / 2**20
                handles = process.num_fds() if hasattr(process, "num_fds") else 0
                seen.append((memory, figures, handles))
        (memory, figures, handles), (memory_end, figures_end, handles_end) = seen
        name = f"{make.__name__}, {N_UPDATES} updates"
        check(f"{name}: memory gained since the 100th", memory_end - memory, 8, "MiB")
        check(f"{name}: figures gained", figures_end - figures, 0, "")
        check(f"{name}: file handles gained", handles_end - handles, 0, "")


def main() -> None:
    """Measure."""
    init_trackers("none")
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        training_thread(folder)
        long_curves(folder)
        long_report(folder)
        late_epochs(folder)
        many_updates(folder)
    if failures:
        sys.exit(f"Beyond the limit: {', '.join(failures)}")


if __name__ == "__main__":
    main()
